//! A video of the camera, encoded while it is recorded.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use crate::capture::{CaptureTap, VideoFile};

/// Longest video.
pub(super) const MAX_LENGTH: Duration = Duration::from_secs(300);
/// A camera that delivers no frame for this long ends the recording.
const FRAME_LIMIT: Duration = Duration::from_secs(3);
/// Time for the encoder to come to its end after the last frame.
const FINISH_LIMIT: Duration = Duration::from_secs(60);

/// Records for `length` in a temporary file in `directory`. `processing` is called when the recording has ended.
///
/// # Errors
/// There is no video, as a sentence.
pub(super) async fn record_video(
    tap: &Arc<CaptureTap>,
    length: Duration,
    directory: &Path,
    processing: impl Fn(),
) -> Result<Bytes, String> {
    let _rate = tap.for_video();
    let mut frames = tap.frames();
    let path = directory.join(format!("{}.unfinished", Uuid::new_v4().simple()));
    let created = directory.to_owned();
    tokio::task::spawn_blocking(move || std::fs::create_dir_all(created))
        .await
        .map_err(|e| e.to_string())?
        .map_err(|e| format!("{} cannot be written: {e}", directory.display()))?;
    let mut video: Option<(VideoFile, Instant)> = None;
    loop {
        let left = video
            .as_ref()
            .map_or(length, |(_, begun)| length.saturating_sub(begun.elapsed()));
        if left.is_zero() && video.is_some() {
            break;
        }
        match tokio::time::timeout(FRAME_LIMIT, frames.changed()).await {
            Ok(Ok(())) => {}
            _ => {
                return Err(format!(
                    "Timeout: the camera delivered no frame for {} s",
                    FRAME_LIMIT.as_secs()
                ));
            }
        }
        let Some(frame) = frames.borrow_and_update().clone() else {
            continue;
        };
        if let Some((file, begun)) = &video {
            file.push(&frame, frame.at.saturating_duration_since(*begun))
                .map_err(|e| e.to_string())?;
            continue;
        }
        let path = path.clone();
        let started = tokio::task::spawn_blocking(move || {
            let file = VideoFile::start(&frame, path)?;
            file.push(&frame, Duration::ZERO)?;
            Ok::<_, crate::capture::VideoError>((file, frame.at))
        });
        video = Some(started.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?);
    }
    processing();
    let Some((file, _)) = video else {
        return Err("nothing was recorded".to_owned());
    };
    let finished = tokio::task::spawn_blocking(move || file.finish(FINISH_LIMIT)).await;
    let file = finished.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    Ok(file.into())
}
