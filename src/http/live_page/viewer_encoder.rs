//! Encodes pictures as JPEG for viewers: not on the inference thread, one at a time, and only the newest.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::capture::geometry::Layout;
use crate::capture::{Converter, Picture, Target};
use crate::config::ResizeMode;
use crate::inference::event::OriginalFrame;
use crate::inference::live_tap::{LiveTap, UnencodedPicture, UnencodedView};
use crate::inference::view::InferenceView;
use crate::report::{EncodedPicture, PictureRef};

/// An inference with its encoded picture.
#[derive(Debug)]
pub(super) struct ViewerFrame {
    /// The inference.
    pub view: Arc<InferenceView>,
    /// The model's input or the camera's picture; `None` for audio, and while no viewer wants pictures.
    pub jpeg: Option<Bytes>,
    /// Where the model's input is in that JPEG; `None`: the JPEG is the model's input.
    pub area: Option<Area>,
}

/// The part of the camera's picture that became the model's input, in the camera's pixels. It extends beyond the camera's
/// picture where the model's input has borders.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Area {
    fn of(camera: (u32, u32), target: Target) -> Self {
        let layout = Layout::new(camera, (target.width, target.height), target.resize);
        let (source, dest) = (layout.source, layout.dest);
        let across = source.width / f64::from(dest.width);
        let down = source.height / f64::from(dest.height);
        Self {
            x: source.x - f64::from(dest.x) * across,
            y: source.y - f64::from(dest.y) * down,
            width: f64::from(layout.width) * across,
            height: f64::from(layout.height) * down,
        }
    }
}

/// Sends the newest frame to all viewers; `None` before the first one.
pub(super) type ViewerFrameSender = watch::Sender<Option<Arc<ViewerFrame>>>;
/// Receives the newest frame.
pub(super) type ViewerFrames = watch::Receiver<Option<Arc<ViewerFrame>>>;

/// Encodes until dropped.
pub(super) async fn run(live_tap: Arc<LiveTap>, frames: ViewerFrameSender) {
    let mut encoder = ViewerEncoder::new();
    loop {
        let view = live_tap.next_view().await;
        let counted = live_tap.clone();
        let work = move || {
            let frame = encoder.encode(view, &counted);
            (frame, encoder)
        };
        // An error here means that the runtime is shutting down.
        let Ok((frame, returned)) = tokio::task::spawn_blocking(work).await else {
            return;
        };
        encoder = returned;
        frames.send_replace(Some(Arc::new(frame)));
    }
}

/// Buffers that are reused for each picture.
struct ViewerEncoder {
    /// Converts the camera's frames without scaling them.
    converter: Converter,
    picture: Picture,
}

impl ViewerEncoder {
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

    fn encode(&mut self, UnencodedView { view, picture }: UnencodedView, live_tap: &LiveTap) -> ViewerFrame {
        let (jpeg, area) = match picture {
            None => (None, None),
            Some(UnencodedPicture::ModelInput(picture)) => (jpeg(&picture, live_tap), None),
            Some(UnencodedPicture::Original(original)) => match self.convert(&original) {
                Some(area) => (jpeg(&self.picture, live_tap), Some(area)),
                None => (None, None),
            },
        };
        ViewerFrame { view, jpeg, area }
    }

    /// Converts the camera's frame into `self.picture`.
    fn convert(&mut self, OriginalFrame { frame, target }: &OriginalFrame) -> Option<Area> {
        match self.converter.convert(frame, &mut self.picture) {
            Ok(()) => Some(Area::of((self.picture.width, self.picture.height), *target)),
            Err(e) => {
                tracing::debug!(error = %e, "A picture for the live page could not be converted");
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
            tracing::debug!(error = %e, "A picture for the live page could not be encoded");
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
    fn the_area_of_the_models_input_is_found_in_the_cameras_picture() {
        assert_eq!(area(ResizeMode::Squash), [0.0, 0.0, 640.0, 480.0]);
        assert_eq!(area(ResizeMode::FitShortest), [80.0, 0.0, 480.0, 480.0]);
        // 40 black rows above and below, each two rows of the camera's picture.
        assert_eq!(area(ResizeMode::FitLongest), [0.0, -80.0, 640.0, 640.0]);
        assert_eq!(area(ResizeMode::None), [0.0, 0.0, 640.0, 480.0]);
    }
}
