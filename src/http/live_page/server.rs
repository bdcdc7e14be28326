//! The paths of the live page.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use tokio::net::TcpListener;

use super::page_state::PageState;
use super::{events_api, mjpeg, page, runner_socket, viewer_encoder, viewer_socket};
use crate::http::access;
use crate::http::connection_table::OpenRequest;
use crate::http::connections::{Peer, ServerLimits, serve};
use crate::status::prometheus;

/// Most bytes of a WebSocket message from a client.
const MAX_MESSAGE: usize = 64 * 1024;

/// Serves until dropped.
pub(super) async fn run(listener: TcpListener, state: PageState) {
    let state = Arc::new(state);
    let encoding = viewer_encoder::run(state.live_tap.clone(), state.frame_sender());
    tokio::select! {
        () = encoding => {}
        () = serve(listener, router(state), ServerLimits::default()) => {}
    }
}

fn router(state: Arc<PageState>) -> Router {
    Router::new()
        .route("/", get(root))
        .route("/live", get(open_viewer_socket))
        .route("/stream.mjpeg", get(mjpeg::stream))
        .route("/snapshot.jpg", get(mjpeg::snapshot))
        .route("/api/status", get(status))
        .route("/api/events", get(events_api::get).post(events_api::set))
        .route("/api/events/check", post(events_api::check))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(|| async { (StatusCode::NOT_FOUND, NOT_FOUND) })
        .layer(middleware::from_fn_with_state(state.access.clone(), access::guard))
        .with_state(state)
}

const NOT_FOUND: &str = "there is no such page; the pages are /, /stream.mjpeg, /snapshot.jpg, /api/status, /api/events, /metrics and /healthz\n";

/// Serves the page, and on the same path the WebSocket for applications of the existing runner.
async fn root(
    State(state): State<Arc<PageState>>,
    Extension(Peer(peer)): Extension<Peer>,
    Extension(open): Extension<OpenRequest>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) if headers.contains_key(header::UPGRADE) => return rejection.into_response(),
        Err(_) => return page::response(&headers),
    };
    let place = match state.viewer_place(open.client()) {
        Ok(place) => place,
        Err(refusal) => return refusal.into_response(),
    };
    let may_change = state.access.may_change(peer.ip(), &headers, &uri);
    limited(upgrade).on_upgrade(move |socket| async move {
        runner_socket::serve(socket, &state, may_change).await;
        drop((place, open));
    })
}

async fn open_viewer_socket(
    State(state): State<Arc<PageState>>,
    Extension(Peer(peer)): Extension<Peer>,
    Extension(open): Extension<OpenRequest>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let place = match state.viewer_place(open.client()) {
        Ok(place) => place,
        Err(refusal) => return refusal.into_response(),
    };
    let may_change = state.access.may_change(peer.ip(), &headers, &uri);
    limited(upgrade).on_upgrade(move |socket| async move {
        viewer_socket::serve(socket, &state, may_change).await;
        drop((place, open));
    })
}

fn limited(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE)
}

async fn status(State(state): State<Arc<PageState>>) -> Response {
    Json(state.registry.status_document()).into_response()
}

async fn metrics(State(state): State<Arc<PageState>>) -> Response {
    match state.registry.prometheus_text() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], text).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")).into_response(),
    }
}
