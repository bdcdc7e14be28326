//! JPEG pictures of inferences: at full quality for the caches, and small enough for a message.

use std::io::{self, Write};

use bytes::Bytes;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;

/// JPEG quality of a cached picture, and the first quality that is tried for a message.
pub const FULL_QUALITY: u8 = 90;

/// Most bytes of a JPEG: more than the full quality JPEG of a 100 megapixel camera.
const LARGEST_JPEG: usize = 64 << 20;

/// A borrowed picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureRef<'a> {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// One byte per pixel, else three (RGB).
    pub grey: bool,
    /// Rows without padding.
    pub data: &'a [u8],
}

/// Why there is no JPEG of a picture.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The data does not have the length of a picture of this size.
    #[error(
        "a picture of {width} x {height} with {channels} byte(s) per pixel cannot have {bytes} bytes of data; \
         this is a fault in the capture, and the picture is omitted"
    )]
    Shape {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// 1 or 3.
        channels: usize,
        /// Length of the data.
        bytes: usize,
    },
    /// The encoder failed, or the result is larger than 64 MiB.
    #[error("a picture of {width} x {height} could not be encoded as JPEG: {source}")]
    Encode {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// The error of the encoder.
        source: image::ImageError,
    },
}

/// A picture and its JPEG at [`FULL_QUALITY`], which is encoded once for caches and message.
#[derive(Debug, Clone)]
pub struct EncodedPicture<'a> {
    pub(super) picture: PictureRef<'a>,
    pub(super) jpeg: Bytes,
}

impl<'a> EncodedPicture<'a> {
    /// Encodes the picture.
    ///
    /// # Errors
    /// [`ImageError`] if the data does not match the size, or if the encoder fails (a side over 65535 pixels).
    pub fn new(picture: PictureRef<'a>) -> Result<Self, ImageError> {
        let PictureRef {
            width, height, data, ..
        } = picture;
        if !picture.is_valid() {
            return Err(ImageError::Shape {
                width,
                height,
                channels: picture.channels(),
                bytes: data.len(),
            });
        }
        let mut jpeg = Vec::new();
        let encoded = encode(picture, FULL_QUALITY, LARGEST_JPEG, &mut jpeg).and_then(|size| match size {
            0..=LARGEST_JPEG => Ok(()),
            _ => Err(io::Error::other(format!("it is larger than {LARGEST_JPEG} bytes")).into()),
        });
        encoded.map_err(|source| ImageError::Encode { width, height, source })?;
        Ok(Self {
            picture,
            jpeg: jpeg.into(),
        })
    }

    /// The JPEG at full quality and size.
    pub fn jpeg(&self) -> &Bytes {
        &self.jpeg
    }
}

impl PictureRef<'_> {
    pub(super) fn channels(&self) -> usize {
        if self.grey { 1 } else { 3 }
    }

    /// Whether the picture has pixels, and data of exactly the right length.
    fn is_valid(&self) -> bool {
        let bytes = (self.width as usize)
            .checked_mul(self.height as usize)
            .and_then(|p| p.checked_mul(self.channels()));
        bytes.is_some_and(|bytes| bytes > 0 && bytes == self.data.len())
    }
}

/// Encodes the picture into `jpeg`, which keeps at most `max` bytes. Returns the size of the whole JPEG.
pub(super) fn encode(
    picture: PictureRef<'_>,
    quality: u8,
    max: usize,
    jpeg: &mut Vec<u8>,
) -> Result<usize, image::ImageError> {
    jpeg.clear();
    let colour = if picture.grey {
        ExtendedColorType::L8
    } else {
        ExtendedColorType::Rgb8
    };
    let mut limited = LimitedBuffer { jpeg, max, size: 0 };
    JpegEncoder::new_with_quality(&mut limited, quality).encode(picture.data, picture.width, picture.height, colour)?;
    Ok(limited.size)
}

/// A buffer that keeps at most `max` bytes and counts all bytes.
struct LimitedBuffer<'a> {
    jpeg: &'a mut Vec<u8>,
    max: usize,
    size: usize,
}

impl Write for LimitedBuffer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.size += bytes.len();
        if self.size <= self.max {
            self.jpeg.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_whose_data_does_not_match_its_size_is_refused() {
        for (width, height, bytes) in [(2, 2, 11), (0, 4, 0), (u32::MAX, u32::MAX, 12)] {
            let data = vec![0; bytes];
            let error = EncodedPicture::new(PictureRef {
                width,
                height,
                grey: false,
                data: &data,
            })
            .unwrap_err();
            assert!(matches!(error, ImageError::Shape { .. }), "{error}");
        }
    }

    #[test]
    fn a_side_that_is_too_long_for_jpeg_is_an_error() {
        let data = vec![0; 70_000];
        let picture = PictureRef {
            width: 70_000,
            height: 1,
            grey: true,
            data: &data,
        };
        assert!(matches!(
            EncodedPicture::new(picture).unwrap_err(),
            ImageError::Encode { .. }
        ));
    }
}
