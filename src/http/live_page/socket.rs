//! The WebSocket at `/`, message by message as the existing runner has it (its `startWebServer`): `hello`, then
//! `classification` for each inference; `camera-preview` for who asked for it.

use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, interval_at};

use super::messages;
use super::pictures::ViewerFrame;
use super::server::Site;
use crate::config::Threshold;
use crate::inference::live_tap::ViewerGuard;
use crate::model::ModelInfo;

/// How often a silent client is asked whether it is still there.
const PING: Duration = Duration::from_secs(20);
/// What has said nothing for so long, not even to a ping, is gone.
pub(super) const SILENT: Duration = Duration::from_secs(60);
/// How long the model may take to change a threshold.
const THRESHOLD_LIMIT: Duration = Duration::from_secs(10);

/// Serves one client until it goes.
pub(super) async fn serve(mut socket: WebSocket, site: &Site, may_change: bool) {
    let mut client = Client {
        viewer: site.live_tap.add_viewer(),
        site,
        may_change,
        previews: false,
    };
    // Any end is the end of this client: it went, or it took nothing for too long.
    let _ = client.talk(&mut socket).await;
}

struct Client<'a> {
    viewer: ViewerGuard,
    site: &'a Site,
    may_change: bool,
    previews: bool,
}

impl Client<'_> {
    async fn talk(&mut self, socket: &mut WebSocket) -> Result<(), axum::Error> {
        let mut models = self.site.live_tap.model();
        let mut moments = self.site.moments();
        // What was seen before this client came is not for it.
        moments.mark_unchanged();
        // A client that comes before the model is greeted when the model is there.
        models.mark_changed();
        let mut results = self.site.live_tap.subscribe();
        let mut ping = interval_at(Instant::now() + PING, PING);
        let mut heard = Instant::now();
        let mut greeted = false;
        loop {
            let message = tokio::select! {
                biased;
                received = socket.recv() => {
                    heard = Instant::now();
                    match received {
                        Some(Ok(message)) => match self.answer(message).await {
                            Some(answer) => answer,
                            None => continue,
                        },
                        Some(Err(e)) => return Err(e),
                        None => return Ok(()),
                    }
                }
                Ok(()) = models.changed() => match models.borrow_and_update().clone() {
                    Some(info) => {
                        greeted = true;
                        Message::Text(hello(&info, &self.site.live_tap.thresholds.applied()).to_string().into())
                    }
                    None => continue,
                },
                result = results.recv(), if greeted => match result {
                    Ok(seen) => Message::Text(messages::classification(&seen)),
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return Ok(()),
                },
                Ok(()) = moments.changed(), if self.previews => match preview(moments.borrow_and_update().as_deref()) {
                    Some(text) => Message::Text(text),
                    None => continue,
                },
                _ = ping.tick() => {
                    if heard.elapsed() > SILENT {
                        return Ok(());
                    }
                    Message::Ping(Default::default())
                }
            };
            socket.send(message).await?;
        }
    }

    /// The answer to what the client sent, if there is to be one.
    async fn answer(&mut self, message: Message) -> Option<Message> {
        let (text, result) = match message {
            Message::Text(text) => {
                let result = self.handle(&text).await;
                (text, result)
            }
            Message::Binary(_) => {
                let error = "binary messages are not understood; accepted is text with JSON".to_owned();
                (Utf8Bytes::from_static(""), Err((None, error)))
            }
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return None,
        };
        Some(Message::Text(acknowledgement(&text, result).to_string().into()))
    }

    /// Does what a message asks for; gives its `messageId`, on failure with the reason.
    async fn handle(&mut self, text: &str) -> Result<Option<Value>, (Option<Value>, String)> {
        let body: Value = serde_json::from_str(text).map_err(|e| (None, format!("this is not JSON: {e}")))?;
        let id = body.get("messageId").cloned();
        match self.carry_out(&body).await {
            Ok(()) => Ok(id),
            Err(reason) => Err((id, reason)),
        }
    }

    async fn carry_out(&mut self, body: &Value) -> Result<(), String> {
        match body.get("type").and_then(Value::as_str) {
            Some("set-camera-preview" | "toggle-camera-preview") => {
                let enabled = body.get("enabled").and_then(Value::as_bool);
                self.previews = enabled.ok_or("Invalid value for \"enabled\", accepted is true or false")?;
                self.viewer.want_pictures(self.previews);
                Ok(())
            }
            Some("threshold-override") => self.set_threshold(body).await,
            given => Err(format!(
                "Invalid \"type\" ({}); accepted are set-camera-preview, toggle-camera-preview and threshold-override",
                given.unwrap_or("none").chars().take(64).collect::<String>()
            )),
        }
    }

    async fn set_threshold(&self, body: &Value) -> Result<(), String> {
        if !self.may_change {
            return Err(
                "changing a threshold needs the token: connect with ?token=TOKEN or with the header \
                        Authorization: Bearer TOKEN. The device's log names the file that holds it"
                    .to_owned(),
            );
        }
        let info = self.site.live_tap.model().borrow().clone();
        let threshold = threshold(body, info.as_deref())?;
        let Threshold { id, key, value } = threshold.clone();
        match self.site.live_tap.thresholds.request(threshold, THRESHOLD_LIMIT).await {
            Ok(()) => {
                tracing::info!("threshold {id}.{key} is {value} now, through the live page's WebSocket");
                Ok(())
            }
            Err(e) => Err(format!("Failed to set threshold \"{key}\" (block ID: {id}): {e}")),
        }
    }
}

