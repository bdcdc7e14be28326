//! Pictures become JPEG here, away from the inference thread, one at a time and only the newest.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::feed::{Feed, Raw};
use super::seen::Seen;
use crate::report::{EncodedPicture, PictureRef};

/// What somebody who looks sees at one moment.
#[derive(Debug)]
pub(super) struct Moment {
    /// The inference.
    pub seen: Arc<Seen>,
    /// What the model saw; `None` for sound, or when nobody wanted pictures.
    pub jpeg: Option<Bytes>,
}

/// The newest moment; `None` before the first.
pub(super) type Moments = watch::Receiver<Option<Arc<Moment>>>;

/// Encodes until dropped.
pub(super) async fn encode(feed: Arc<Feed>, moments: watch::Sender<Option<Arc<Moment>>>) {
    loop {
        let raw = feed.next_raw().await;
        let counted = feed.clone();
        // Fails only when the runtime ends.
        let Ok(moment) = tokio::task::spawn_blocking(move || moment(raw, &counted)).await else {
            return;
        };
        moments.send_replace(Some(Arc::new(moment)));
    }
}

fn moment(raw: Raw, feed: &Feed) -> Moment {
    let Raw { seen, picture } = raw;
    let jpeg = picture.and_then(|picture| {
        let reference = PictureRef {
            width: picture.width,
            height: picture.height,
            grey: picture.grey,
            data: &picture.data,
        };
        feed.encoded.inc();
        match EncodedPicture::new(reference) {
            Ok(encoded) => Some(encoded.jpeg().clone()),
            Err(e) => {
                tracing::debug!("a picture for the live page: {e}");
                None
            }
        }
    });
    Moment { seen, jpeg }
}
