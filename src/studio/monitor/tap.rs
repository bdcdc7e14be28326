//! Where the inference loop leaves what it inferred. It costs the loop a few additions for each inference; a copy of the
//! picture is made only when a record is due or Studio watches. Nothing here waits for a disk or a network.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::store::RecordOwner;
use super::summary::{Point, SummaryRules, SummaryWindow};
use crate::capture::{AudioWindow, Picture};
use crate::config::MonitorConfig;
use crate::model::{InferenceResult, ModelInfo};
use crate::status::stats::Stats;
use crate::studio::update::StudioUpdates;
use crate::util::clock::now_ms;

/// Events that may wait for the thread. There are two a minute.
const QUEUE: usize = 256;

/// What a model was asked about.
#[derive(Debug, Clone, Copy)]
pub enum InferredInput<'a> {
    /// The picture at the size of the model.
    Picture(&'a Picture),
    /// Audio.
    Audio {
        /// The window.
        window: &'a AudioWindow,
        /// Samples per second.
        frequency: u32,
    },
}

/// A copy of [`InferredInput`].
#[derive(Debug)]
pub(super) enum CopiedInput {
    Picture(Picture),
    Audio { samples: Vec<i16>, frequency: u32 },
}

impl From<InferredInput<'_>> for CopiedInput {
    fn from(input: InferredInput<'_>) -> Self {
        match input {
            InferredInput::Picture(picture) => Self::Picture(picture.clone()),
            InferredInput::Audio { window, frequency } => Self::Audio {
                samples: window.samples.clone(),
                frequency,
            },
        }
    }
}

/// An inference that is stored, streamed, or both.
#[derive(Debug)]
pub(super) struct CopiedInference {
    pub(super) model: u64,
    /// Number of the inference since this model came, from 1.
    pub(super) number: u64,
    pub(super) timestamp_ms: u64,
    pub(super) result: InferenceResult,
    pub(super) input: CopiedInput,
    pub(super) is_for_store: bool,
}

/// What the thread handles in order.
#[derive(Debug)]
pub(super) enum TapEvent {
    /// Another model infers.
    Model(ModelChange),
    /// A window has closed. Its indices count from the beginning of this model.
    Summary(Box<SummaryWindow>),
}

/// Another model infers.
#[derive(Debug)]
pub(super) struct ModelChange {
    /// Counts the models of this process.
    pub(super) number: u64,
    pub(super) info: Arc<ModelInfo>,
    /// The inferences of the model before.
    pub(super) before: u64,
    /// Studio has asked for it, and waits for an answer.
    pub(super) is_asked: bool,
}

/// Takes inferences from the loop, and gives them to the thread of the monitoring.
#[derive(Debug)]
pub struct MonitorTap {
    settings: MonitorConfig,
    updates: StudioUpdates,
    stats: Arc<Stats>,
    counting: Mutex<Counting>,
    is_streaming: AtomicBool,
    waiting: Mutex<Waiting>,
    has_work: Condvar,
}

#[derive(Debug, Default)]
struct Counting {
    model: Option<CountedModel>,
    /// Inferences of this model.
    inferences: u64,
    window: Option<Box<SummaryWindow>>,
    next_record: Option<Instant>,
}

#[derive(Debug)]
struct CountedModel {
    number: u64,
    info: Arc<ModelInfo>,
    rules: SummaryRules,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<TapEvent>,
    newest: Option<CopiedInference>,
    is_closed: bool,
}

/// Work for the thread.
pub(super) enum TapWork {
    Event(TapEvent),
    Inference(Box<CopiedInference>),
    /// Nothing more comes.
    Closed,
}

/// The version of a model.
pub(super) fn version_of(info: &ModelInfo) -> RecordOwner {
    RecordOwner {
        project_id: info.project_id,
        version: info.deploy_version,
    }
}

impl MonitorTap {
    /// A tap without a model. `updates`: whether Studio has asked for an update.
    pub fn new(settings: MonitorConfig, updates: StudioUpdates, stats: Arc<Stats>) -> Self {
        Self {
            settings,
            updates,
            stats,
            counting: Mutex::default(),
            is_streaming: AtomicBool::new(false),
            waiting: Mutex::default(),
            has_work: Condvar::new(),
        }
    }

    /// The model that infers from now on, with the thresholds in force.
    pub fn set_model(&self, info: &Arc<ModelInfo>) {
        self.counting.lock().set_model(info, self);
    }

    /// Counts an inference, and copies it if a record is due or Studio watches.
    pub fn observe(&self, info: &Arc<ModelInfo>, result: &InferenceResult, input: InferredInput<'_>) {
        let (now, timestamp_ms) = (Instant::now(), now_ms());
        let mut counting = self.counting.lock();
        counting.set_model(info, self);
        let (model, number) = counting.count(result, timestamp_ms, now, self);
        let is_for_store = counting.is_record_due(now, self.settings.record_interval);
        drop(counting);
        if is_for_store || self.is_streaming() {
            self.put(CopiedInference {
                model,
                number,
                timestamp_ms,
                result: result.clone(),
                input: input.into(),
                is_for_store,
            });
        }
    }