/// The first message to a client, as the existing runner sends it.
fn hello(info: &ModelInfo, changed: &[Threshold]) -> Value {
    let mut parameters = info.parameters_with_sensor_type();
    apply_changed_thresholds(&mut parameters, changed);
    json!({
        "type": "hello",
        "project": info.raw_project,
        "modelParameters": parameters,
        "inferencingEngine": info.raw_engine,
    })
}

/// Replaces thresholds in the model's parameters by the values to which clients changed them.
fn apply_changed_thresholds(parameters: &mut Map<String, Value>, changed: &[Threshold]) {
    let Some(Value::Array(blocks)) = parameters.get_mut("thresholds") else {
        return;
    };
    for Threshold { id, key, value } in changed {
        let block = blocks.iter_mut().find(|block| block["id"].as_i64() == Some(*id));
        if let Some(current) = block.and_then(|block| block.get_mut(key)) {
            *current = json!(value);
        }
    }
}

/// Reads a threshold and checks that the model has it.
fn threshold(body: &Value, info: Option<&ModelInfo>) -> Result<Threshold, String> {
    let id = body
        .get("id")
        .and_then(Value::as_i64)
        .ok_or("Invalid value for \"id\", should be a number")?;
    let key = body
        .get("key")
        .and_then(Value::as_str)
        .filter(|key| !key.is_empty() && key.len() <= 128)
        .ok_or("Invalid value for \"key\", should be a string")?;
    let value = body
        .get("value")
        .and_then(Value::as_f64)
        .ok_or("Invalid value for \"value\", should be a number")?;
    let info = info.ok_or("no model is loaded yet; send this again after the hello")?;
    let blocks = info.raw_parameters.get("thresholds").and_then(Value::as_array);
    let block = blocks
        .into_iter()
        .flatten()
        .find(|block| block.get("id").and_then(Value::as_i64) == Some(id))
        .ok_or_else(|| format!("Cannot find threshold with ID {id}"))?;
    let keys: Vec<&str> = block
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
        .map(String::as_str)
        .filter(|key| !matches!(*key, "id" | "type"))
        .collect();
    if !keys.contains(&key) {
        return Err(format!(
            "Threshold key {key:?} not found (valid keys: {})",
            keys.join(", ")
        ));
    }
    Ok(Threshold {
        id,
        key: key.to_owned(),
        value,
    })
}

