//! The summary of the inferences of one window of time, as `edge-impulse-linux-runner --monitor` 1.25.2 computes it.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::model::{InferenceResult, ModelInfo, ModelTiming};

/// Used where the model names no threshold.
const DEFAULT_THRESHOLD: f64 = 0.5;
/// Most labels of one window. A model has far fewer.
const MAX_LABELS: usize = 4096;
/// The labels of visual anomaly detection.
const ANOMALY: &str = "anomaly";
const NO_ANOMALY: &str = "no anomaly";

/// How the inferences of a model are counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SummaryRules {
    /// A value above it is counted.
    threshold: f64,
    has_anomaly: bool,
    is_visual_anomaly: bool,
}

impl SummaryRules {
    /// The rules for a model, with the thresholds in force.
    pub(super) fn of(info: &ModelInfo) -> Self {
        let anomaly_type = info.anomaly_type();
        // 6 is a visual type of later models.
        let is_visual_anomaly = matches!(anomaly_type, 3 | 4 | 6);
        let (kind, key) = match info.model_type.as_str() {
            _ if is_visual_anomaly => ("anomaly_gmm", "min_anomaly_score"),
            "object_detection" | "constrained_object_detection" => ("object_detection", "min_score"),
            _ => ("classification", "min_score"),
        };
        let thresholds = info.raw_parameters.get("thresholds").and_then(Value::as_array);
        let first = thresholds.into_iter().flatten().find(|entry| entry["type"] == kind);
        Self {
            threshold: first.and_then(|entry| entry[key].as_f64()).unwrap_or(DEFAULT_THRESHOLD),
            has_anomaly: anomaly_type != 0,
            is_visual_anomaly,
        }
    }
}

/// A place in the sequence of inferences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) index: u64,
    pub(super) timestamp_ms: u64,
}

/// The inferences since the window opened.
#[derive(Debug, Clone)]
pub(super) struct SummaryWindow {
    opened: Instant,
    start: Point,
    end: Point,
    labels: Vec<LabelStatistics>,
    timing: ModelTiming,
    visual_mean: Mean,
    has_anomaly: bool,
    is_visual_anomaly: bool,
    /// The labels of the inference that is being added.
    touched: Vec<usize>,
    /// Where the next label is expected: a classification has all labels, always in the same order.
    expected: usize,
}

#[derive(Debug, Clone)]
struct LabelStatistics {
    label: String,
    /// Values above the threshold.
    count: u64,
    /// The inferences in which this was the best label.
    best: Mean,
    /// The value in the inference that is being added.
    current: Option<f64>,
}

/// Mean and variance of values that are added one by one (Welford's method: exact also for many values that differ little).
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }

    /// Of the population.
    fn standard_deviation(self) -> f64 {
        (self.squares / self.count.max(1) as f64).sqrt()
    }
}

impl SummaryWindow {
    /// A window that opens with the inference at `start`, which is still to be added.
    pub(super) fn open(start: Point, now: Instant) -> Self {
        Self {
            opened: now,
            start,
            end: start,
            labels: Vec::new(),
            timing: ModelTiming::default(),
            visual_mean: Mean::default(),
            has_anomaly: false,
            is_visual_anomaly: false,
            touched: Vec::new(),
            expected: 0,
        }
    }

    /// Adds an inference. `true`: the window closes with it.
    pub(super) fn add(
        &mut self,
        rules: SummaryRules,
        result: &InferenceResult,
        at: Point,
        now: Instant,
        interval: Duration,
    ) -> bool {
        self.end = at;
        self.has_anomaly |= rules.has_anomaly;
        self.is_visual_anomaly |= rules.is_visual_anomaly;
        let sum = &mut self.timing;
        sum.dsp = sum.dsp.saturating_add(result.timing.dsp);
        sum.classification = sum.classification.saturating_add(result.timing.classification);
        sum.anomaly = sum.anomaly.saturating_add(result.timing.anomaly);
        if rules.is_visual_anomaly {
            self.add_visual(rules, result);
        } else if let Some(boxes) = &result.bounding_boxes {
            self.add_values(rules, boxes.iter().map(|found| (&*found.label, found.value)));
        } else if let Some(scores) = &result.classification {
            self.add_values(rules, scores.iter().map(|(label, value)| (&**label, *value)));
        }
        now.saturating_duration_since(self.opened) >= interval
    }

