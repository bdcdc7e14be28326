//! `/api/events`: the zones, lines and rules in force. `POST` changes them, as the command `set_events_config` does;
//! `/api/events/check` only checks them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::Value;

use super::page_state::PageState;
use crate::config::parse_events;
use crate::events::EventRecorder;
use crate::http::access::require_json;
use crate::http::connections::Peer;
use crate::util::text::visible_lines;

/// Most bytes of a request: a little more than the longest value, so that its own check names the limit.
const MAX_BODY: usize = 80 * 1024;
/// Most characters of the reason in an answer.
const MAX_REASON: usize = 2000;
/// Time limit for the body of a request.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// The zones, lines and rules in force.
#[derive(Debug, Serialize)]
pub(super) struct EventsDocument {
    /// As the key `events`; null: none.
    pub events: Value,
    /// Whether they are those of the deployment.
    pub deployed: bool,
}

impl EventsDocument {
    pub(super) fn of(events: &EventRecorder) -> Self {
        Self {
            events: events.config(),
            deployed: events.is_deployed(),
        }
    }
}

/// `GET /api/events`
pub(super) async fn get(State(state): State<Arc<PageState>>) -> Response {
    match &state.events {
        Some(events) => Json(EventsDocument::of(events)).into_response(),
        None => no_model(),
    }
}

/// `POST /api/events`: sets the JSON text in the body, `none` or `deployed`.
pub(super) async fn set(
    State(state): State<Arc<PageState>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
) -> Response {
    if !state.access.may_change(peer.ip(), request.headers(), request.uri()) {
        return (StatusCode::FORBIDDEN, NEEDS_TOKEN).into_response();
    }
    let Some(events) = &state.events else {
        return no_model();
    };
    let text = match read_text(request).await {
        Ok(text) => text,
        Err((status, reason)) => return (status, reason).into_response(),
    };
    if let Err(reason) = events.set_given(&Value::String(text)) {
        return (StatusCode::BAD_REQUEST, sentence(&reason)).into_response();
    }
    tracing::info!("Changed zones, lines and rules through the live page");
    Json(EventsDocument::of(events)).into_response()
}

/// `POST /api/events/check`: says whether the JSON text in the body can be set. Changes nothing, and needs no token.
pub(super) async fn check(request: Request) -> Response {
    let text = match read_text(request).await {
        Ok(text) => text,
        Err((status, reason)) => return (status, reason).into_response(),
    };
    match parse_events(&Value::String(text)) {
        Ok(_) => "ok\n".into_response(),
        Err(reason) => (StatusCode::BAD_REQUEST, sentence(format!("the value {reason}"))).into_response(),
    }
}

const NEEDS_TOKEN: &str = "changing zones, lines and rules needs the token: send the header Authorization: Bearer TOKEN. \
                           The device's log contains the path of the file with the token\n";

async fn read_text(request: Request) -> Result<String, (StatusCode, String)> {
    require_json(request.headers())?;
    let reading = axum::body::to_bytes(request.into_body(), MAX_BODY);
    let bytes = match tokio::time::timeout(BODY_LIMIT, reading).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let reason = format!("the body has more than {MAX_BODY} bytes, or it did not arrive completely\n");
            return Err((StatusCode::PAYLOAD_TOO_LARGE, reason));
        }
        Err(_) => {
            let reason = format!("the body did not arrive within {} s\n", BODY_LIMIT.as_secs());
            return Err((StatusCode::REQUEST_TIMEOUT, reason));
        }
    };
    String::from_utf8(bytes.into()).map_err(|_| (StatusCode::BAD_REQUEST, "the body is no UTF-8 text\n".to_owned()))
}

/// A reason as the body of a response; it may repeat what the request contains.
fn sentence(reason: impl std::fmt::Display) -> String {
    format!("{}\n", visible_lines(&reason.to_string(), MAX_REASON))
}

fn no_model() -> Response {
    let reason = "there are no events, because this component runs without a model\n";
    (StatusCode::NOT_FOUND, reason).into_response()
}