    /// Closes the window before its time, because a session or the process ends.
    pub fn close_window(&self) {
        self.counting.lock().close_window(self);
    }

    /// Whether Studio wants each inference.
    pub(super) fn is_streaming(&self) -> bool {
        self.is_streaming.load(Ordering::Relaxed)
    }

    /// Returns whether it was on.
    pub(super) fn set_streaming(&self, on: bool) -> bool {
        self.is_streaming.swap(on, Ordering::Relaxed)
    }

    /// Most bytes of the stored records.
    pub(super) fn max_storage_bytes(&self) -> u64 {
        self.settings.max_storage_bytes
    }

    /// The inferences of the present model.
    pub(super) fn inferences(&self) -> u64 {
        self.counting.lock().inferences
    }

    /// Ends [`Self::next`] when all work is done.
    pub(super) fn close(&self) {
        self.waiting.lock().is_closed = true;
        self.has_work.notify_all();
    }

    /// Waits for work: events first, in their order.
    pub(super) fn next(&self) -> TapWork {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some(event) = waiting.events.pop_front() {
                return TapWork::Event(event);
            }
            if let Some(inference) = waiting.newest.take() {
                return TapWork::Inference(Box::new(inference));
            }
            if waiting.is_closed {
                return TapWork::Closed;
            }
            self.has_work.wait(&mut waiting);
        }
    }

    fn put(&self, mut inference: CopiedInference) {
        let mut waiting = self.waiting.lock();
        if let Some(earlier) = waiting.newest.take()
            && earlier.is_for_store
        {
            if inference.is_for_store {
                self.stats.monitor_records_lost.inc();
            }
            inference.is_for_store = true;
        }
        waiting.newest = Some(inference);
        self.has_work.notify_all();
    }

    fn push(&self, event: TapEvent) {
        let mut waiting = self.waiting.lock();
        // The thread waits for a disk for hours: a lost summary is counted, and a model is never lost.
        if waiting.events.len() >= QUEUE
            && let Some(at) = waiting
                .events
                .iter()
                .position(|event| matches!(event, TapEvent::Summary(_)))
        {
            waiting.events.remove(at);
            self.stats.monitor_summaries_dropped.inc();
        }
        waiting.events.push_back(event);
        self.has_work.notify_all();
    }
}

impl Counting {
    /// Does nothing for the same model. A new version begins a new count.
    fn set_model(&mut self, info: &Arc<ModelInfo>, tap: &MonitorTap) {
        if let Some(known) = &mut self.model {
            if Arc::ptr_eq(&known.info, info) {
                return;
            }
            if version_of(&known.info) == version_of(info) {
                // It was started again, or a threshold was changed.
                known.rules = SummaryRules::of(info);
                known.info = info.clone();
                return;
            }
        }
        self.close_window(tap);
        let number = self.model.as_ref().map_or(0, |known| known.number) + 1;
        let before = std::mem::take(&mut self.inferences);
        self.model = Some(CountedModel {
            number,
            info: info.clone(),
            rules: SummaryRules::of(info),
        });
        tap.push(TapEvent::Model(ModelChange {
            number,
            info: info.clone(),
            before,
            is_asked: tap.updates.is_asked(),
        }));
    }

    /// Returns the number of the model and that of the inference.
    fn count(&mut self, result: &InferenceResult, timestamp_ms: u64, now: Instant, tap: &MonitorTap) -> (u64, u64) {
        self.inferences += 1;
        let at = Point {
            index: self.inferences,
            timestamp_ms,
        };
        let Some(model) = &self.model else {
            return (0, self.inferences);
        };
        let interval = tap.settings.summary_interval;
        let window = self
            .window
            .get_or_insert_with(|| Box::new(SummaryWindow::open(at, now)));
        if window.add(model.rules, result, at, now, interval) {
            self.close_window(tap);
        }
        (self.model.as_ref().map_or(0, |known| known.number), self.inferences)
    }

    fn close_window(&mut self, tap: &MonitorTap) {
        if let Some(window) = self.window.take() {
            tap.push(TapEvent::Summary(window));
        }
    }

    /// Like the views of the live page, the interval starts when a record was due, not when it came.
    fn is_record_due(&mut self, now: Instant, interval: Duration) -> bool {
        match self.next_record {
            Some(at) if now < at => false,
            Some(at) if now < at + interval => {
                self.next_record = Some(at + interval);
                true
            }
            _ => {
                self.next_record = Some(now + interval);
                true
            }
        }
    }
}

#[cfg(test)]
#[path = "tap_tests.rs"]
mod tests;
