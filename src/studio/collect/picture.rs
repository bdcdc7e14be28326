//! Pictures of the camera as JPEG.

use bytes::Bytes;

use crate::capture::{Converter, Frame, Picture, PictureTarget};
use crate::config::ResizeMode;
use crate::report::{EncodedPicture, PictureRef};
use crate::studio::channel::SnapshotResolution;
use crate::util::text::sentence;

/// Height of the pictures of a snapshot stream in low resolution, in pixels.
const LOW_HEIGHT: u32 = 96;

/// Encodes frames. Its memory is reused.
#[derive(Debug)]
pub(in crate::studio) struct FrameEncoder {
    target: PictureTarget,
    converter: Converter,
    picture: Picture,
}

impl Default for FrameEncoder {
    fn default() -> Self {
        Self::new(full_size())
    }
}

fn full_size() -> PictureTarget {
    PictureTarget {
        width: 0,
        height: 0,
        grey: false,
        resize: ResizeMode::None,
    }
}

impl FrameEncoder {
    fn new(target: PictureTarget) -> Self {
        Self {
            target,
            converter: Converter::new(target),
            picture: Picture::default(),
        }
    }

    /// The frame as JPEG, in its own size or scaled to [`LOW_HEIGHT`].
    ///
    /// # Errors
    /// Why it cannot be converted, as a sentence.
    pub(in crate::studio) fn encode(&mut self, frame: &Frame, resolution: SnapshotResolution) -> Result<Bytes, String> {
        let target = match (resolution, frame.size()) {
            (SnapshotResolution::Low, Some((width, height))) if height > LOW_HEIGHT => PictureTarget {
                width: (u64::from(width) * u64::from(LOW_HEIGHT) / u64::from(height)).max(1) as u32,
                height: LOW_HEIGHT,
                grey: false,
                resize: ResizeMode::Squash,
            },
            _ => full_size(),
        };
        if target != self.target {
            *self = Self::new(target);
        }
        self.converter
            .convert(frame, &mut self.picture)
            .map_err(|e| sentence(&e))?;
        let picture = PictureRef {
            width: self.picture.width,
            height: self.picture.height,
            grey: self.picture.grey,
            data: &self.picture.data,
        };
        let encoded = EncodedPicture::new(picture).map_err(|e| sentence(&e))?;
        Ok(encoded.jpeg().clone())
    }
}
