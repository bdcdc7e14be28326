//! Scripts for the scripted model.

use serde_json::{Value, json};

/// The hello of a small RGB object detection model.
pub fn hello(width: u32, height: u32) -> Value {
    json!({
        "project": {"id": 1, "name": "Scripted", "owner": "tests", "deploy_version": 7},
        "model_parameters": {
            "axis_count": 1, "frequency": 0, "has_anomaly": 0, "image_channel_count": 3, "image_input_frames": 1,
            "image_input_height": height, "image_input_width": width, "image_resize_mode": "squash",
            "inferencing_engine": 2, "input_features_count": width * height, "interval_ms": 1,
            "label_count": 1, "labels": ["thing"], "model_type": "object_detection", "sensor": 3,
            "slice_size": 0, "thresholds": [], "use_continuous_mode": false
        },
        "inferencing_engine": {"engine_type": 2, "properties": []}
    })
}

/// An answer with one box of this confidence.
pub fn boxed(value: f64) -> Value {
    json!({"bounding_boxes": [{"label": "thing", "value": value, "x": 1, "y": 2, "width": 3, "height": 4}]})
}

/// An answer without boxes.
pub fn nothing() -> Value {
    json!({"bounding_boxes": []})
}

/// A model that returns these answers, then repeats the last one.
pub fn script(answers: &[Value]) -> Value {
    json!({"hello": hello(32, 24), "answers": answers, "repeat": "last", "shm": true})
}

/// A model that repeats these answers in turn.
pub fn cycle(answers: &[Value]) -> Value {
    json!({"hello": hello(32, 24), "answers": answers, "repeat": "cycle", "shm": true})
}

/// A source of exactly this many frames that plays as fast as possible.
pub fn frames(count: u32) -> String {
    format!("videotestsrc num-buffers={count} ! video/x-raw,format=I420,width=64,height=48,framerate=30/1")
}

/// The hello of an audio model: windows of `window` samples at `frequency`, one every `slice` samples.
pub fn hearing(frequency: u32, window: usize, slice: usize, continuous: bool) -> Value {
    json!({
        "project": {"id": 2, "name": "Listener", "owner": "tests", "deploy_version": 3},
        "model_parameters": {
            "axis_count": 1, "frequency": frequency, "has_anomaly": 0, "image_channel_count": 0, "image_input_frames": 0,
            "image_input_height": 0, "image_input_width": 0, "image_resize_mode": "none",
            "input_features_count": window, "interval_ms": 1000.0 / f64::from(frequency),
            "label_count": 2, "labels": ["yes", "no"], "model_type": "classification", "sensor": 1,
            "slice_size": slice, "thresholds": [], "use_continuous_mode": continuous
        },
        "inferencing_engine": {"engine_type": 2, "properties": []}
    })
}

/// An answer with two classes.
pub fn classified(yes: f64) -> Value {
    json!({"classification": {"yes": yes, "no": 1.0 - yes}})
}

/// The requests that a scripted model recorded.
pub fn recorded(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The last line may be incomplete.
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    complete
        .lines()
        .map(|line| serde_json::from_str(line).expect("a recorded request"))
        .collect()
}
