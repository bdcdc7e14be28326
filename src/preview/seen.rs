//! One inference as those who look get it.

use std::sync::OnceLock;

use axum::extract::ws::Utf8Bytes;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use super::feed::Glance;
use super::pictures::Area;
use crate::model::{BoundingBox, InferenceResult};
use crate::publisher::now_ms;
use crate::report::Verdict;

/// An inference, kept as long as somebody has yet to be told.
#[derive(Debug)]
pub(super) struct Seen {
    /// What the model answered.
    pub result: InferenceResult,
    /// Wall-clock time of the round trip to the model.
    pub wall_ms: f32,
    /// Milliseconds since the Unix epoch.
    pub ts: u64,
    /// What was decided about it.
    pub verdict: Verdict,
    /// Loudness, 0 to 1, of a sound.
    pub level: Option<f32>,
    /// Width and height of the model's picture.
    pub size: Option<(u32, u32)>,
    /// Written once, for whoever asks first.
    classification: OnceLock<Utf8Bytes>,
}

impl Seen {
    pub(super) fn of(glance: &Glance<'_>) -> Self {
        Self {
            result: glance.result.clone(),
            wall_ms: glance.wall_ms,
            ts: now_ms(),
            verdict: glance.verdict,
            level: glance.level,
            size: glance.picture.map(|picture| (picture.width, picture.height)),
            classification: OnceLock::new(),
        }
    }

    /// The `classification` message of the existing runner's WebSocket.
    pub(super) fn classification(&self) -> Utf8Bytes {
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
    pub(super) fn time_ms(&self) -> u64 {
        self.result.model_ms.max(1)
    }

    /// What the page gets: the same, and what was decided.
    pub(super) fn moment(&self, has_picture: bool, area: Option<Area>) -> Utf8Bytes {
        let decision = match self.verdict {
            Verdict::Empty => "empty",
            Verdict::Filtered => "filtered",
            Verdict::Gated => "gated",
            Verdict::Publish(_) => "published",
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

/// `result` with the names that the model uses. What it did not send is left out.
#[derive(Serialize)]
struct Wire<'a> {
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
    serde_json::to_value(Wire {
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

    fn seen(result: &InferenceResult) -> Seen {
        Seen::of(&Glance {
            result,
            picture: None,
            original: None,
            level: None,
            wall_ms: 4.5,
            verdict: Verdict::Gated,
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
