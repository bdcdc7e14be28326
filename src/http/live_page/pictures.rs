//! Pictures become JPEG here, away from the inference thread, one at a time and only the newest.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::capture::{Converter, Picture, Target};
use crate::config::ResizeMode;
use crate::inference::live_tap::{LiveTap, Original, Raw, RawPicture};
use crate::inference::view::{Area, InferenceView};
use crate::report::{EncodedPicture, PictureRef};

/// What somebody who looks sees at one moment.
#[derive(Debug)]
pub(super) struct ViewerFrame {
    /// The inference.
    pub seen: Arc<InferenceView>,
    /// What the model saw, or the camera; `None` for sound, or when nobody wanted pictures.
    pub jpeg: Option<Bytes>,
    /// Where in that JPEG the model's picture is; `None`: it is the model's picture.
    pub area: Option<Area>,
}

/// The newest moment; `None` before the first.
pub(super) type ViewerFrames = watch::Receiver<Option<Arc<ViewerFrame>>>;

/// Encodes until dropped.
pub(super) async fn encode(live_tap: Arc<LiveTap>, moments: watch::Sender<Option<Arc<ViewerFrame>>>) {
    let mut encoder = Encoder::new();
    loop {
        let raw = live_tap.next_raw().await;
        let counted = live_tap.clone();
        let work = move || {
            let moment = encoder.moment(raw, &counted);
            (moment, encoder)
        };
        // Fails only when the runtime ends.
        let Ok((moment, back)) = tokio::task::spawn_blocking(work).await else {
            return;
        };
        encoder = back;
        moments.send_replace(Some(Arc::new(moment)));
    }
}

/// What is kept from picture to picture.
struct Encoder {
    /// For frames of the camera in their own size.
    converter: Converter,
    picture: Picture,
}

impl Encoder {
    fn new() -> Self {
        Self {
            converter: Converter::new(Target {
                width: 0,
                height: 0,
                grey: false,
                resize: ResizeMode::None,
            }),
            picture: Picture::default(),
        }
    }

    fn moment(&mut self, Raw { seen, picture }: Raw, live_tap: &LiveTap) -> ViewerFrame {
        let (jpeg, area) = match picture {
            None => (None, None),
            Some(RawPicture::Models(picture)) => (jpeg(&picture, live_tap), None),
            Some(RawPicture::Cameras(original)) => match self.cameras(&original) {
                Some(area) => (jpeg(&self.picture, live_tap), Some(area)),
                None => (None, None),
            },
        };
        ViewerFrame { seen, jpeg, area }
    }

    /// Puts the camera's picture into `self.picture`.
    fn cameras(&mut self, Original { frame, target }: &Original) -> Option<Area> {
        match self.converter.convert(frame, &mut self.picture) {
            Ok(()) => Some(Area::of((self.picture.width, self.picture.height), *target)),
            Err(e) => {
                tracing::debug!("a picture for the live page: {e}");
                None
            }
        }
    }
}

fn jpeg(picture: &Picture, live_tap: &LiveTap) -> Option<Bytes> {
    let reference = PictureRef {
        width: picture.width,
        height: picture.height,
        grey: picture.grey,
        data: &picture.data,
    };
    live_tap.encoded.inc();
    match EncodedPicture::new(reference) {
        Ok(encoded) => Some(encoded.jpeg().clone()),
        Err(e) => {
            tracing::debug!("a picture for the live page: {e}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(resize: ResizeMode) -> [f64; 4] {
        let target = Target {
            width: 320,
            height: 320,
            grey: false,
            resize,
        };
        let Area { x, y, width, height } = Area::of((640, 480), target);
        [x, y, width, height]
    }

    #[test]
    fn the_models_picture_is_found_in_the_cameras() {
        assert_eq!(area(ResizeMode::Squash), [0.0, 0.0, 640.0, 480.0]);
        assert_eq!(area(ResizeMode::FitShortest), [80.0, 0.0, 480.0, 480.0]);
        // 40 black rows above and below, each two rows of the camera's.
        assert_eq!(area(ResizeMode::FitLongest), [0.0, -80.0, 640.0, 640.0]);
        assert_eq!(area(ResizeMode::None), [0.0, 0.0, 640.0, 480.0]);
    }
}
