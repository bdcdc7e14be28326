//! JPEG pictures of what was inferred: for the cache at full quality, for a message as large as fits.

use std::io::{self, Write};

use bytes::Bytes;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;

/// JPEG quality of a cached picture, and the first one tried for a message.
pub const FULL_QUALITY: u8 = 90;

/// Qualities tried at each size before the picture is halved.
const QUALITIES: [u8; 7] = [FULL_QUALITY, 80, 70, 60, 50, 40, 30];

/// A picture is not halved to less than this on its longer side, in pixels: nobody could make anything out.
const SMALLEST_SIDE: u32 = 32;

/// No encoded picture is larger than this: the full quality JPEG of a 100 megapixel camera stays below.
const LARGEST_JPEG: usize = 64 << 20;

/// A packed picture, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureRef<'a> {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// One byte a pixel, else three (RGB).
    pub grey: bool,
    /// Rows without padding.
    pub data: &'a [u8],
}

/// Why there is no JPEG of a picture.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Size and data do not belong together.
    #[error(
        "a picture of {width} x {height} with {channels} byte(s) a pixel cannot have {bytes} bytes of data; \
         this is a fault in the capture, the picture is left out"
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
    /// The encoder refused, or the result is larger than 64 MiB.
    #[error("a picture of {width} x {height} could not be written as JPEG: {source}")]
    Encode {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// The encoder's reason.
        source: image::ImageError,
    },
}

/// A picture together with its JPEG at [`FULL_QUALITY`], so that it is encoded once for cache and message.
#[derive(Debug, Clone)]
pub struct EncodedPicture<'a> {
    picture: PictureRef<'a>,
    jpeg: Bytes,
}

impl<'a> EncodedPicture<'a> {
    /// Encodes the picture.
    ///
    /// # Errors
    /// [`ImageError`] when size and data do not fit together, or the encoder refuses (a side over 65535 pixels).
    pub fn new(picture: PictureRef<'a>) -> Result<Self, ImageError> {
        let PictureRef {
            width, height, data, ..
        } = picture;
        if !picture.is_sound() {
            return Err(ImageError::Shape {
                width,
                height,
                channels: picture.channels(),
                bytes: data.len(),
            });
        }
        let mut jpeg = Vec::new();
        encode(picture, FULL_QUALITY, LARGEST_JPEG, &mut jpeg).map_err(|source| ImageError::Encode {
            width,
            height,
            source,
        })?;
        Ok(Self {
            picture,
            jpeg: jpeg.into(),
        })
    }

    /// The JPEG at full quality and size.
    pub fn jpeg(&self) -> &Bytes {
        &self.jpeg
    }

    /// The best JPEG of at most `max` bytes: lower qualities first, then half the size with all qualities again, and so
    /// on. `None`: nothing worth looking at is that small.
    pub(super) fn fit(&self, max: usize) -> Option<Bytes> {
        if self.jpeg.len() <= max {
            return Some(self.jpeg.clone());
        }
        let mut jpeg = Vec::new();
        // At full size the full quality is already known to be too large.
        if encode_best(self.picture, &QUALITIES[1..], max, &mut jpeg) {
            return Some(jpeg.into());
        }
        let mut half = Halved::of(self.picture);
        while half.width.max(half.height) >= SMALLEST_SIDE {
            if encode_best(half.as_ref(), &QUALITIES, max, &mut jpeg) {
                return Some(jpeg.into());
            }
            half = Halved::of(half.as_ref());
        }
        None
    }
}

impl PictureRef<'_> {
    fn channels(&self) -> usize {
        if self.grey { 1 } else { 3 }
    }

    /// Whether there is a pixel at all and the data is exactly as long as the size says.
    fn is_sound(&self) -> bool {
        let bytes = (self.width as usize)
            .checked_mul(self.height as usize)
            .and_then(|p| p.checked_mul(self.channels()));
        bytes.is_some_and(|bytes| bytes > 0 && bytes == self.data.len())
    }
}

/// A picture at half the size.
struct Halved {
    width: u32,
    height: u32,
    grey: bool,
    data: Vec<u8>,
}

