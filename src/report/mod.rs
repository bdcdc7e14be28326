//! Decides whether an inference is published, and builds the messages.
//!
//! Each inference passes these steps on the inference thread: metrics, empty check, confidence filter, backoff gate.
//! [`payload`] builds the message of an inference that passes all of them.
//!
//! This module does no I/O and never waits; time and ids are arguments.

pub mod confidence;
pub mod detections;
pub mod filter;
pub mod gate;
pub mod image;
mod image_fit;
pub mod metrics;
pub mod payload;

#[cfg(test)]
mod samples;

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use uuid::Uuid;

pub use self::image::{EncodedPicture, PictureRef};
pub use self::payload::{
    InferenceCounts, InferenceMessage, MAX_MESSAGE, MessageBuilder, MessageFit, PictureInMessage, S3Fields,
    add_picture_to,
};

use self::detections::Detections;
use self::filter::Filter;
use self::gate::Gate;
use self::metrics::ConfidenceMetrics;
use crate::config::{Criteria, FilterConfig, ThresholdError};
use crate::model::InferenceResult;
use crate::status::latency::LatencyWindow;
use crate::status::stats::Stats;
use crate::status::{ReportStatus, StatusSource};

/// Settings of a [`Report`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReportSettings {
    /// The confidence filter at the start.
    pub filter: FilterConfig,
    /// Publish every Nth inference that passes the filter (`iotcore_backoff`); 0 is taken as 1.
    pub publish_every: u32,
}

/// Whether an inference is published, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Without detections: not published, and not counted by the gate.
    Empty,
    /// Rejected by the confidence filter; not counted by the gate.
    Filtered,
    /// Not published, because of the gate.
    Gated,
    /// Publish and cache it, with these counts.
    Publish(InferenceCounts),
}

/// The state behind the decisions. [`Report::accept`] runs on the inference thread and allocates nothing.
#[derive(Debug)]
pub struct Report {
    filter: Filter,
    gate: Gate,
    confidences: ConfidenceMetrics,
    latency: LatencyWindow,
    total_inferences: u64,
    stats: Arc<Stats>,
}

impl Report {
    /// The state of a new session. Restarts of capture or model keep it; the `restart` command creates a new one.
    pub fn new(settings: ReportSettings, stats: Arc<Stats>) -> Self {
        Self {
            filter: Filter {
                config: settings.filter,
            },
            gate: Gate::new(settings.publish_every),
            confidences: ConfidenceMetrics::default(),
            latency: LatencyWindow::default(),
            total_inferences: 0,
            stats,
        }
    }

    /// Counts one inference and decides about it. `wall_ms` is the wall-clock time of the round trip to the model.
    /// Counts `inferences`, and `empty`, `filtered` or `gated`; [`MessageBuilder::build`] counts the rest.
    pub fn accept(&mut self, result: &InferenceResult, wall_ms: f32) -> Decision {
        let detections = Detections::of(result);
        let inference_count = detections.count();
        self.stats.inferences.inc();
        self.latency.add(wall_ms);
        self.total_inferences += inference_count;
        confidence::each(detections).for_each(|confidence| self.confidences.add(confidence));

        if detections == Detections::Nothing {
            self.stats.empty.inc();
            return Decision::Empty;
        }
        if !self.filter.passes(confidence::of(detections)) {
            self.stats.filtered.inc();
            return Decision::Filtered;
        }
        if !self.gate.admit() {
            self.stats.gated.inc();
            return Decision::Gated;
        }
        Decision::Publish(InferenceCounts {
            inference_count,
            total_inferences: self.total_inferences,
        })
    }

    /// The current filter.
    pub fn filter(&self) -> FilterConfig {
        self.filter.config
    }

    /// Replaces the filter, for the scores of the present model.
    pub fn set_filter(&mut self, filter: FilterConfig) {
        self.filter.config = FilterConfig {
            scores_are_probabilities: self.filter.config.scores_are_probabilities,
            ..filter
        };
    }

    /// Changes the gate (`iotcore_backoff`); 0 is taken as 1.
    pub fn set_publish_every(&mut self, publish_every: u32) {
        self.gate = Gate::new(publish_every);
    }

    /// Switches the filter on or off.
    pub fn set_filter_enabled(&mut self, enabled: bool) {
        self.filter.config.enabled = enabled;
    }

