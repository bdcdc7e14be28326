//! The paths of the live page.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::pictures::{self, ViewerFrames};
use super::{live, page, socket, stills};
use crate::http::access::Access;
use crate::http::connections::{Bounds, Held, Peer, serve};
use crate::inference::live_tap::LiveTap;
use crate::status::StatusRegistry;
use crate::status::prometheus;

/// Clients that are sent something all the time (WebSockets and streams): at most so many.
pub(super) const MAX_VIEWERS: usize = 32;
/// Bytes of a message that a client sends.
const MAX_MESSAGE: usize = 64 * 1024;

/// What every request works on.
#[derive(Debug)]
pub(super) struct Site {
    pub access: Access,
    pub live_tap: Arc<LiveTap>,
    pub registry: Arc<StatusRegistry>,
    moments: watch::Sender<Option<Arc<pictures::ViewerFrame>>>,
    viewers: Arc<Semaphore>,
}

impl Site {
    /// Follows the moments.
    pub(super) fn moments(&self) -> ViewerFrames {
        self.moments.subscribe()
    }

    /// A place among those who are sent something all the time.
    ///
    /// # Errors
    /// The answer when all are taken.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Full> {
        self.viewers.clone().try_acquire_owned().map_err(|_| Full)
    }
}

/// All places are taken: 503.
#[derive(Debug)]
pub(super) struct Full;

impl IntoResponse for Full {
    fn into_response(self) -> Response {
        let text = format!("{MAX_VIEWERS} clients are viewer already; try again when one of them has gone\n");
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

/// Serves until dropped.
pub(super) async fn run(listener: TcpListener, access: Access, live_tap: Arc<LiveTap>, registry: Arc<StatusRegistry>) {
    let moments = watch::Sender::new(None);
    let encoding = pictures::encode(live_tap.clone(), moments.clone());
    let site = Arc::new(Site {
        access,
        live_tap,
        registry,
        moments,
        viewers: Arc::new(Semaphore::new(MAX_VIEWERS)),
    });
    tokio::select! {
        () = encoding => {}
        () = serve(listener, router(site), Bounds::default()) => {}
    }
}

fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(root))
        .route("/live", get(live_socket))
        .route("/stream.mjpeg", get(stills::stream))
        .route("/snapshot.jpg", get(stills::snapshot))
        .route("/api/status", get(status))
        .route("/metrics", get(measured))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(|| async { (StatusCode::NOT_FOUND, NOT_FOUND) })
        .layer(middleware::from_fn_with_state(site.clone(), guard))
        .with_state(site)
}

const NOT_FOUND: &str =
    "there is no such page; there are /, /stream.mjpeg, /snapshot.jpg, /api/status, /metrics and /healthz\n";

/// Refuses what comes from elsewhere, and adds the headers that every answer has.
async fn guard(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let mut response = match site.access.check(request.headers(), request.uri()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => (StatusCode::FORBIDDEN, format!("{refusal}\n")).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The page, and on the same path the WebSocket of the existing runner.
async fn root(
    State(site): State<Arc<Site>>,
    Extension(Peer(peer)): Extension<Peer>,
    Extension(held): Extension<Held>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) if headers.contains_key(header::UPGRADE) => return rejection.into_response(),
        Err(_) => return page::live(&headers),
    };
    let place = match site.place() {
        Ok(place) => place,
        Err(full) => return full.into_response(),
    };
    let may_change = site.access.may_change(peer.ip(), &headers, &uri);
    bounded(upgrade).on_upgrade(move |socket| async move {
        socket::serve(socket, &site, may_change).await;
        drop((place, held));
    })
}

async fn live_socket(
    State(site): State<Arc<Site>>,
    Extension(held): Extension<Held>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let place = match site.place() {
        Ok(place) => place,
        Err(full) => return full.into_response(),
    };
    bounded(upgrade).on_upgrade(move |socket| async move {
        live::serve(socket, &site).await;
        drop((place, held));
    })
}

fn bounded(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE)
}

async fn status(State(site): State<Arc<Site>>) -> Response {
    Json(site.registry.status_document()).into_response()
}

async fn measured(State(site): State<Arc<Site>>) -> Response {
    match site.registry.prometheus_text() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], text).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")).into_response(),
    }
}
