//! What happens between this device and Edge Impulse Studio: the project, and the last samples that were uploaded.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::util::clock::now_ms;
use crate::util::text::clean;

/// Uploads that are shown.
const MAX_UPLOADS: usize = 8;
/// Most characters of a name, label or reason that is shown.
const MAX_TEXT: usize = 160;

/// This device in Studio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StudioProject {
    /// Name of the project of the API key.
    pub name: String,
    /// Name of the device in the project.
    pub device: String,
    /// The page of the project in Studio. Contains no user name and no password.
    pub link: String,
}

/// What came of an upload.
#[derive(Debug, Clone, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum UploadState {
    /// It is on disk and will be uploaded.
    Waiting(
        /// Why the last attempt failed, as a sentence; `None`: there was none yet.
        Option<String>,
    ),
    /// Studio has it.
    Uploaded,
    /// Studio does not want it.
    Refused(
        /// Why, as a sentence.
        String,
    ),
    /// It is lost.
    Lost(
        /// Why, as a sentence.
        String,
    ),
}

impl UploadState {
    /// The name of the state in messages.
    pub(super) fn name(&self) -> &'static str {
        self.into()
    }

    pub(super) fn reason(&self) -> Option<&str> {
        match self {
            Self::Waiting(reason) => reason.as_deref(),
            Self::Refused(reason) | Self::Lost(reason) => Some(reason),
            Self::Uploaded => None,
        }
    }
}

/// A sample on its way to Studio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRecord {
    /// Tells the samples of this process apart; `None`: it was never on disk.
    pub number: Option<u64>,
    /// Name of the file.
    pub name: String,
    /// The label; may be empty.
    pub label: String,
    /// `training`, `testing`, ...
    pub category: String,
    /// Length of the data.
    pub bytes: u64,
    /// What came of it.
    pub state: UploadState,
}

/// An upload with the time since which it is in its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShownUpload {
    /// Milliseconds since the Unix epoch.
    pub(super) ts: u64,
    pub(super) record: UploadRecord,
}

/// The activity at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StudioActivitySnapshot {
    pub(super) project: Option<StudioProject>,
    /// Samples on disk that Studio does not have yet.
    pub(super) waiting: usize,
    /// The newest first.
    pub(super) uploads: VecDeque<ShownUpload>,
}

/// What happens between this device and Studio; the channel and the uploads write it. Clones share the same activity.
#[derive(Debug, Clone, Default)]
pub struct StudioActivity(Arc<Mutex<StudioActivitySnapshot>>);

impl StudioActivity {
    /// Studio knows the device.
    pub fn set_project(&self, project: StudioProject) {
        self.0.lock().project = Some(project);
    }

    /// So many samples are on disk.
    pub fn set_waiting(&self, samples: usize) {
        self.0.lock().waiting = samples;
    }

    /// A sample is in another state, or new. The oldest one that is shown is forgotten.
    pub fn record_upload(&self, record: UploadRecord) {
        let shown = ShownUpload {
            ts: now_ms(),
            record: shortened(record),
        };
        let mut activity = self.0.lock();
        let uploads = &mut activity.uploads;
        let known = uploads
            .iter_mut()
            .find(|upload| shown.record.number.is_some() && upload.record.number == shown.record.number);
        match known {
            // A further attempt that fails is no new state.
            Some(known) if known.record.state.name() == shown.record.state.name() => known.record = shown.record,
            Some(known) => *known = shown,
            None => {
                uploads.push_front(shown);
                uploads.truncate(MAX_UPLOADS);
            }
        }
    }

    /// Samples that wait and have a lower number were dropped, because too many waited.
    pub fn drop_uploads_before(&self, number: u64) {
        for upload in &mut self.0.lock().uploads {
            let is_dropped = upload.record.number.is_some_and(|own| own < number);
            if is_dropped && matches!(upload.record.state, UploadState::Waiting(_)) {
                upload.ts = now_ms();
                upload.record.state = UploadState::Lost("too many samples wait on this device".to_owned());
            }
        }
    }

    pub(super) fn snapshot(&self) -> StudioActivitySnapshot {
        self.0.lock().clone()
    }
}

/// Labels and reasons come from Studio.
fn shortened(record: UploadRecord) -> UploadRecord {
    let short = |text: String| clean(&text, MAX_TEXT);
    UploadRecord {
        name: short(record.name),
        label: short(record.label),
        state: match record.state {
            UploadState::Waiting(reason) => UploadState::Waiting(reason.map(short)),
            UploadState::Refused(reason) => UploadState::Refused(short(reason)),
            UploadState::Lost(reason) => UploadState::Lost(short(reason)),
            UploadState::Uploaded => UploadState::Uploaded,
        },
        ..record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64, state: UploadState) -> UploadRecord {
        UploadRecord {
            number: Some(number),
            name: "cat.jpg".to_owned(),
            label: "cat".to_owned(),
            category: "training".to_owned(),
            bytes: 7,
            state,
        }
    }

    #[test]
    fn each_sample_is_shown_once_in_its_last_state_and_only_the_newest_ones() {
        let activity = StudioActivity::default();
        for number in 0..20 {
            activity.record_upload(record(number, UploadState::Waiting(None)));
        }
        activity.record_upload(record(18, UploadState::Refused("x\n".repeat(1000))));
        activity.record_upload(record(3, UploadState::Uploaded));
        let uploads = activity.snapshot().uploads;
        let numbers: Vec<_> = uploads.iter().filter_map(|upload| upload.record.number).collect();
        assert_eq!(numbers, [3, 19, 18, 17, 16, 15, 14, 13]);
        assert_eq!(uploads[0].record.state, UploadState::Uploaded);
        let reason = uploads[2].record.state.reason().unwrap();
        assert!(reason.len() == MAX_TEXT && !reason.contains('\n'), "{reason}");
    }

    #[test]
    fn a_sample_that_gave_way_to_newer_ones_is_shown_as_lost() {
        let activity = StudioActivity::default();
        for (number, state) in [
            (1, UploadState::Uploaded),
            (2, UploadState::Waiting(None)),
            (3, UploadState::Waiting(None)),
        ] {
            activity.record_upload(record(number, state));
        }
        activity.drop_uploads_before(3);
        let uploads = activity.snapshot().uploads;
        let states: Vec<_> = uploads.iter().map(|upload| upload.record.state.name()).collect();
        assert_eq!(states, ["waiting", "lost", "uploaded"]);
    }

    #[test]
    fn samples_that_were_never_on_disk_are_shown_one_by_one() {
        let activity = StudioActivity::default();
        for _ in 0..2 {
            activity.record_upload(UploadRecord {
                number: None,
                ..record(0, UploadState::Lost("the disk is full".to_owned()))
            });
        }
        assert_eq!(activity.snapshot().uploads.len(), 2);
    }
}