    /// Sets how the filter compares.
    pub fn set_criteria(&mut self, criteria: Criteria) {
        self.filter.config.criteria = criteria;
    }

    /// Sets the filter's threshold.
    ///
    /// # Errors
    /// The model's scores are probabilities, and this is none.
    pub fn set_threshold(&mut self, threshold: f64) -> Result<(), ThresholdError> {
        self.filter.config.set_threshold(threshold)
    }

    /// Sets how the filter's threshold is interpreted: for probabilities or for other scores. Returns the filter if that changes.
    pub fn set_scores_are_probabilities(&mut self, scores_are_probabilities: bool) -> Option<FilterConfig> {
        let kind = Some(scores_are_probabilities);
        let is_new = std::mem::replace(&mut self.filter.config.scores_are_probabilities, kind) != kind;
        is_new.then_some(self.filter.config)
    }

    /// Resets the confidences and their trend (`reset_metrics`). Does not reset `total_inferences`, the counters and the
    /// inference times.
    pub fn reset_metrics(&mut self) {
        self.confidences = ConfidenceMetrics::default();
    }

    /// The metrics message. `ts` is the current time in ms since the Unix epoch; `runner` comes from
    /// [`StatusRegistry::runner_object`](crate::status::StatusRegistry::runner_object).
    pub fn metrics_message(&self, ts: u64, id: Uuid, runner: Map<String, Value>) -> Value {
        let statistics = self.confidences.statistics();
        json!({
            "mean_confidence": statistics.mean_confidence,
            "standard_deviation": statistics.standard_deviation,
            "confidence_trend": statistics.confidence_trend,
            "details": statistics.details,
            "ts": ts,
            "id": id,
            "runner": runner,
        })
    }
}

