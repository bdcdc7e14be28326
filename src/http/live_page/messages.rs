//! The messages of the two WebSockets of the live page.

use axum::extract::ws::Utf8Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::events_api::EventsDocument;
use super::viewer_encoder::{ViewerFrame, VisibleArea};
use crate::config::Threshold;
use crate::inference::view::InferenceView;
use crate::model::ModelInfo;
use crate::report::Decision;

/// The `hello` message of the existing runner's WebSocket: the model, with the `changed` thresholds.
pub(super) fn hello(info: &ModelInfo, changed: &[Threshold]) -> Utf8Bytes {
    let mut info = info.clone();
    info.apply_thresholds(changed);
    json!({
        "type": "hello",
        "project": info.raw_project,
        "modelParameters": info.parameters_with_sensor_type(),
        "inferencingEngine": info.raw_engine,
    })
    .to_string()
    .into()
}

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

/// The `camera-preview` message of the existing runner's WebSocket.
pub(super) fn camera_preview(jpeg: &[u8]) -> Utf8Bytes {
    const PREFIX: &str = r#"{"type":"camera-preview","image":"data:image/jpeg;base64,"#;
    const SUFFIX: &str = "\"}";
    let mut text = String::with_capacity(PREFIX.len() + jpeg.len().div_ceil(3) * 4 + SUFFIX.len());
    text.push_str(PREFIX);
    STANDARD.encode_string(jpeg, &mut text);
    text.push_str(SUFFIX);
    text.into()
}

/// `handling-message-success` or `-error`, with the client's message. `result` is its `messageId`, and the reason of an error.
pub(super) fn acknowledgement(message: &str, result: Result<Option<Value>, (Option<Value>, String)>) -> Utf8Bytes {
    let (id, kind, error) = match result {
        Ok(id) => (id, "handling-message-success", None),
        Err((id, error)) => (id, "handling-message-error", Some(error)),
    };
    let mut response = Map::new();
    if let Some(id) = id {
        response.insert("messageId".to_owned(), id);
    }
    response.insert("type".to_owned(), kind.into());
    response.insert("message".to_owned(), message.into());
    if let Some(error) = error {
        response.insert("error".to_owned(), error.into());
    }
    Value::Object(response).to_string().into()
}

/// The `moment` message of the page: an inference and the decision about it.
pub(super) fn moment(frame: &ViewerFrame) -> Utf8Bytes {
    let view = &*frame.view;
    let decision = match view.decision {
        Decision::Empty => "empty",
        Decision::Filtered => "filtered",
        Decision::Gated => "gated",
        Decision::Publish(_) => "published",
    };
    let area = |VisibleArea { x, y, width, height }| json!([x, y, width, height]);
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
        "objects": view.objects,
    })
    .to_string()
    .into()
}

/// The `events` message of the page: zones, lines and rules. `may_change`: this client may change them without the token.
pub(super) fn events(config: &EventsDocument, may_change: bool) -> Utf8Bytes {
    json!({
        "type": "events",
        "config": config.events,
        "deployed": config.deployed,
        "mayChange": may_change,
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
        InferenceView::from(InferenceEvent {
            result,
            picture: None,
            original: None,
            level: None,
            wall_ms: 4.5,
            decision: Decision::Gated,
            objects: Vec::new(),
        })
    }

    #[test]
    fn a_classification_is_like_that_of_the_existing_runner() {
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
    fn a_classification_contains_object_ids_and_the_info_of_the_model() {
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

    #[test]
    fn the_hello_contains_changed_thresholds() {
        let changed = |id, key: &str| Threshold {
            id,
            key: key.to_owned(),
            value: 0.25,
        };
        let parameters = json!({"thresholds": [{"id": 18, "type": "object_detection", "min_score": 0.5}]});
        let model = ModelInfo::with_parameters(parameters.as_object().unwrap().clone());
        let hello = hello(
            &model,
            &[changed(18, "min_score"), changed(18, "other"), changed(1, "min_score")],
        );
        let hello: Value = serde_json::from_str(&hello).unwrap();
        assert_eq!(
            hello["modelParameters"]["thresholds"],
            json!([{"id": 18, "type": "object_detection", "min_score": 0.25}])
        );
    }

    #[test]
    fn an_acknowledgement_repeats_the_message_and_its_id() {
        assert_eq!(
            acknowledgement("{}", Ok(None)).as_str(),
            r#"{"type":"handling-message-success","message":"{}"}"#
        );
        assert_eq!(
            acknowledgement("x", Err((Some(json!(7)), "no".to_owned()))).as_str(),
            r#"{"messageId":7,"type":"handling-message-error","message":"x","error":"no"}"#
        );
    }
}