impl Halved {
    /// Each pixel is the mean of two by two; an odd last row or column is dropped, a side of 1 stays.
    fn of(picture: PictureRef<'_>) -> Self {
        let channels = picture.channels();
        let (width, height) = ((picture.width / 2).max(1), (picture.height / 2).max(1));
        let stride = picture.width as usize * channels;
        let right = if picture.width > 1 { channels } else { 0 };
        let below = if picture.height > 1 { stride } else { 0 };
        let mut data = Vec::with_capacity(width as usize * height as usize * channels);
        for y in 0..height as usize {
            for x in 0..width as usize {
                let corner = 2 * y * stride + 2 * x * channels;
                for at in corner..corner + channels {
                    let sum: u16 = [at, at + right, at + below, at + right + below]
                        .iter()
                        .map(|i| u16::from(picture.data[*i]))
                        .sum();
                    data.push(((sum + 2) / 4) as u8);
                }
            }
        }
        Self {
            width,
            height,
            grey: picture.grey,
            data,
        }
    }

    fn as_ref(&self) -> PictureRef<'_> {
        PictureRef {
            width: self.width,
            height: self.height,
            grey: self.grey,
            data: &self.data,
        }
    }
}

/// Encodes with the first of `qualities` that gives at most `max` bytes; `false`: none does.
fn encode_best(picture: PictureRef<'_>, qualities: &[u8], max: usize, jpeg: &mut Vec<u8>) -> bool {
    qualities
        .iter()
        .any(|quality| encode(picture, *quality, max, jpeg).is_ok())
}

/// Replaces `jpeg` by the picture at that quality, giving up as soon as it is larger than `max` bytes.
fn encode(picture: PictureRef<'_>, quality: u8, max: usize, jpeg: &mut Vec<u8>) -> Result<(), image::ImageError> {
    jpeg.clear();
    let colour = if picture.grey {
        ExtendedColorType::L8
    } else {
        ExtendedColorType::Rgb8
    };
    JpegEncoder::new_with_quality(Limited { jpeg, max }, quality).encode(
        picture.data,
        picture.width,
        picture.height,
        colour,
    )
}

/// A buffer that refuses to grow beyond `max` bytes.
struct Limited<'a> {
    jpeg: &'a mut Vec<u8>,
    max: usize,
}

impl Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.jpeg.len() + bytes.len() > self.max {
            return Err(io::Error::other(format!(
                "it is larger than the {} bytes allowed here",
                self.max
            )));
        }
        self.jpeg.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::noise;
    use proptest::prelude::*;

    /// Width and height once decoded.
    fn size_of(jpeg: &[u8]) -> (u32, u32) {
        let decoded = image::load_from_memory(jpeg).unwrap();
        (decoded.width(), decoded.height())
    }

    #[test]
    fn a_picture_that_fits_is_sent_as_cached() {
        let data = noise(96 * 96 * 3);
        let encoded = EncodedPicture::new(PictureRef {
            width: 96,
            height: 96,
            grey: false,
            data: &data,
        })
        .unwrap();
        assert_eq!(encoded.fit(131_072).unwrap(), encoded.jpeg());
        assert_eq!(size_of(encoded.jpeg()), (96, 96));
    }

    #[test]
    fn quality_goes_before_size() {
        let data = noise(200 * 100);
        let encoded = EncodedPicture::new(PictureRef {
            width: 200,
            height: 100,
            grey: true,
            data: &data,
        })
        .unwrap();
        let full = encoded.jpeg().len();

        let reduced = encoded.fit(full - 1).unwrap();
        assert_eq!(size_of(&reduced), (200, 100));
        assert!(reduced.len() < full);

        let halved = encoded.fit(full / 8).unwrap();
        assert_eq!(size_of(&halved), (100, 50));
        assert!(halved.len() <= full / 8);

        assert!(encoded.fit(200).is_none());
    }

    #[test]
    fn halving_takes_the_mean_of_two_by_two_pixels() {
        let grey = Halved::of(PictureRef {
            width: 3,
            height: 2,
            grey: true,
            data: &[10, 20, 99, 30, 40, 99],
        });
        assert_eq!((grey.width, grey.height, grey.data), (1, 1, vec![25]));
        let line = [1, 2, 3, 5, 6, 7];
        let rgb = Halved::of(PictureRef {
            width: 2,
            height: 1,
            grey: false,
            data: &line,
        });
        assert_eq!((rgb.width, rgb.height, rgb.data), (1, 1, vec![3, 4, 5]));
    }

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
    fn a_side_the_format_cannot_hold_is_an_error() {
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_fitted_picture_is_never_larger_than_asked(
            width in 1u32..160, height in 1u32..160, grey: bool, max in 0usize..20_000,
        ) {
            let data = noise((width * height) as usize * if grey { 1 } else { 3 });
            let encoded = EncodedPicture::new(PictureRef { width, height, grey, data: &data }).unwrap();
            if let Some(jpeg) = encoded.fit(max) {
                prop_assert!(jpeg.len() <= max);
                prop_assert!(image::load_from_memory(&jpeg).is_ok());
            }
        }
    }
}