impl StatusSource<ReportStatus> for Mutex<Report> {
    fn status(&self) -> ReportStatus {
        let report = self.lock();
        ReportStatus {
            filter: report.filter.config,
            publish_every: report.gate.every(),
            latency: report.latency.percentiles(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{boxes, classes};
    use super::*;
    use crate::config::ThresholdReading;

    fn report(publish_every: u32, enabled: bool) -> (Report, Arc<Stats>) {
        let filter = FilterConfig {
            enabled,
            given: 0.7,
            scores_are_probabilities: None,
            criteria: Criteria::GreaterOrEqual,
        };
        let stats = Arc::new(Stats::default());
        (
            Report::new(ReportSettings { filter, publish_every }, Arc::clone(&stats)),
            stats,
        )
    }

    fn publish(inference_count: u64, total_inferences: u64) -> Decision {
        Decision::Publish(InferenceCounts {
            inference_count,
            total_inferences,
        })
    }

    #[test]
    fn the_gate_does_not_count_empty_and_filtered_inferences() {
        let (mut report, stats) = report(2, true);
        let (good, bad, empty) = (boxes(&[0.9, 0.8]), boxes(&[0.1]), boxes(&[]));
        let decisions = [&good, &bad, &empty, &bad, &good].map(|result| report.accept(result, 3.0));
        assert_eq!(
            decisions,
            [
                Decision::Gated,
                Decision::Filtered,
                Decision::Empty,
                Decision::Filtered,
                publish(2, 6)
            ],
            "the total includes inferences that are not published"
        );
        let counted = [&stats.inferences, &stats.empty, &stats.filtered, &stats.gated].map(|counter| counter.get());
        assert_eq!(counted, [5, 1, 2, 1]);
    }

    #[test]
    fn metrics_include_results_that_the_filter_rejects() {
        let (mut report, _) = report(1, true);
        assert_eq!(report.accept(&boxes(&[0.25, 0.5]), 1.0), Decision::Filtered);
        report.accept(&classes(&[("a", 0.1), ("b", 0.75)]), 1.0);
        let message = report.metrics_message(1, Uuid::nil(), Map::new());
        assert_eq!(message["details"]["n"], 3);
        assert_eq!(message["mean_confidence"], 0.5);
    }

    #[test]
    fn the_filter_can_be_changed() {
        let (mut report, _) = report(1, true);
        let result = classes(&[("a", 0.5)]);
        assert_eq!(report.accept(&result, 1.0), Decision::Filtered);
        report.set_threshold(0.5).unwrap();
        assert_eq!(report.accept(&result, 1.0), publish(1, 2));
        report.set_criteria(Criteria::Greater);
        assert_eq!(report.accept(&result, 1.0), Decision::Filtered);
        report.set_filter_enabled(false);
        assert_eq!(report.accept(&result, 1.0), publish(1, 4));
        assert_eq!(
            report.filter(),
            FilterConfig {
                enabled: false,
                given: 0.5,
                scores_are_probabilities: None,
                criteria: Criteria::Greater
            }
        );
    }

    #[test]
    fn the_filter_compares_an_anomaly_score() {
        let (mut report, stats) = report(1, true);
        let anomaly = |score| InferenceResult {
            anomaly: Some(score),
            ..Default::default()
        };
        let all_normal = |max| InferenceResult {
            visual_anomaly_grid: Some(vec![]),
            visual_anomaly_max: Some(max),
            ..Default::default()
        };
        assert_eq!(report.accept(&anomaly(0.2), 1.0), Decision::Filtered);
        assert_eq!(report.accept(&anomaly(2.5), 1.0), publish(1, 2));
        assert_eq!(report.accept(&all_normal(0.2), 1.0), Decision::Filtered);
        report.set_filter_enabled(false);
        assert_eq!(report.accept(&all_normal(0.2), 1.0), publish(0, 2));
        assert_eq!(stats.empty.get(), 0);
    }

    #[test]
    fn a_threshold_above_one_is_a_percentage_only_for_probabilities() {
        let (mut report, _) = report(1, true);
        let anomaly = InferenceResult {
            anomaly: Some(2.0),
            ..Default::default()
        };
        report.set_threshold(3.0).unwrap();
        assert_eq!(
            (report.filter().threshold(), report.filter().reading()),
            (0.03, ThresholdReading::Percentage)
        );
        assert_eq!(report.accept(&anomaly, 1.0), publish(1, 1));
        let refused = [0.0, -1.0, 250.0].map(|threshold| report.set_threshold(threshold));
        assert_eq!(refused, [Err(ThresholdError); 3]);
        assert!(report.set_scores_are_probabilities(false).is_some());
        assert_eq!(report.set_scores_are_probabilities(false), None, "nothing new");
        assert_eq!(report.accept(&anomaly, 1.0), Decision::Filtered);
        let shown =
            r#"{"enabled":"yes","confidence_threshold":3.0,"threshold_criteria":"ge","threshold_reading":"score"}"#;
        assert_eq!(report.filter().to_json().to_string(), shown);
        report.set_threshold(-1.5).unwrap();
        assert_eq!(report.accept(&anomaly, 1.0), publish(1, 3));
        report.set_threshold(250.0).unwrap();
        assert_eq!(report.accept(&anomaly, 1.0), Decision::Filtered);
    }

    #[test]
    fn freeform_passes_the_filter() {
        let (mut report, _) = report(1, true);
        let result = InferenceResult {
            freeform: Some(vec![vec![0.0], vec![0.1]]),
            ..Default::default()
        };
        assert_eq!(report.accept(&result, 1.0), publish(2, 2));
    }

    #[test]
    fn reset_metrics_resets_confidences_and_keeps_the_total() {
        let (mut report, stats) = report(1, false);
        report.accept(&boxes(&[0.5, 0.9]), 8.0);
        report.reset_metrics();
        let message = report.metrics_message(1, Uuid::nil(), Map::new());
        assert_eq!(
            (&message["details"]["n"], &message["confidence_trend"]),
            (&json!(0), &json!("flat"))
        );
        assert_eq!(report.latency.percentiles().p50, 8.0);
        assert_eq!(stats.inferences.get(), 1);
        assert_eq!(report.accept(&boxes(&[0.5]), 1.0), publish(1, 3));
    }

    #[test]
    fn the_metrics_message_has_the_documented_fields_in_their_order() {
        let (report, _) = report(1, false);
        let id = Uuid::from_u128(5);
        let text = report.metrics_message(1_736_016_142_920, id, Map::new()).to_string();
        let documented = r#"{"mean_confidence":0.0,"standard_deviation":0.0,"confidence_trend":"flat","details":{"n":0,"sum_confidences":0.0,"sum_confidences_squared":0.0},"ts":1736016142920,"id":"00000000-0000-0000-0000-000000000005","runner":{"#;
        assert!(text.starts_with(documented), "{text}");
    }
}
