//! Chooses inputs on the inference thread.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::candidate::{Candidate, CollectReason, CollectedInput, best_label, best_value, boxes};
use super::collector::FrameCandidates;
use super::flicker::FlickerDetector;
use super::likeness::PictureHash;
use super::limits::{BEGINNING, FrameLimits, SavedLimits};
use crate::config::FrameCollectionConfig;
use crate::model::{InferenceResult, ModelInfo};
use crate::report::detections::Detections;
use crate::status::stats::Stats;
use crate::util::clock::now_ms;

/// Candidates that wait to be compared and encoded.
const QUEUE: usize = 1;
/// Least time between two candidates: most of those of a scene that does not change are not used.
const CANDIDATE_PAUSE: Duration = Duration::from_secs(1);

/// Chooses inputs that are worth an upload. It outlives the models.
#[derive(Debug)]
pub struct FrameSelector {
    state: Mutex<SelectorState>,
    candidates: mpsc::Sender<Candidate>,
    stats: Arc<Stats>,
}

#[derive(Debug)]
struct SelectorState {
    config: FrameCollectionConfig,
    limits: FrameLimits,
    flicker: FlickerDetector,
    model: Option<Arc<ModelInfo>>,
    /// No candidate before this.
    next_candidate: Duration,
    began: Instant,
}

impl FrameSelector {
    /// A selector, and what the task needs. `device` is the name of the device, `state` the file in which the limits are kept.
    pub fn new(
        config: FrameCollectionConfig,
        device: &str,
        state: PathBuf,
        stats: Arc<Stats>,
    ) -> (Arc<Self>, FrameCandidates) {
        let (candidates, receiver) = mpsc::channel(QUEUE);
        let selector = Arc::new(Self {
            state: Mutex::new(SelectorState {
                config,
                limits: FrameLimits::default(),
                flicker: FlickerDetector::default(),
                model: None,
                next_candidate: Duration::ZERO,
                began: Instant::now(),
            }),
            candidates,
            stats: stats.clone(),
        });
        let candidates = FrameCandidates::new(receiver, selector.clone(), device, state, stats);
        (selector, candidates)
    }

    /// Takes over a changed configuration.
    pub fn reconfigure(&self, config: FrameCollectionConfig) {
        self.state.lock().config = config;
    }

    /// The model whose results come from now on.
    pub fn set_model(&self, model: &Arc<ModelInfo>) {
        let mut state = self.state.lock();
        state.model = Some(model.clone());
        // The numbers of its objects are its own.
        state.flicker = FlickerDetector::default();
    }

    /// Whether the camera's frame must be kept until the model has answered.
    pub fn wants_frames(&self) -> bool {
        self.state.lock().wants_inputs(Instant::now())
    }

    /// Shows the result of an inference. `input` copies its input; `None`: the input was not kept.
    pub fn offer(&self, result: &InferenceResult, input: Option<impl FnOnce() -> Option<CollectedInput>>) {
        let detections = Detections::of(result);
        let (reason, model, category) = {
            let mut state = self.state.lock();
            let choice = state.choose(Instant::now(), result, input.is_some());
            if choice.is_over_limit {
                self.stats.collect_over_limit.inc();
            }
            let Some(reason) = choice.reason else {
                return;
            };
            (reason, state.model.clone(), state.config.category)
        };
        let Some(input) = input.and_then(|copy| copy()) else {
            return;
        };
        let candidate = Candidate {
            reason,
            input,
            value: best_value(detections),
            label: best_label(detections, model.as_deref()),
            boxes: boxes(detections),
            model,
            category,
            captured_at_ms: now_ms(),
        };
        if self.candidates.try_send(candidate).is_err() {
            self.stats.collect_over_limit.inc();
        }
    }

    /// Whether the picture looks like the one that was taken last.
    pub(super) fn is_like_the_last(&self, hash: PictureHash) -> bool {
        self.state.lock().limits.is_like_the_last(hash)
    }

    /// Counts a candidate that is uploaded, and returns what must be saved; `None`: the limits do not allow it any more.
    pub(super) fn take(&self, now: Instant, reason: CollectReason, hash: Option<PictureHash>) -> Option<SavedLimits> {
        let mut state = self.state.lock();
        let (time, config) = (state.time(now), state.config);
        state
            .limits
            .take(time, &config, reason, hash)
            .then(|| state.limits.saved(time))
    }

    /// Takes over the limits of an earlier process.
    pub(super) fn restore(&self, now: Instant, elapsed: Duration, saved: &SavedLimits) {
        let mut state = self.state.lock();
        let time = state.time(now);
        state.limits.restore(time, elapsed, saved);
    }
}

/// What becomes of an input.
#[derive(Debug, Default, PartialEq)]
struct Choice {
    /// It is a candidate.
    reason: Option<CollectReason>,
    /// It is worth an upload, and the limits do not allow it.
    is_over_limit: bool,
}

