//! Encodes pictures as JPEG for viewers: one at a time, only the newest, and not on the inference thread.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::capture::geometry::Layout;
use crate::capture::{Converter, Picture, PictureTarget};
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
    /// The area of the JPEG that is the model's input; `None`: the whole JPEG.
    pub area: Option<VisibleArea>,
}

/// The part of the camera's picture that became the model's input, in pixels of the camera. It is larger than the camera's
/// picture if the model's input has borders.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct VisibleArea {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl VisibleArea {
    fn of(camera: (u32, u32), target: PictureTarget) -> Self {
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
        // This fails only while the runtime shuts down.
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
            converter: Converter::new(PictureTarget {
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
    fn convert(&mut self, OriginalFrame { frame, target }: &OriginalFrame) -> Option<VisibleArea> {
        match self.converter.convert(frame, &mut self.picture) {
            Ok(()) => Some(VisibleArea::of((self.picture.width, self.picture.height), *target)),
            Err(e) => {
                tracing::debug!(error = %e, "Converting a picture for the live page failed");
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
            tracing::debug!(error = %e, "Encoding a picture for the live page failed");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(resize: ResizeMode) -> [f64; 4] {
        let target = PictureTarget {
            width: 320,
            height: 320,
            grey: false,
            resize,
        };
        let VisibleArea { x, y, width, height } = VisibleArea::of((640, 480), target);
        [x, y, width, height]
    }

    #[test]
    fn the_area_of_the_model_input_is_given_in_pixels_of_the_camera() {
        assert_eq!(area(ResizeMode::Squash), [0.0, 0.0, 640.0, 480.0]);
        assert_eq!(area(ResizeMode::FitShortest), [80.0, 0.0, 480.0, 480.0]);
        // 40 black rows above and below, each two rows of the camera's picture.
        assert_eq!(area(ResizeMode::FitLongest), [0.0, -80.0, 640.0, 640.0]);
        assert_eq!(area(ResizeMode::None), [0.0, 0.0, 640.0, 480.0]);
    }
}
