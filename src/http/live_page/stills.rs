//! Pictures for programs that know nothing else: one JPEG, or a stream of them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;

use super::pictures::ViewerFrames;
use super::server::{Full, Site};
use crate::inference::live_tap::ViewerGuard;

/// How long a picture is waited for.
const PICTURE_LIMIT: Duration = Duration::from_secs(5);
/// Between two pictures of the stream; a word that cannot be in a JPEG's headers.
const BOUNDARY: &str = "ei-greengrass-picture";

/// `/snapshot.jpg`: the next picture that the model sees.
pub(super) async fn snapshot(State(site): State<Arc<Site>>) -> Response {
    let mut pictures = match Pictures::look(&site) {
        Ok(pictures) => pictures,
        Err(full) => return full.into_response(),
    };
    match tokio::time::timeout(PICTURE_LIMIT, pictures.next()).await {
        Ok(Some(jpeg)) => ([(header::CONTENT_TYPE, "image/jpeg")], jpeg).into_response(),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "no picture came within 5 s: the camera or the model is not running, or the model listens to sound; see /api/status\n",
        )
            .into_response(),
    }
}

/// `/stream.mjpeg`: picture after picture, as `multipart/x-mixed-replace`. A client that reads slowly misses pictures.
pub(super) async fn stream(State(site): State<Arc<Site>>) -> Response {
    let pictures = match Pictures::look(&site) {
        Ok(pictures) => pictures,
        Err(full) => return full.into_response(),
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

/// The pictures from now on, while somebody wants them.
struct Pictures {
    moments: ViewerFrames,
    _looking: ViewerGuard,
    _place: OwnedSemaphorePermit,
}

impl Pictures {
    fn look(site: &Site) -> Result<Self, Full> {
        let place = site.place()?;
        let mut viewer = site.live_tap.add_viewer();
        viewer.want_pictures(true);
        let mut moments = site.moments();
        moments.mark_unchanged();
        Ok(Self {
            moments,
            _looking: viewer,
            _place: place,
        })
    }

    /// `None`: there will be no more.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.moments.changed().await.ok()?;
            let jpeg = self
                .moments
                .borrow_and_update()
                .as_ref()
                .and_then(|moment| moment.jpeg.clone());
            if jpeg.is_some() {
                return jpeg;
            }
        }
    }
}