impl SelectorState {
    fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began) + BEGINNING
    }

    fn wants_inputs(&mut self, now: Instant) -> bool {
        let (now, config) = (self.time(now), self.config);
        now >= self.next_candidate && (self.limits.is_open(now, &config) || self.limits.is_regular_due(now, &config))
    }

    fn choose(&mut self, now: Instant, result: &InferenceResult, has_input: bool) -> Choice {
        let (now, config) = (self.time(now), self.config);
        let flickers = match &result.object_tracking {
            Some(tracked) => self.flicker.observe(now, tracked),
            None => false,
        };
        let worth = config.band.and_then(|band| match best_value(Detections::of(result)) {
            Some(value) if band.contains(value) => Some(CollectReason::Uncertain),
            _ => flickers.then_some(CollectReason::LabelFlicker),
        });
        let is_ready = has_input && now >= self.next_candidate;
        let allowed = worth.filter(|_| is_ready && self.limits.is_open(now, &config));
        let reason = allowed
            .or_else(|| (is_ready && self.limits.is_regular_due(now, &config)).then_some(CollectReason::Regular));
        if reason.is_some() {
            self.next_candidate = now + CANDIDATE_PAUSE;
        }
        Choice {
            reason,
            is_over_limit: worth.is_some() && allowed.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SampleCategory, ValueBand};
    use crate::model::BoundingBox;

    fn state(every: Option<Duration>) -> SelectorState {
        SelectorState {
            config: FrameCollectionConfig {
                band: Some(ValueBand { low: 0.4, high: 0.6 }),
                per_hour: 60,
                every,
                category: SampleCategory::Training,
                bytes_per_day: 1 << 20,
            },
            limits: FrameLimits::default(),
            flicker: FlickerDetector::default(),
            model: None,
            next_candidate: Duration::ZERO,
            began: Instant::now(),
        }
    }

    fn classes(best: f64) -> InferenceResult {
        InferenceResult {
            classification: Some(vec![("a".to_owned(), best), ("b".to_owned(), 0.01)]),
            ..Default::default()
        }
    }

    fn tracked(label: &str) -> InferenceResult {
        let found = BoundingBox {
            label: label.to_owned(),
            value: 0.9,
            x: 0,
            y: 0,
            width: 1,
            height: 1,
            object_id: Some(1),
        };
        InferenceResult {
            object_tracking: Some(vec![found]),
            ..Default::default()
        }
    }

    #[test]
    fn a_best_value_in_the_band_is_chosen_and_others_are_not() {
        let mut state = state(None);
        let now = state.began;
        assert!(state.wants_inputs(now));
        for value in [0.39, 0.61, 1.0, f64::NAN] {
            assert_eq!(state.choose(now, &classes(value), true), Choice::default(), "{value}");
        }
        assert_eq!(state.choose(now, &InferenceResult::default(), true), Choice::default());
        let chosen = state.choose(now, &classes(0.5), true);
        assert_eq!(chosen.reason, Some(CollectReason::Uncertain));
        assert!(!state.wants_inputs(now), "one candidate a second");
        let next = state.choose(now, &classes(0.5), true);
        assert_eq!((next.reason, next.is_over_limit), (None, true));
    }

    #[test]
    fn a_label_that_flickers_is_chosen_whatever_its_value() {
        let mut state = state(None);
        let now = state.began;
        assert_eq!(state.choose(now, &tracked("cat"), true), Choice::default());
        let later = now + Duration::from_millis(100);
        let chosen = state.choose(later, &tracked("dog"), true);
        assert_eq!(chosen.reason, Some(CollectReason::LabelFlicker));
    }

    #[test]
    fn an_input_is_chosen_in_any_case_when_its_time_has_come() {
        let mut state = state(Some(Duration::from_secs(60)));
        let now = state.began;
        let chosen = state.choose(now, &InferenceResult::default(), true);
        assert_eq!(chosen.reason, Some(CollectReason::Regular));
        let (time, config) = (state.time(now), state.config);
        assert!(state.limits.take(time, &config, CollectReason::Regular, None));
        let later = now + Duration::from_secs(59);
        assert_eq!(state.choose(later, &classes(0.9), true), Choice::default());
        let later = now + Duration::from_secs(60);
        assert_eq!(
            state.choose(later, &classes(0.9), false).reason,
            None,
            "the frame was not kept"
        );
        let chosen = state.choose(later, &classes(0.9), true);
        assert_eq!(chosen.reason, Some(CollectReason::Regular));
    }

    #[test]
    fn without_a_band_nothing_is_uncertain() {
        let mut state = state(None);
        state.config.band = None;
        let now = state.began;
        assert!(!state.wants_inputs(now));
        for result in [classes(0.5), tracked("cat"), tracked("dog")] {
            assert_eq!(state.choose(now, &result, true), Choice::default());
        }
    }
}