/// `handling-message-success` or `-error`, with the message as it came.
fn acknowledgement(message: &str, result: Result<Option<Value>, (Option<Value>, String)>) -> Value {
    let (id, kind, error) = match result {
        Ok(id) => (id, "handling-message-success", None),
        Err((id, error)) => (id, "handling-message-error", Some(error)),
    };
    let mut answer = Map::new();
    if let Some(id) = id {
        answer.insert("messageId".to_owned(), id);
    }
    answer.insert("type".to_owned(), kind.into());
    answer.insert("message".to_owned(), message.into());
    if let Some(error) = error {
        answer.insert("error".to_owned(), error.into());
    }
    Value::Object(answer)
}

fn preview(moment: Option<&ViewerFrame>) -> Option<Utf8Bytes> {
    const BEFORE: &str = r#"{"type":"camera-preview","image":"data:image/jpeg;base64,"#;
    let jpeg = moment?.jpeg.as_ref()?;
    let mut text = String::with_capacity(BEFORE.len() + jpeg.len().div_ceil(3) * 4 + 2);
    text.push_str(BEFORE);
    STANDARD.encode_string(jpeg, &mut text);
    text.push_str("\"}");
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn model() -> ModelInfo {
        let parameters = json!({"thresholds": [{"id": 18, "type": "object_detection", "min_score": 0.5}]});
        ModelInfo {
            project_id: 1,
            name: String::new(),
            owner: String::new(),
            deploy_version: 1,
            input: crate::model::ModelInput::Unsupported("none"),
            features: 0,
            model_type: String::new(),
            labels: vec![],
            slow_first_inference: false,
            raw_parameters: parameters.as_object().unwrap().clone(),
            raw_project: Map::new(),
            raw_engine: Value::Null,
        }
    }

    #[test]
    fn a_threshold_must_be_one_that_the_model_has() {
        let ask = |id: Value, key: Value, value: Value| {
            threshold(&json!({"id": id, "key": key, "value": value}), Some(&model()))
        };
        assert_eq!(
            ask(json!(18), json!("min_score"), json!(0.25)),
            Ok(Threshold {
                id: 18,
                key: "min_score".to_owned(),
                value: 0.25
            })
        );
        for (id, key, value, said) in [
            (json!("18"), json!("min_score"), json!(1), "\"id\""),
            (json!(18), json!(""), json!(1), "\"key\""),
            (json!(18), json!("min_score"), json!("1"), "\"value\""),
            (
                json!(19),
                json!("min_score"),
                json!(1),
                "Cannot find threshold with ID 19",
            ),
            (json!(18), json!("type"), json!(1), "valid keys: min_score"),
        ] {
            let error = ask(id, key, value).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn the_hello_shows_changed_thresholds() {
        let changed = |id, key: &str| Threshold {
            id,
            key: key.to_owned(),
            value: 0.25,
        };
        let hello = hello(
            &model(),
            &[changed(18, "min_score"), changed(18, "other"), changed(1, "min_score")],
        );
        assert_eq!(
            hello["modelParameters"]["thresholds"],
            json!([{"id": 18, "type": "object_detection", "min_score": 0.25}])
        );
    }

    #[test]
    fn an_acknowledgement_repeats_the_message_and_its_id() {
        assert_eq!(
            acknowledgement("{}", Ok(None)).to_string(),
            r#"{"type":"handling-message-success","message":"{}"}"#
        );
        assert_eq!(
            acknowledgement("x", Err((Some(json!(7)), "no".to_owned()))).to_string(),
            r#"{"messageId":7,"type":"handling-message-error","message":"x","error":"no"}"#
        );
    }

    proptest! {
        #[test]
        fn no_threshold_message_makes_it_panic(text in "[{}\\[\\]\":,a-z0-9. -]{0,60}") {
            if let Ok(body) = serde_json::from_str::<Value>(&text) {
                let _ = threshold(&body, Some(&model()));
            }
        }
    }
}
