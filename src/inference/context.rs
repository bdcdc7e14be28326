//! What the inference loop works with, and what it reports to the supervisor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use uuid::Uuid;

use super::classifier::ClassifierSettings;
use super::live_tap::LiveTap;
use super::prediction_logger::PredictionLogger;
use super::publisher::Publisher;
use super::successor::Successor;
use crate::capture::{AudioMailbox, FrameMailbox, Picture};
use crate::events::{DetectorInfo, EventRecorder};
use crate::model::{InferenceResult, Model, ModelError, ModelInfo, ModelInput};
use crate::report::{Decision, InferenceCounts, Report};
use crate::status::stats::Stats;
use crate::studio::frames::{CollectedInput, FrameSelector};
use crate::studio::monitor::MonitorTap;

/// What the loop works with. It outlives the model process: the next process continues with it.
pub struct InferenceContext {
    /// Frames from the capture.
    pub frames: Arc<FrameMailbox>,
    /// Audio windows from the capture.
    pub audio: Arc<AudioMailbox>,
    /// Decides about each inference.
    pub report: Arc<Mutex<Report>>,
    /// Publishes inferences.
    pub publisher: Publisher,
    /// Turns results into events.
    pub events: Arc<EventRecorder>,
    /// Counters.
    pub stats: Arc<Stats>,
    /// Writes inferences into the log.
    pub prediction_logger: PredictionLogger,
    /// Copies inferences for viewers.
    pub live_tap: Arc<LiveTap>,
    /// Chooses inputs that are worth an upload to Edge Impulse Studio; `None`: off.
    pub frame_selector: Option<Arc<FrameSelector>>,
    /// Shows inferences to Edge Impulse Studio; `None`: it sees none.
    pub monitor: Option<Arc<MonitorTap>>,
    /// How the model treats its input.
    pub classifier: ClassifierSettings,
    /// Gets copies of the inputs during the trial of a new model, and has the model that takes over.
    pub successor: Arc<Successor>,
    /// When set, the next inference is reported as the first one after a (re)start.
    pub announce: Arc<AtomicBool>,
    /// When set, the loop finishes the current frame and returns.
    pub finish: Arc<AtomicBool>,
}

impl InferenceContext {
    /// Whether the loop has to return.
    pub(super) fn is_finishing(&self) -> bool {
        self.finish.load(Ordering::Relaxed)
    }

    /// Logs the answer to a request that began at `begun`, and decides about it. Also returns the milliseconds since
    /// `begun`.
    pub(super) fn accept(&mut self, result: &InferenceResult, begun: Instant) -> (f32, Decision) {
        let wall_ms = begun.elapsed().as_secs_f32() * 1e3;
        self.prediction_logger.log(Instant::now(), result, wall_ms);
        (wall_ms, self.report.lock().accept(result, wall_ms))
    }

    /// Tells those that name the model in what they write.
    pub(super) fn set_model(&self, model: &Arc<ModelInfo>) {
        self.publisher.set_model(model);
        self.events.set_pairs(self.publisher.pair_destination());
        self.events.start_model(detector(model), &model.labels);
        if let Some(selector) = &self.frame_selector {
            selector.set_model(model);
        }
        if let Some(monitor) = &self.monitor {
            monitor.set_model(model);
        }
    }

    /// Whether the camera's frame must be kept until the model has answered.
    pub(super) fn wants_frames(&self) -> bool {
        self.frame_selector
            .as_ref()
            .is_some_and(|selector| selector.wants_frames())
    }

    /// Shows a result to the selector, whose `input` is copied if it is chosen.
    pub(super) fn offer_input(&self, result: &InferenceResult, input: Option<impl FnOnce() -> Option<CollectedInput>>) {
        if let Some(selector) = &self.frame_selector {
            selector.offer(result, input);
        }
    }

    /// Passes the result on to the events. Returns id and counts of its message, if it is published or cached.
    pub(super) fn record_events(
        &self,
        result: &InferenceResult,
        decision: Decision,
        picture: Option<&Picture>,
    ) -> Option<(Uuid, InferenceCounts)> {
        let message = match decision {
            Decision::Publish(counts) if self.publisher.wants_inferences() => Some((Uuid::new_v4(), counts)),
            _ => None,
        };
        self.events.update(result, message.map(|(id, _)| id), picture);
        message
    }

    /// Reports an inference if it is the first one after a (re)start.
    pub(super) fn notify_first_inference(&self, notify: &dyn Fn(Progress)) {
        if self.announce.load(Ordering::Relaxed) && self.announce.swap(false, Ordering::Relaxed) {
            notify(Progress::FirstInference);
        }
    }

    /// Applies the threshold changes that viewers requested.
    ///
    /// # Errors
    /// A fatal [`ModelError`].
    pub(super) fn apply_threshold_changes(&self, model: &mut Model) -> Result<(), ModelError> {
        self.live_tap
            .thresholds
            .apply_pending(|threshold| model.set_threshold(threshold))
    }
}

/// What the events must know of the model; `None`: it does not look at pictures.
fn detector(info: &ModelInfo) -> Option<DetectorInfo> {
    match info.input {
        ModelInput::Image { width, height, .. } => Some(DetectorInfo {
            width,
            height,
            has_centroids: info.model_type == "constrained_object_detection",
        }),
        _ => None,
    }
}

/// What the loop reports to the supervisor.
#[derive(Debug)]
pub enum Progress {
    /// The model prepares its first answer, which may take up to an hour.
    WarmingUp(Arc<ModelInfo>),
    /// The model is loaded and takes pictures or audio.
    Ready(Arc<ModelInfo>),
    /// The model takes an input that this component does not support.
    Unsupported(Arc<ModelInfo>),
    /// This model has taken over from the one before, between two inputs.
    TookOver(Arc<ModelInfo>),
    /// A model that had passed its trial could not take over; the one before continues. The reason.
    TakeoverFailed(ModelError),
    /// The first inference after a (re)start of capture or model.
    FirstInference,
    /// The capture of this epoch has ended, and all its messages are in the outbox.
    Drained(u64),
}
