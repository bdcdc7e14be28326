//! The state that the request handlers of the live page share.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;

use super::viewer_encoder::{ViewerFrameSender, ViewerFrames};
use crate::events::EventRecorder;
use crate::http::access::Access;
use crate::http::places::{ClientKey, Place, PlaceLimits, Places, Shortage};
use crate::inference::live_tap::LiveTap;
use crate::status::StatusRegistry;

/// Clients that receive data continuously (WebSockets and MJPEG streams).
const VIEWERS: PlaceLimits = PlaceLimits {
    total: 32,
    per_client: 8,
    device: 32,
    reserved: 4,
};
/// A WebSocket client that sends nothing for this long, not even a pong, is disconnected.
pub(super) const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// State of the live page's server.
#[derive(Debug)]
pub(super) struct PageState {
    pub access: Arc<Access>,
    pub live_tap: Arc<LiveTap>,
    pub registry: Arc<StatusRegistry>,
    /// `None`: the component runs without a model.
    pub events: Option<Arc<EventRecorder>>,
    frames: ViewerFrameSender,
    viewers: Arc<Places>,
}

impl PageState {
    pub(super) fn new(
        access: Access,
        live_tap: Arc<LiveTap>,
        registry: Arc<StatusRegistry>,
        events: Option<Arc<EventRecorder>>,
    ) -> Self {
        Self {
            access: Arc::new(access),
            live_tap,
            registry,
            events,
            frames: watch::Sender::new(None),
            viewers: Places::new(VIEWERS),
        }
    }

    /// The sender with which the encoder publishes the newest frame.
    pub(super) fn frame_sender(&self) -> ViewerFrameSender {
        self.frames.clone()
    }

    /// A receiver of frames that arrive after this call.
    pub(super) fn new_frames(&self) -> ViewerFrames {
        let mut frames = self.frames.subscribe();
        frames.mark_unchanged();
        frames
    }

    /// A place to receive data continuously.
    ///
    /// # Errors
    /// All places are in use, or all that one client can have.
    pub(super) fn viewer_place(&self, client: ClientKey) -> Result<Place, TooManyViewers> {
        self.viewers.try_take(client).map_err(TooManyViewers)
    }
}

/// There is no place for one more viewer. The response has status 503.
#[derive(Debug)]
pub(super) struct TooManyViewers(Shortage);

impl IntoResponse for TooManyViewers {
    fn into_response(self) -> Response {
        let PlaceLimits { total, per_client, .. } = VIEWERS;
        let text = match self.0 {
            Shortage::Total => {
                format!("{total} clients are already connected; try again when one of them has disconnected\n")
            }
            Shortage::OfClient => format!(
                "too many clients of this address are already connected (most addresses: {per_client}); try again when one of \
                 them has disconnected\n"
            ),
        };
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}
