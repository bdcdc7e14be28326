//! The state that the request handlers of the live page share.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::viewer_encoder::{ViewerFrameSender, ViewerFrames};
use crate::events::EventRecorder;
use crate::http::access::Access;
use crate::inference::live_tap::LiveTap;
use crate::status::StatusRegistry;

/// Most clients that receive data continuously (WebSockets and MJPEG streams).
const MAX_VIEWERS: usize = 32;
/// A WebSocket client that sends nothing for this long, not even a pong, is disconnected.
pub(super) const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// State of the live page's server.
#[derive(Debug)]
pub(super) struct PageState {
    pub access: Access,
    pub live_tap: Arc<LiveTap>,
    pub registry: Arc<StatusRegistry>,
    /// `None`: the component runs without a model.
    pub events: Option<Arc<EventRecorder>>,
    frames: ViewerFrameSender,
    viewers: Arc<Semaphore>,
}

impl PageState {
    pub(super) fn new(
        access: Access,
        live_tap: Arc<LiveTap>,
        registry: Arc<StatusRegistry>,
        events: Option<Arc<EventRecorder>>,
    ) -> Self {
        Self {
            access,
            live_tap,
            registry,
            events,
            frames: watch::Sender::new(None),
            viewers: Arc::new(Semaphore::new(MAX_VIEWERS)),
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

    /// A permit to receive data continuously.
    ///
    /// # Errors
    /// All permits are in use.
    pub(super) fn viewer_permit(&self) -> Result<OwnedSemaphorePermit, TooManyViewers> {
        self.viewers.clone().try_acquire_owned().map_err(|_| TooManyViewers)
    }
}

/// All viewer permits are in use. The response has status 503.
#[derive(Debug)]
pub(super) struct TooManyViewers;

impl IntoResponse for TooManyViewers {
    fn into_response(self) -> Response {
        let text =
            format!("{MAX_VIEWERS} clients are already connected; try again when one of them has disconnected\n");
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}
