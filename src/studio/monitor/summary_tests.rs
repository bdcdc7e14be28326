use serde_json::json;

use super::*;
use crate::model::{BoundingBox, ModelInput};

fn info(model_type: &str, parameters: Value) -> ModelInfo {
    let Value::Object(parameters) = parameters else {
        panic!("an object")
    };
    ModelInfo {
        model_type: model_type.to_owned(),
        input: ModelInput::Unsupported("none"),
        ..ModelInfo::with_parameters(parameters)
    }
}

fn scores(values: &[(&str, f64)]) -> InferenceResult {
    InferenceResult {
        classification: Some(
            values
                .iter()
                .map(|(label, value)| ((*label).to_owned(), *value))
                .collect(),
        ),
        ..InferenceResult::default()
    }
}

fn boxes(values: &[(&str, f64)]) -> InferenceResult {
    let found = |(label, value): &(&str, f64)| BoundingBox {
        label: (*label).to_owned(),
        value: *value,
        x: 0,
        y: 0,
        width: 8,
        height: 8,
        object_id: None,
    };
    InferenceResult {
        bounding_boxes: Some(values.iter().map(found).collect()),
        ..InferenceResult::default()
    }
}

fn point(index: u64) -> Point {
    Point {
        index,
        timestamp_ms: 1000 + index * 10,
    }
}

/// The summary of these results.
fn summary(info: &ModelInfo, results: &[InferenceResult]) -> Value {
    let (rules, now) = (SummaryRules::of(info), Instant::now());
    let mut window = SummaryWindow::open(point(1), now);
    for (result, index) in results.iter().zip(1..) {
        window.add(rules, result, point(index), now, Duration::from_secs(60));
    }
    window.to_json(0)
}

#[test]
fn a_classification_counts_values_above_the_threshold_and_averages_the_best_label() {
    let info = info(
        "classification",
        json!({"thresholds": [{"id": 1, "type": "classification", "min_score": 0.5}]}),
    );
    let summary = summary(
        &info,
        &[
            scores(&[("cat", 0.9), ("dog", 0.6)]),
            scores(&[("cat", 0.7), ("dog", 0.5)]),
            scores(&[("cat", 0.4), ("dog", 0.5)]),
            scores(&[("cat", 0.4), ("dog", 0.3)]),
        ],
    );
    assert_eq!(
        summary["classificationCounter"],
        json!([{"label": "cat", "value": 2}, {"label": "dog", "value": 1}]),
        "exactly the threshold is not above it"
    );
    assert_eq!(summary["mean"][0], json!({"label": "cat", "value": 0.8}));
    assert_eq!(
        summary["mean"][1],
        json!({"label": "dog", "value": 0.5}),
        "the best at the threshold"
    );
    let deviation = summary["standardDeviation"][0]["value"].as_f64().unwrap();
    assert!((deviation - 0.1).abs() < 1e-12, "of the population: {deviation}");
    assert_eq!(summary["standardDeviation"][1]["value"], 0.0);
    assert_eq!(summary["start"], json!({"index": 1, "timestamp": 1010}));
    assert_eq!(summary["end"], json!({"index": 4, "timestamp": 1040}));
}

#[test]
fn boxes_count_each_and_become_the_last_value_of_their_label() {
    for kind in ["object_detection", "constrained_object_detection"] {
        let thresholds = json!({"thresholds": [
            {"id": 1, "type": "classification", "min_score": 0.9},
            {"id": 2, "type": "object_detection", "min_score": 0.3},
            {"id": 3, "type": "object_detection", "min_score": 0.8},
        ]});
        let found = boxes(&[("cat", 0.9), ("dog", 0.6), ("cat", 0.4)]);
        let summary = summary(&info(kind, thresholds), &[found]);
        assert_eq!(
            summary["classificationCounter"],
            json!([{"label": "cat", "value": 2}, {"label": "dog", "value": 1}])
        );
        assert_eq!(summary["mean"], json!([{"label": "dog", "value": 0.6}]));
    }
}

