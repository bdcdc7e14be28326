//! Inferences as the messages of the page's two WebSockets.

use axum::extract::ws::Utf8Bytes;
use serde_json::{Map, Value, json};

use super::pictures::{Area, ViewerFrame};
use crate::inference::view::InferenceView;
use crate::report::Decision;

/// The `classification` message of the existing runner's WebSocket.
pub(super) fn classification(view: &InferenceView) -> Utf8Bytes {
    let mut message = Map::new();
    message.insert("type".to_owned(), "classification".into());
    message.insert("result".to_owned(), json!(view.result));
    message.insert("timeMs".to_owned(), view.result.time_ms().into());
    if let Some(info) = &view.result.info {
        message.insert("additionalInfo".to_owned(), info.as_str().into());
    }
    Value::Object(message).to_string().into()
}

/// The `moment` message of the page: an inference and what was decided about it.
pub(super) fn moment(frame: &ViewerFrame) -> Utf8Bytes {
    let view = &*frame.view;
    let decision = match view.decision {
        Decision::Empty => "empty",
        Decision::Filtered => "filtered",
        Decision::Gated => "gated",
        Decision::Publish(_) => "published",
    };
    let area = |Area { x, y, width, height }| json!([x, y, width, height]);
    json!({
        "type": "moment",
        "ts": view.ts,
        "wallMs": view.wall_ms,
        "timeMs": view.result.time_ms(),
        "decision": decision,
        "level": view.level,
        "width": view.size.map(|size| size.0),
        "height": view.size.map(|size| size.1),
        "picture": frame.jpeg.is_some(),
        "area": frame.area.map(area),
        "info": view.result.info,
        "result": view.result,
    })
    .to_string()
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::event::InferenceEvent;
    use crate::model::{BoundingBox, InferenceResult};

    fn view(result: &InferenceResult) -> InferenceView {
        InferenceView::from(&InferenceEvent {
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
            classification(&view(&result)).as_str(),
            r#"{"type":"classification","result":{"classification":{"b":0.25,"a":0.75},"anomaly":-0.5},"timeMs":7}"#
        );
    }

    #[test]
    fn tracked_boxes_keep_their_object_id_and_the_info_of_the_model_is_passed_on() {
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
        let message: Value = serde_json::from_str(&classification(&view(&result))).unwrap();
        assert_eq!(
            message,
            json!({"type": "classification", "timeMs": 1, "additionalInfo": "hot", "result": {"bounding_boxes": [],
                "object_tracking": [{"label": "car", "value": 0.5, "x": 1, "y": 2, "width": 3, "height": 4, "object_id": 9}]}})
        );
    }
}
