//! The thread of the monitoring: encodes pictures, writes summaries and records to the disk, and passes records on to the stream.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::indices::IndexFile;
use super::pending::PendingSummaries;
use super::record::{RawData, RawDataKind, Record};
use super::responder::RecordResponder;
use super::store::RecordOwner;
use super::stored_records::StoredRecords;
use super::summary::SummaryWindow;
use super::tap::{CopiedInference, CopiedInput, ModelChange, MonitorTap, TapEvent, TapWork, version_of};
use crate::capture::audio::wav;
use crate::model::{InferenceResult, ModelInfo};
use crate::report::{EncodedPicture, PictureRef};
use crate::status::stats::Stats;
use crate::studio::channel::{ChannelHandle, Outgoing};
use crate::util::log_limiter::LogLimiter;
use crate::util::panics::catch_panic;
use crate::util::text::sentence;

/// Streamed records whose acknowledgement is recognised.
const RECENT: usize = 256;
/// What to do where nothing can be written.
const ADVICE: &str = "free space on that disk, make it writable for the user of the component, or set work_dir";

/// What the thread shares with the service and the task that sends summaries.
#[derive(Debug)]
pub(super) struct MonitorState {
    pub(super) tap: Arc<MonitorTap>,
    /// The model of the next hello; `None`: there was none yet.
    pub(super) model: Mutex<Option<Arc<ModelInfo>>>,
    /// Indices of the records that were streamed last.
    pub(super) streamed: Mutex<VecDeque<u64>>,
    pub(super) pending: Mutex<PendingSummaries>,
    /// What is stored, and who answers requests for it; nothing until a model is loaded.
    pub(super) stored: OnceLock<(StoredRecords, RecordResponder)>,
    /// A summary waits.
    pub(super) has_summary: Notify,
    pub(super) stats: Arc<Stats>,
}

/// The work of the thread.
pub(super) struct Recorder {
    state: Arc<MonitorState>,
    channel: ChannelHandle,
    /// Where records are stored.
    records: PathBuf,
    /// For the task that answers requests.
    runtime: Handle,
    indices: IndexFile,
    present: Option<PresentModel>,
    log_limiter: LogLimiter,
}

#[derive(Debug, Clone, Copy)]
struct PresentModel {
    /// As the tap numbers it.
    number: u64,
    version: RecordOwner,
    /// The index of the last inference before.
    base: u64,
}

impl Recorder {
    /// Reads what an earlier process left. `records`: the directory of the stored records.
    pub(super) fn new(
        state: Arc<MonitorState>,
        channel: ChannelHandle,
        runtime: Handle,
        records: PathBuf,
        index_file: PathBuf,
    ) -> Self {
        // The directory of both, which may be set aside, comes first.
        let opened = state.pending.lock().open();
        let (indices, result) = IndexFile::open(index_file, &state.stats);
        let mut recorder = Self {
            state,
            channel,
            records,
            runtime,
            indices,
            present: None,
            log_limiter: LogLimiter::default(),
        };
        recorder.check_disk(opened);
        recorder.check_disk(result);
        recorder.state.has_summary.notify_one();
        recorder
    }

    /// Works until the tap is closed.
    pub(super) fn run(&mut self) {
        let tap = self.state.tap.clone();
        loop {
            let work = tap.next();
            if matches!(work, TapWork::Closed) {
                break;
            }
            if let Err(panicked) = catch_panic(|| self.handle(work)) {
                tracing::error!(error = %panicked, "An inference is not shown to Edge Impulse Studio");
            }
        }
        if let Some(present) = self.present {
            self.set_last(present, tap.inferences());
        }
    }

    fn handle(&mut self, work: TapWork) {
        match work {
            TapWork::Event(TapEvent::Model(change)) => self.set_model(&change),
            TapWork::Event(TapEvent::Summary(window)) => self.keep_summary(&window),
            TapWork::Inference(inference) => self.keep_inference(*inference),
            TapWork::Closed => {}
        }
    }

    fn set_model(&mut self, change: &ModelChange) {
        if let Some(earlier) = self.present {
            self.set_last(earlier, change.before);
        }
        let version = version_of(&change.info);
        self.present = Some(PresentModel {
            number: change.number,
            version,
            base: self.indices.last(version).max(self.open_records(version)),
        });
        let earlier = self.state.model.lock().replace(change.info.clone());
        // Studio learns of an update that it asked for from the answer.
        if earlier.is_none() || !change.is_asked {
            self.channel.offer_changed();
        }
    }

