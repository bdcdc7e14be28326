//! The WebSocket at `/` for applications of the existing runner, with the messages of its `startWebServer`: `hello`, then
//! `classification` for each inference, and `camera-preview` for clients that requested it.

use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use serde_json::{Map, Value};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, interval_at};

use super::messages;
use super::page_state::{CLIENT_TIMEOUT, PageState};
use crate::config::Threshold;
use crate::inference::live_tap::ViewerGuard;
use crate::model::ModelInfo;
use crate::util::text::visible;

/// Interval of pings.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Time limit for the change of a threshold in the model.
const THRESHOLD_LIMIT: Duration = Duration::from_secs(10);

/// Serves one client until it disconnects. `may_change`: the client may change thresholds.
pub(super) async fn serve(mut socket: WebSocket, state: &PageState, may_change: bool) {
    let mut client = RunnerClient {
        viewer: state.live_tap.add_viewer(),
        state,
        may_change,
        wants_previews: false,
    };
    // An error ends only this client: it disconnected, or it read no data for too long.
    let _ = client.run(&mut socket).await;
}

struct RunnerClient<'a> {
    viewer: ViewerGuard,
    state: &'a PageState,
    may_change: bool,
    wants_previews: bool,
}

impl RunnerClient<'_> {
    async fn run(&mut self, socket: &mut WebSocket) -> Result<(), axum::Error> {
        let mut models = self.state.live_tap.model();
        let mut frames = self.state.new_frames();
        // If a model is already loaded, this sends the hello at once.
        models.mark_changed();
        let mut results = self.state.live_tap.subscribe();
        let mut ping = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        let mut last_received = Instant::now();
        let mut is_hello_sent = false;
        loop {
            let message = tokio::select! {
                biased;
                received = socket.recv() => {
                    last_received = Instant::now();
                    match received {
                        Some(Ok(message)) => match self.respond(message).await {
                            Some(response) => response,
                            None => continue,
                        },
                        Some(Err(e)) => return Err(e),
                        None => return Ok(()),
                    }
                }
                Ok(()) = models.changed() => match models.borrow_and_update().clone() {
                    Some(info) => {
                        is_hello_sent = true;
                        Message::Text(messages::hello(&info, &self.state.live_tap.thresholds.applied()))
                    }
                    None => continue,
                },
                result = results.recv(), if is_hello_sent => match result {
                    Ok(view) => Message::Text(messages::classification(&view)),
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return Ok(()),
                },
                Ok(()) = frames.changed(), if self.wants_previews => {
                    let jpeg = frames.borrow_and_update().as_ref().and_then(|frame| frame.jpeg.clone());
                    match jpeg {
                        Some(jpeg) => Message::Text(messages::camera_preview(&jpeg)),
                        None => continue,
                    }
                }
                _ = ping.tick() => {
                    if last_received.elapsed() > CLIENT_TIMEOUT {
                        return Ok(());
                    }
                    Message::Ping(Default::default())
                }
            };
            socket.send(message).await?;
        }
    }

    /// Handles a message of the client. Returns the response, if there is one.
    async fn respond(&mut self, message: Message) -> Option<Message> {
        let (text, result) = match message {
            Message::Text(text) => {
                let result = self.handle(&text).await;
                (text, result)
            }
            Message::Binary(_) => {
                let error = "binary messages are not supported; accepted: JSON text".to_owned();
                (Utf8Bytes::from_static(""), Err((None, error)))
            }
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return None,
        };
        Some(Message::Text(messages::acknowledgement(&text, result)))
    }

    /// Executes a message. Returns its `messageId`; an error also has the reason.
    async fn handle(&mut self, text: &str) -> Result<Option<Value>, (Option<Value>, String)> {
        let body: Value = serde_json::from_str(text).map_err(|e| (None, format!("the message is not JSON: {e}")))?;
        let id = body.get("messageId").cloned();
        match self.execute(&body).await {
            Ok(()) => Ok(id),
            Err(reason) => Err((id, reason)),
        }
    }

    async fn execute(&mut self, body: &Value) -> Result<(), String> {
        match body.get("type").and_then(Value::as_str) {
            Some("set-camera-preview" | "toggle-camera-preview") => {
                let enabled = body.get("enabled").and_then(Value::as_bool);
                self.wants_previews = enabled.ok_or("Invalid value for \"enabled\", accepted is true or false")?;
                self.viewer.want_pictures(self.wants_previews);
                Ok(())
            }
            Some("threshold-override") => self.set_threshold(body).await,
            given => Err(format!(
                "Invalid \"type\" ({}); accepted are set-camera-preview, toggle-camera-preview and threshold-override",
                visible(given.unwrap_or("none"), 64)
            )),
        }
    }

    async fn set_threshold(&self, body: &Value) -> Result<(), String> {
        if !self.may_change {
            return Err(
                "changing a threshold needs the token: connect with ?token=TOKEN or with the header \
                        Authorization: Bearer TOKEN. The device's log contains the path of the file with the token"
                    .to_owned(),
            );
        }
        let info = self.state.live_tap.model().borrow().clone();
        let threshold = threshold(body, info.as_deref())?;
        let Threshold { id, key, value } = threshold.clone();
        match self.state.live_tap.thresholds.request(threshold, THRESHOLD_LIMIT).await {
            Ok(()) => {
                tracing::info!(id, key, value, "Changed a threshold through the live page's WebSocket");
                Ok(())
            }
            Err(e) => Err(format!("Failed to set threshold \"{key}\" (block ID: {id}): {e}")),
        }
    }
}

/// Parses a threshold override and checks that the model has this threshold.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn model() -> ModelInfo {
        let parameters = json!({"thresholds": [{"id": 18, "type": "object_detection", "min_score": 0.5}]});
        ModelInfo::with_parameters(parameters.as_object().unwrap().clone())
    }

    #[test]
    fn a_threshold_override_must_contain_a_threshold_of_the_model() {
        let parse = |id: Value, key: Value, value: Value| {
            threshold(&json!({"id": id, "key": key, "value": value}), Some(&model()))
        };
        assert_eq!(
            parse(json!(18), json!("min_score"), json!(0.25)),
            Ok(Threshold {
                id: 18,
                key: "min_score".to_owned(),
                value: 0.25
            })
        );
        for (id, key, value, expected) in [
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
            let error = parse(id, key, value).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_threshold_override_causes_a_panic(text in "[{}\\[\\]\":,a-z0-9. -]{0,60}") {
            if let Ok(body) = serde_json::from_str::<Value>(&text) {
                let _ = threshold(&body, Some(&model()));
            }
        }
    }
}
