//! The task that encodes chosen inputs and hands them to the uploads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::candidate::{Candidate, CollectReason, CollectedInput};
use super::labels::boxes_in_frame;
use super::likeness::PictureHash;
use super::limits::SavedLimits;
use super::selector::FrameSelector;
use crate::capture::audio::wav;
use crate::status::damaged_files;
use crate::status::stats::Stats;
use crate::studio::channel::SnapshotResolution;
use crate::studio::collect::FrameEncoder;
use crate::studio::upload::{CollectedDetails, LabelledBox, SampleKind, UploadHandle, UploadSample};
use crate::util::aged_file::AgedFile;
use crate::util::foreign_files;
use crate::util::panics::PanicRestart;
use crate::util::text::excerpt;

/// The candidates of a [`FrameSelector`], and what becomes of them.
#[derive(Debug)]
pub struct FrameCandidates {
    receiver: mpsc::Receiver<Candidate>,
    /// Locked by one blocking thread at a time.
    preparer: Arc<Mutex<SamplePreparer>>,
}

impl FrameCandidates {
    pub(super) fn new(
        receiver: mpsc::Receiver<Candidate>,
        selector: Arc<FrameSelector>,
        device: &str,
        state: PathBuf,
        stats: Arc<Stats>,
    ) -> Self {
        let preparer = SamplePreparer {
            selector,
            device: file_name_part(device),
            state: AgedFile::new(state),
            is_restored: false,
            stats,
        };
        Self {
            receiver,
            preparer: Arc::new(Mutex::new(preparer)),
        }
    }

    async fn run(&mut self, uploads: &UploadHandle) {
        loop {
            // First without a candidate: the limits of an earlier process must be known.
            let restored = self.with_preparer(SamplePreparer::restore_limits);
            // A panic is already logged.
            let _ = restored.await;
            let Some(candidate) = self.receiver.recv().await else {
                return;
            };
            let prepared = self.with_preparer(move |preparer| preparer.prepare(candidate));
            if let Ok(Some(sample)) = prepared.await {
                // Counted and logged there.
                let _ = uploads.keep(sample).await;
            }
        }
    }

    fn with_preparer<T, W>(&self, work: W) -> JoinHandle<T>
    where
        T: Send + 'static,
        W: FnOnce(&mut SamplePreparer) -> T + Send + 'static,
    {
        let preparer = self.preparer.clone();
        tokio::task::spawn_blocking(move || work(&mut preparer.lock()))
    }
}

/// The running task, which ends when this is dropped.
#[derive(Debug)]
pub struct FrameCollector(JoinHandle<()>);

impl FrameCollector {
    /// Starts the task.
    pub fn start(mut candidates: FrameCandidates, uploads: UploadHandle) -> Self {
        Self(tokio::spawn(async move {
            let mut restart = PanicRestart::new("studio frames");
            while let Err(wait) = restart.attempt(candidates.run(&uploads)).await {
                tokio::time::sleep(wait).await;
            }
        }))
    }
}

impl Drop for FrameCollector {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes samples of candidates, on a blocking thread.
#[derive(Debug)]
struct SamplePreparer {
    selector: Arc<FrameSelector>,
    /// The name of the device as a part of a file name.
    device: String,
    state: AgedFile,
    /// The limits of an earlier process are known.
    is_restored: bool,
    stats: Arc<Stats>,
}

impl SamplePreparer {
    fn restore_limits(&mut self) {
        if std::mem::replace(&mut self.is_restored, true) {
            return;
        }
        match self.state.load::<SavedLimits>() {
            Ok(Some((saved, elapsed))) => self.selector.restore(Instant::now(), elapsed, &saved),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "The frames uploaded to Edge Impulse Studio lately are not known; they are counted from now on");
                if !foreign_files::is_foreign(&error) {
                    damaged_files::set_aside(self.state.path(), &error, &self.stats);
                }
            }
        }
    }

    /// The sample of a candidate; `None`: it is not uploaded.
    fn prepare(&mut self, candidate: Candidate) -> Option<UploadSample> {
        let hash = match &candidate.input {
            CollectedInput::Picture { frame, .. } => PictureHash::of(frame).ok(),
            CollectedInput::Audio { .. } => None,
        };
        if candidate.reason != CollectReason::Regular && hash.is_some_and(|hash| self.selector.is_like_the_last(hash)) {
            self.stats.collect_alike.inc();
            return None;
        }
        let Some(limits) = self.selector.take(Instant::now(), candidate.reason, hash) else {
            self.stats.collect_over_limit.inc();
            return None;
        };
        self.stats.collect_taken.inc();
        // Written before the upload: a process that ends at once and starts again must not upload without end.
        if let Err(error) = self.state.save(limits) {
            tracing::warn!(%error, "The limits of the frames for Edge Impulse Studio cannot be written; a restart forgets them");
        }
        let file = match encode(&candidate) {
            Ok(file) => file,
            Err(error) => {
                self.stats.collect_dropped.inc();
                tracing::error!(error, "A frame for Edge Impulse Studio cannot be encoded");
                return None;
            }
        };
        tracing::info!(
            reason = %candidate.reason,
            value = candidate.value,
            boxes = file.boxes.len(),
            label = candidate.label,
            bytes = file.data.len(),
            "A frame is uploaded to Edge Impulse Studio"
        );
        Some(self.sample(candidate, file))
    }

    fn sample(&self, candidate: Candidate, file: EncodedInput) -> UploadSample {
        let name = format!("{}-{}", self.device, candidate.captured_at_ms);
        let metadata = self.metadata(&candidate);
        UploadSample {
            category: candidate.category.to_string(),
            label: candidate.label.unwrap_or_default(),
            kind: file.kind,
            data: file.data,
            collected: Some(CollectedDetails {
                name,
                boxes: file.boxes,
                metadata,
            }),
        }
    }

    /// What a person needs to find and judge the sample in Studio.
    fn metadata(&self, candidate: &Candidate) -> BTreeMap<String, String> {
        let model = candidate.model.as_ref();
        let entries = [
            ("reason", Some(candidate.reason.to_string())),
            ("value", candidate.value.map(|value| value.to_string())),
            ("label", candidate.label.clone()),
            ("device", Some(self.device.clone())),
            ("model", model.map(|model| model.name.clone())),
            ("model_version", model.map(|model| model.deploy_version.to_string())),
            ("captured_at_ms", Some(candidate.captured_at_ms.to_string())),
        ];
        let known = entries.into_iter().filter_map(|(key, value)| Some((key, value?)));
        known.map(|(key, value)| (key.to_owned(), excerpt(&value))).collect()
    }
}

struct EncodedInput {
    kind: SampleKind,
    data: Bytes,
    boxes: Vec<LabelledBox>,
}

/// The error is a sentence.
fn encode(candidate: &Candidate) -> Result<EncodedInput, String> {
    match &candidate.input {
        CollectedInput::Picture { frame, target } => {
            let size = frame.size().ok_or("the frame has no size")?;
            Ok(EncodedInput {
                kind: SampleKind::Jpeg,
                data: FrameEncoder::default().encode(frame, SnapshotResolution::High)?,
                boxes: boxes_in_frame(&candidate.boxes, size, *target),
            })
        }
        CollectedInput::Audio { samples, sample_rate } => Ok(EncodedInput {
            kind: SampleKind::Wav,
            data: wav(samples, *sample_rate),
            boxes: Vec::new(),
        }),
    }
}

/// A text as part of the name of a file.
fn file_name_part(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.chars().map(|c| if is_plain(c) { c } else { '_' }).collect()
}