    /// Opens the stored records of this version. Returns the last index among them.
    fn open_records(&self, owner: RecordOwner) -> u64 {
        let open = || {
            let max_bytes = self.state.tap.max_storage_bytes();
            let records = StoredRecords::open(self.records.clone(), owner, max_bytes, self.state.stats.clone());
            let _runtime = self.runtime.enter();
            let responder = RecordResponder::start(self.channel.clone(), records.clone());
            (records, responder)
        };
        let (records, _) = self.state.stored.get_or_init(open);
        records.switch_to(owner);
        records.last_index()
    }

    /// No index up to the last one is used again.
    fn set_last(&mut self, model: PresentModel, inferences: u64) {
        let result = self.indices.set(model.version, model.base + inferences);
        self.check_disk(result);
    }

    fn keep_summary(&mut self, window: &SummaryWindow) {
        let Some(present) = self.present else { return };
        let last = present.base + window.last_index();
        let result = self.indices.reserve(present.version, last);
        self.check_disk(result);
        let text = window.to_json(present.base).to_string();
        let put = self.state.pending.lock().put(text.into());
        self.state.stats.monitor_summaries_dropped.add(put.dropped);
        self.state.has_summary.notify_one();
        self.check_disk(put.not_written.map_or(Ok(()), Err));
    }

    fn keep_inference(&mut self, inference: CopiedInference) {
        let is_streamed = self.state.tap.is_streaming();
        let Some(present) = self.present.filter(|present| present.number == inference.model) else {
            return;
        };
        let index = present.base + inference.number;
        let is_for_store = inference.is_for_store;
        let record = match to_record(index, inference) {
            Ok(record) => record,
            Err(reason) => {
                self.state.stats.monitor_records_lost.add(u64::from(is_for_store));
                if let Some(suppressed) = self.log_limiter.check_words(Instant::now(), &reason) {
                    let suppressed = suppressed.count();
                    tracing::error!(reason, suppressed, "An inference is not shown to Edge Impulse Studio");
                }
                return;
            }
        };
        let result = self.indices.reserve(present.version, index);
        self.check_disk(result);
        if is_streamed {
            self.stream(&record);
        }
        if let (true, Some((records, _))) = (is_for_store, self.state.stored.get()) {
            records.keep(&record);
        }
    }

    fn stream(&self, record: &Record) {
        let mut streamed = self.state.streamed.lock();
        if streamed.len() >= RECENT {
            streamed.pop_front();
        }
        streamed.push_back(record.index);
        drop(streamed);
        self.channel.send_newest(Outgoing::ImpulseRecord {
            index: record.index,
            timestamp_ms: record.timestamp_ms,
            record: record.record.clone(),
            kind: record.raw_data.kind.into(),
            data: record.raw_data.bytes.clone(),
        });
    }

    fn check_disk(&mut self, result: io::Result<()>) {
        if let Err(error) = result
            && let Some(suppressed) = self.log_limiter.check_words(Instant::now(), &error.to_string())
        {
            tracing::warn!(
                %error, advice = ADVICE, suppressed = suppressed.count(),
                "Summaries for Edge Impulse Studio cannot be kept on disk; they wait in memory"
            );
        }
    }
}

/// The inference as Studio gets it.
///
/// # Errors
/// Why not, as a sentence.
fn to_record(index: u64, inference: CopiedInference) -> Result<Record, String> {
    let raw_data = match inference.input {
        CopiedInput::Picture(picture) => {
            let reference = PictureRef {
                width: picture.width,
                height: picture.height,
                grey: picture.grey,
                data: &picture.data,
            };
            let encoded = EncodedPicture::new(reference).map_err(|e| sentence(&e))?;
            RawData {
                kind: RawDataKind::Jpg,
                bytes: encoded.jpeg().clone(),
            }
        }
        CopiedInput::Audio { samples, frequency } => RawData {
            kind: RawDataKind::Wav,
            bytes: wav(&samples, frequency),
        },
    };
    Ok(Record {
        index,
        timestamp_ms: inference.timestamp_ms,
        record: answer_of(&inference.result),
        raw_data,
    })
}

/// The model's answer, as it was cleaned.
fn answer_of(result: &InferenceResult) -> Value {
    let mut answer = json!({"result": result, "timing": result.timing});
    if let Some(info) = &result.info {
        answer["info"] = Value::from(&**info);
    }
    answer
}
