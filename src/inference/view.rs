//! One inference as those who look get it.

use std::sync::OnceLock;

use axum::extract::ws::Utf8Bytes;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use super::live_tap::InferenceEvent;

use crate::capture::Target;
use crate::capture::geometry::Layout;
use crate::model::{BoundingBox, InferenceResult};
use crate::report::Decision;
use crate::util::clock::now_ms;

/// An inference, kept as long as somebody has yet to be told.
#[derive(Debug)]
pub(crate) struct InferenceView {
    /// What the model answered.
    pub result: InferenceResult,
    /// Wall-clock time of the round trip to the model.
    pub wall_ms: f32,
    /// Milliseconds since the Unix epoch.
    pub ts: u64,
    /// What was decided about it.
    pub decision: Decision,
    /// Loudness, 0 to 1, of a sound.
    pub level: Option<f32>,
    /// Width and height of the model's picture.
    pub size: Option<(u32, u32)>,
    /// Written once, for whoever asks first.
    classification: OnceLock<Utf8Bytes>,
}

impl InferenceView {
    pub(crate) fn of(event: &InferenceEvent<'_>) -> Self {
        Self {
            result: event.result.clone(),
            wall_ms: event.wall_ms,
            ts: now_ms(),
            decision: event.decision,
            level: event.level,
            size: event.picture.map(|picture| (picture.width, picture.height)),
            classification: OnceLock::new(),
        }
    }

    /// The `classification` message of the existing runner's WebSocket.
    pub(crate) fn classification(&self) -> Utf8Bytes {
        self.classification
            .get_or_init(|| {
                let mut message = Map::new();
                message.insert("type".to_owned(), "classification".into());
                message.insert("result".to_owned(), result_value(&self.result));
                message.insert("timeMs".to_owned(), self.time_ms().into());
                if let Some(info) = &self.result.info {
                    message.insert("additionalInfo".to_owned(), info.as_str().into());
                }
                Value::Object(message).to_string().into()
            })
            .clone()
    }

    /// The time the model says it took, in whole milliseconds, at least 1.
    pub(crate) fn time_ms(&self) -> u64 {
        self.result.model_ms.max(1)
    }

    /// What the page gets: the same, and what was decided.
    pub(crate) fn moment(&self, has_picture: bool, area: Option<Area>) -> Utf8Bytes {
        let decision = match self.decision {
            Decision::Empty => "empty",
            Decision::Filtered => "filtered",
            Decision::Gated => "gated",
            Decision::Publish(_) => "published",
        };
        json!({
            "type": "moment",
            "ts": self.ts,
            "wallMs": self.wall_ms,
            "timeMs": self.time_ms(),
            "decision": decision,
            "level": self.level,
            "width": self.size.map(|size| size.0),
            "height": self.size.map(|size| size.1),
            "picture": has_picture,
            "area": area.map(|area| json!([area.x, area.y, area.width, area.height])),
            "info": self.result.info,
            "result": result_value(&self.result),
        })
        .to_string()
        .into()
    }
}

/// The part of a camera's picture that became the model's, in pixels of the camera's. It reaches beyond the picture where the
/// model's has borders.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Area {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Area {
    pub(crate) fn of(camera: (u32, u32), target: Target) -> Self {
        let layout = Layout::new(camera, (target.width, target.height), target.resize);
        let (source, dest) = (layout.source, layout.dest);
        let across = f64::from(source.width) / f64::from(dest.width);
        let down = f64::from(source.height) / f64::from(dest.height);
        Self {
            x: f64::from(source.x) - f64::from(dest.x) * across,
            y: f64::from(source.y) - f64::from(dest.y) * down,
            width: f64::from(layout.width) * across,
            height: f64::from(layout.height) * down,
        }
    }
}

/// `result` with the names that the model uses. What it did not send is left out.
#[derive(Serialize)]
struct Payload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    classification: Option<Labels<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bounding_boxes: Option<&'a [BoundingBox]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_tracking: Option<&'a [BoundingBox]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    visual_anomaly_grid: Option<&'a [BoundingBox]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    visual_anomaly_max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    visual_anomaly_mean: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anomaly: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    freeform: Option<&'a [Vec<f32>]>,
}

struct Labels<'a>(&'a [(String, f64)]);

impl Serialize for Labels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (label, value) in self.0 {
            map.serialize_entry(label, value)?;
        }
        map.end()
    }
}

/// A result as JSON, in the model's own names.
pub(crate) fn result_value(result: &InferenceResult) -> Value {
    // Everything in it is finite, and its keys are text: it cannot fail.
    serde_json::to_value(Payload {
        classification: result.classification.as_deref().map(Labels),
        bounding_boxes: result.bounding_boxes.as_deref(),
        object_tracking: result.object_tracking.as_deref(),
        visual_anomaly_grid: result.visual_anomaly_grid.as_deref(),
        visual_anomaly_max: result.visual_anomaly_max,
        visual_anomaly_mean: result.visual_anomaly_mean,
        anomaly: result.anomaly,
        freeform: result.freeform.as_deref(),
    })
    .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(result: &InferenceResult) -> InferenceView {
        InferenceView::of(&InferenceEvent {
            result,
            picture: None,
            original: None,
            level: None,
            wall_ms: 4.5,
            decision: Decision::Gated,
        })
    }

    #[test]
    fn a_classification_has_the_names_and_the_shape_of_the_existing_runner() {
        let result = InferenceResult {
            classification: Some(vec![("b".to_owned(), 0.25), ("a".to_owned(), 0.75)]),
            anomaly: Some(-0.5),
            model_ms: 7,
            ..Default::default()
        };
        assert_eq!(
            seen(&result).classification().as_str(),
            r#"{"type":"classification","result":{"classification":{"b":0.25,"a":0.75},"anomaly":-0.5},"timeMs":7}"#
        );
    }

    #[test]
    fn boxes_keep_the_number_of_their_object_and_the_models_info_goes_along() {
        let tracked = BoundingBox {
            label: "car".to_owned(),
            value: 0.5,
            x: 1,
            y: 2,
            width: 3,
            height: 4,
            object_id: Some(9),
        };
        let result = InferenceResult {
            bounding_boxes: Some(vec![]),
            object_tracking: Some(vec![tracked]),
            info: Some("hot".to_owned()),
            ..Default::default()
        };
        let message: Value = serde_json::from_str(&seen(&result).classification()).unwrap();
        assert_eq!(
            message,
            json!({"type": "classification", "timeMs": 1, "additionalInfo": "hot", "result": {"bounding_boxes": [],
                "object_tracking": [{"label": "car", "value": 0.5, "x": 1, "y": 2, "width": 3, "height": 4, "object_id": 9}]}})
        );
    }
}