    fn add_values<'a>(&mut self, rules: SummaryRules, values: impl Iterator<Item = (&'a str, f64)>) {
        for (label, value) in values.filter(|(_, value)| value.is_finite()) {
            let Some(at) = self.position(label) else { continue };
            let known = &mut self.labels[at];
            known.count += u64::from(value > rules.threshold);
            // The last box of a label wins.
            if known.current.replace(value).is_none() {
                self.touched.push(at);
            }
        }
        let mut best: Option<(usize, f64)> = None;
        for at in self.touched.drain(..) {
            if let Some(value) = self.labels[at].current.take()
                && best.is_none_or(|(_, other)| value > other)
            {
                best = Some((at, value));
            }
        }
        if let Some((at, value)) = best.filter(|(_, value)| *value >= rules.threshold) {
            self.labels[at].best.add(value);
        }
    }

    fn add_visual(&mut self, rules: SummaryRules, result: &InferenceResult) {
        if let Some(max) = result.visual_anomaly_max.filter(|max| max.is_finite()) {
            let label = if max > rules.threshold { ANOMALY } else { NO_ANOMALY };
            if let Some(at) = self.position(label) {
                self.labels[at].count += 1;
                self.labels[at].best.add(max);
            }
        }
        if let Some(mean) = result.visual_anomaly_mean.filter(|mean| mean.is_finite()) {
            self.visual_mean.add(mean);
        }
    }

    /// `None`: there are too many labels.
    fn position(&mut self, label: &str) -> Option<usize> {
        let is_here = |at: &usize| self.labels.get(*at).is_some_and(|known| known.label == label);
        let found = [self.expected, 0].into_iter().find(is_here);
        let found = found.or_else(|| self.labels.iter().position(|known| known.label == label));
        let at = match found {
            Some(at) => at,
            None if self.labels.len() >= MAX_LABELS => return None,
            None => {
                self.labels.push(LabelStatistics {
                    label: label.to_owned(),
                    count: 0,
                    best: Mean::default(),
                    current: None,
                });
                self.labels.len() - 1
            }
        };
        self.expected = at + 1;
        Some(at)
    }

    /// The index of the last inference.
    pub(super) fn last_index(&self) -> u64 {
        self.end.index
    }

    /// The content of the message `inferenceSummary`. `base` is added to the indices.
    pub(super) fn to_json(&self, base: u64) -> Value {
        let inferences = (self.end.index - self.start.index + 1) as f64;
        let list = |value: &dyn Fn(&LabelStatistics) -> Option<Value>| -> Vec<Value> {
            let entry = |known: &LabelStatistics| Some(json!({"label": known.label, "value": value(known)?}));
            self.labels.iter().filter_map(entry).collect()
        };
        let of_best = |value: fn(Mean) -> f64| list(&|known| (known.best.count > 0).then(|| json!(value(known.best))));
        let mut time = Map::new();
        time.insert("dsp".to_owned(), json!(self.timing.dsp as f64 / inferences));
        time.insert(
            "classification".to_owned(),
            json!(self.timing.classification as f64 / inferences),
        );
        if self.has_anomaly {
            time.insert("anomaly".to_owned(), json!(self.timing.anomaly as f64 / inferences));
        }
        let mut metrics = json!({ "avg_inference_time": time });
        if self.is_visual_anomaly {
            metrics["visual_anomaly_mean"] = json!(self.visual_mean.mean);
        }
        let point = |at: Point| json!({"index": at.index + base, "timestamp": at.timestamp_ms});
        json!({
            "start": point(self.start),
            "end": point(self.end),
            "classificationCounter": list(&|known| (known.count > 0).then(|| json!(known.count))),
            "mean": of_best(|best| best.mean),
            "standardDeviation": of_best(Mean::standard_deviation),
            "metrics": metrics,
        })
    }
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
