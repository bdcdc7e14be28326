//! The snapshot stream: the newest picture of the camera, again and again, while Studio wants it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::picture::FrameEncoder;
use crate::capture::CaptureTap;
use crate::studio::channel::{ChannelHandle, Outgoing, SnapshotResolution};

/// Shortest time between two pictures in the camera's size; the documentation of Studio calls five a second plenty.
const HIGH_INTERVAL: Duration = Duration::from_millis(200);
/// Shortest time between two pictures in low resolution.
const LOW_INTERVAL: Duration = Duration::from_millis(100);

/// Sends pictures until it is dropped. A picture that equals the one before is not sent.
pub(super) async fn run(tap: Arc<CaptureTap>, channel: ChannelHandle, resolution: SnapshotResolution) {
    let interval = match resolution {
        SnapshotResolution::Low => LOW_INTERVAL,
        SnapshotResolution::High => HIGH_INTERVAL,
    };
    let mut frames = tap.frames();
    let (mut encoder, mut last, mut number) = (FrameEncoder::default(), Bytes::new(), 0_u64);
    while frames.changed().await.is_ok() {
        let Some(frame) = frames.borrow_and_update().clone() else {
            continue;
        };
        let work = move || {
            let jpeg = encoder.encode(&frame, resolution);
            (jpeg, encoder)
        };
        // This fails only while the runtime shuts down, or after a panic, which is logged.
        let Ok((jpeg, returned)) = tokio::task::spawn_blocking(work).await else {
            return;
        };
        encoder = returned;
        match jpeg {
            Ok(jpeg) if jpeg != last => {
                number += 1;
                last = jpeg.clone();
                channel.send_newest(Outgoing::SnapshotFrame {
                    jpeg,
                    file_name: format!("resized{number:05}.jpg"),
                });
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(error, "A picture of the snapshot stream could not be encoded"),
        }
        tokio::time::sleep(interval).await;
    }
}
