//! JPEG pictures of what was inferred: for the cache at full quality, for a message as large as fits.

use std::io::{self, Write};

use bytes::Bytes;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;

/// JPEG quality of a cached picture, and the first one tried for a message.
pub const FULL_QUALITY: u8 = 90;

/// A picture that does not fit at this quality is halved.
const LOWEST_QUALITY: u8 = 30;

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

    /// A JPEG of at most `max` bytes: at a lower quality, else at half the size, and so on. `None`: nothing worth looking at
    /// is that small.
    pub(super) fn fit(&self, max: usize) -> Option<Bytes> {
        self.search(max).0
    }

    /// The same, and how often a picture was encoded for it.
    fn search(&self, max: usize) -> (Option<Bytes>, usize) {
        if self.jpeg.len() <= max {
            return (Some(self.jpeg.clone()), 0);
        }
        let (mut jpeg, mut encodings) = (Vec::new(), 0);
        let mut size = self.jpeg.len();
        if encode_to_fit(self.picture, size, max, &mut jpeg, &mut encodings) {
            return (Some(jpeg.into()), encodings);
        }
        let mut half = Halved::of(self.picture);
        while half.width.max(half.height) >= SMALLEST_SIDE {
            // Noise loses bits a sample as well.
            size /= 5;
            if encode_to_fit(half.as_ref(), size, max, &mut jpeg, &mut encodings) {
                return (Some(jpeg.into()), encodings);
            }
            half = Halved::of(half.as_ref());
        }
        (None, encodings)
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

/// Encodes at an estimated quality that gives at most `max` bytes, and once more when the estimate was far off; `false`: the
/// picture has to be made smaller. `size`: bytes at [`FULL_QUALITY`], also an estimate where the picture was halved.
fn encode_to_fit(picture: PictureRef<'_>, size: usize, max: usize, jpeg: &mut Vec<u8>, encodings: &mut usize) -> bool {
    let known = (step_of(FULL_QUALITY), size as f64);
    // Size falls with this power of the quantiser's step. Measured from quality 90 down to 30: noise (5 to 6.3 bits a sample
    // at 90) 0.38 to 0.5, photographs with and without noise (0.6 to 3.4 bits) 0.55 to 1.2. What is taken is low in the
    // range, so that the first attempt fits.
    let bits = 8.0 * known.1 / picture.data.len() as f64;
    let power = (0.95 - 0.11 * bits).clamp(0.36, 0.7);
    let wanted = 0.95 * max as f64;
    let estimate = |(step, size): (f64, f64), power: f64| quality_of(step * (size / wanted).powf(1.0 / power));
    let Some(first) = estimate(known, power) else {
        return false;
    };
    *encodings += 1;
    let Ok(bytes) = encode(picture, first, max, jpeg) else {
        return false;
    };
    let fits = bytes <= max;
    if fits && (bytes * 4 > max || first == FULL_QUALITY) {
        return true;
    }
    let step = step_of(first);
    let measured = (known.1 / bytes as f64).ln() / (step / known.0).ln();
    let second = estimate((step, bytes as f64), measured.clamp(0.4, 1.2));
    let Some(second) = second.filter(|second| *second != first) else {
        return fits;
    };
    *encodings += 1;
    let mut other = Vec::new();
    match encode(picture, second, max, &mut other) {
        Ok(bytes) if bytes <= max => {
            *jpeg = other;
            true
        }
        _ => fits,
    }
}

/// The quantiser's step at a quality, in hundredths of the standard tables.
fn step_of(quality: u8) -> f64 {
    let quality = f64::from(quality);
    if quality < 50.0 {
        5000.0 / quality
    } else {
        200.0 - 2.0 * quality
    }
}

/// The best quality with at least this step. A little below the lowest the lowest is worth an attempt; `None`: it is not.
fn quality_of(step: f64) -> Option<u8> {
    let quality = if step > 100.0 {
        5000.0 / step
    } else {
        (200.0 - step) / 2.0
    };
    if step > 1.2 * step_of(LOWEST_QUALITY) {
        return None;
    }
    Some((quality as u8).clamp(LOWEST_QUALITY, FULL_QUALITY))
}

/// Replaces `jpeg` by the picture at that quality, if it has at most `max` bytes; how many it has.
fn encode(picture: PictureRef<'_>, quality: u8, max: usize, jpeg: &mut Vec<u8>) -> Result<usize, image::ImageError> {
    jpeg.clear();
    let colour = if picture.grey {
        ExtendedColorType::L8
    } else {
        ExtendedColorType::Rgb8
    };
    let mut limited = Limited { jpeg, max, size: 0 };
    JpegEncoder::new_with_quality(&mut limited, quality).encode(picture.data, picture.width, picture.height, colour)?;
    Ok(limited.size)
}

/// A buffer that keeps at most `max` bytes, and counts all.
struct Limited<'a> {
    jpeg: &'a mut Vec<u8>,
    max: usize,
    size: usize,
}

impl Write for Limited<'_> {
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
    fn a_fitting_quality_is_found_with_few_encodings() {
        let (mut pictures, mut encodings) = (0, 0);
        for (width, height) in [(1280, 960), (640, 480), (320, 320)] {
            let random = noise(width * height * 3);
            // From a smooth picture to nothing but noise.
            for share in [0, 1, 8, 64, 255] {
                let pixel = |at: usize| {
                    let (x, y) = (at / 3 % width, at / 3 / width);
                    let smooth = 128.0 + 100.0 * (x as f32 / 30.0 + (at % 3) as f32).sin() * (y as f32 / 50.0).cos();
                    let part = share as f32 / 255.0;
                    (smooth * (1.0 - part) + f32::from(random[at]) * part) as u8
                };
                let data: Vec<u8> = (0..random.len()).map(pixel).collect();
                let encoded = EncodedPicture::new(PictureRef {
                    width: width as u32,
                    height: height as u32,
                    grey: false,
                    data: &data,
                })
                .unwrap();
                for max in [95_000, 50_000, 20_000] {
                    if encoded.jpeg().len() <= max {
                        continue;
                    }
                    let (jpeg, tried) = encoded.search(max);
                    let jpeg = jpeg.unwrap();
                    assert!(jpeg.len() <= max);
                    assert!(
                        tried <= if share >= 64 { 2 } else { 3 },
                        "{width}x{height}, {share} of noise, {max}: {tried} encodings"
                    );
                    // What was to be had is used.
                    assert!(
                        jpeg.len() * 6 > max,
                        "{width}x{height}, {share} of noise, {max}: {}",
                        jpeg.len()
                    );
                    pictures += 1;
                    encodings += tried;
                }
            }
        }
        assert!(
            encodings * 3 <= pictures * 5,
            "{encodings} encodings for {pictures} pictures"
        );
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
