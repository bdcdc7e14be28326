//! Pictures for programs without WebSocket: one JPEG (`/snapshot.jpg`), or a stream of them (`/stream.mjpeg`).

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;

use super::page_state::{PageState, TooManyViewers};
use super::viewer_encoder::ViewerFrames;
use crate::http::connection_table::OpenRequest;
use crate::http::places::{ClientKey, Place};
use crate::inference::live_tap::ViewerGuard;

/// How long a snapshot waits for a picture.
const PICTURE_LIMIT: Duration = Duration::from_secs(5);
/// Separates the pictures of the stream.
const BOUNDARY: &str = "ei-greengrass-picture";

/// `/snapshot.jpg`: the next picture.
pub(super) async fn snapshot(State(state): State<Arc<PageState>>, Extension(open): Extension<OpenRequest>) -> Response {
    let mut pictures = match PictureStream::new(&state, open.client()) {
        Ok(pictures) => pictures,
        Err(refusal) => return refusal.into_response(),
    };
    match tokio::time::timeout(PICTURE_LIMIT, pictures.next()).await {
        Ok(Some(jpeg)) => ([(header::CONTENT_TYPE, "image/jpeg")], jpeg).into_response(),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "no picture arrived within 5 s: the camera or the model is not running, or it is an audio model; see /api/status\n",
        )
            .into_response(),
    }
}

/// `/stream.mjpeg`: a stream of pictures, as `multipart/x-mixed-replace`. A client that reads slowly misses pictures.
pub(super) async fn stream(State(state): State<Arc<PageState>>, Extension(open): Extension<OpenRequest>) -> Response {
    let pictures = match PictureStream::new(&state, open.client()) {
        Ok(pictures) => pictures,
        Err(refusal) => return refusal.into_response(),
    };
    let parts = stream::unfold(pictures, |mut pictures| async move {
        let jpeg = pictures.next().await?;
        Some((Ok::<_, std::convert::Infallible>(part(&jpeg)), pictures))
    });
    let kind = format!("multipart/x-mixed-replace; boundary={BOUNDARY}");
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(parts)).into_response()
}

fn part(jpeg: &Bytes) -> Bytes {
    let head = format!(
        "--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
        jpeg.len()
    );
    let mut part = BytesMut::with_capacity(head.len() + jpeg.len() + 2);
    part.put_slice(head.as_bytes());
    part.put_slice(jpeg);
    part.put_slice(b"\r\n");
    part.freeze()
}

/// A stream of new pictures. The live tap delivers pictures while it exists.
struct PictureStream {
    frames: ViewerFrames,
    _viewer: ViewerGuard,
    _place: Place,
}

impl PictureStream {
    fn new(state: &PageState, client: ClientKey) -> Result<Self, TooManyViewers> {
        let place = state.viewer_place(client)?;
        let mut viewer = state.live_tap.add_viewer();
        viewer.want_pictures(true);
        Ok(Self {
            frames: state.new_frames(),
            _viewer: viewer,
            _place: place,
        })
    }

    /// The next picture; `None`: the stream has ended.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.frames.changed().await.ok()?;
            let jpeg = self
                .frames
                .borrow_and_update()
                .as_ref()
                .and_then(|frame| frame.jpeg.clone());
            if jpeg.is_some() {
                return jpeg;
            }
        }
    }
}