#[test]
fn visual_anomaly_counts_whether_the_largest_value_is_an_anomaly() {
    let parameters =
        json!({"has_anomaly": 3, "thresholds": [{"id": 1, "type": "anomaly_gmm", "min_anomaly_score": 10}]});
    let visual = |max: f64, mean: f64| InferenceResult {
        visual_anomaly_max: Some(max),
        visual_anomaly_mean: Some(mean),
        ..InferenceResult::default()
    };
    let results = [visual(12.0, 3.0), visual(10.0, 1.0), visual(14.0, 2.0)];
    let summary = summary(&info("classification", parameters), &results);
    assert_eq!(
        summary["classificationCounter"],
        json!([{"label": "anomaly", "value": 2}, {"label": "no anomaly", "value": 1}])
    );
    assert_eq!(summary["mean"][0], json!({"label": "anomaly", "value": 13.0}));
    assert_eq!(summary["metrics"]["visual_anomaly_mean"], 2.0);
    assert_eq!(summary["metrics"]["avg_inference_time"]["anomaly"], 0.0);
}

#[test]
fn the_inference_time_is_the_average_of_all_inferences() {
    let timed = |dsp, classification, anomaly| InferenceResult {
        timing: ModelTiming {
            dsp,
            classification,
            postprocessing: 50,
            anomaly,
        },
        ..scores(&[])
    };
    let results = [timed(2, 11, 1), timed(2, 12, 0)];
    let plain = summary(&info("classification", json!({})), &results);
    assert_eq!(
        plain["metrics"],
        json!({"avg_inference_time": {"dsp": 2.0, "classification": 11.5}})
    );
    let with_anomaly = summary(&info("classification", json!({"has_anomaly": 1})), &results);
    assert_eq!(with_anomaly["metrics"]["avg_inference_time"]["anomaly"], 0.5);
}

#[test]
fn the_threshold_is_one_half_where_the_model_names_none() {
    let results = [scores(&[("a", 0.5)]), scores(&[("a", f64::NAN), ("b", 0.51)])];
    let summary = summary(&info("classification", json!({"thresholds": "odd"})), &results);
    assert_eq!(summary["classificationCounter"], json!([{"label": "b", "value": 1}]));
    assert_eq!(
        summary["mean"],
        json!([{"label": "a", "value": 0.5}, {"label": "b", "value": 0.51}])
    );
}

#[test]
fn many_large_values_that_differ_little_have_an_exact_deviation() {
    let mut mean = Mean::default();
    for at in 0..1_000_000 {
        mean.add(1e9 + f64::from(at % 2));
    }
    assert!((mean.mean - (1e9 + 0.5)).abs() < 1e-6);
    assert!(
        (mean.standard_deviation() - 0.5).abs() < 1e-6,
        "{}",
        mean.standard_deviation()
    );
}

#[test]
fn a_window_closes_with_the_first_inference_that_is_the_interval_later() {
    let (interval, begun) = (Duration::from_secs(60), Instant::now());
    let rules = SummaryRules::of(&info("classification", json!({})));
    let mut window = SummaryWindow::open(point(7), begun);
    for (index, seconds, closes) in [(7, 0, false), (8, 59, false), (9, 61, true)] {
        let now = begun + Duration::from_secs(seconds);
        let closed = window.add(rules, &scores(&[("a", 1.0)]), point(index), now, interval);
        assert_eq!(closed, closes, "{seconds} s");
    }
    let summary = window.to_json(100);
    assert_eq!(
        (&summary["start"]["index"], &summary["end"]["index"]),
        (&json!(107), &json!(109))
    );
    assert_eq!(
        summary["classificationCounter"][0]["value"], 3,
        "the last one belongs to it"
    );
}

#[test]
fn a_model_with_endless_new_labels_does_not_take_all_memory() {
    let rules = SummaryRules::of(&info("classification", json!({})));
    let mut window = SummaryWindow::open(point(1), Instant::now());
    for index in 1..=5000 {
        let result = scores(&[(&format!("label {index}"), 0.9)]);
        window.add(rules, &result, point(index), Instant::now(), Duration::from_secs(60));
    }
    assert_eq!(window.labels.len(), MAX_LABELS);
    assert_eq!(window.last_index(), 5000);
}
