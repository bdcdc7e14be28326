//! Makes a picture small enough for a message: at a lower quality, then at half the size.

use bytes::Bytes;

use super::image::{EncodedPicture, FULL_QUALITY, PictureRef, encode};

/// Lowest JPEG quality. A picture that does not fit at this quality is halved.
const LOWEST_QUALITY: u8 = 30;

/// Smallest longer side of a halved picture, in pixels. A smaller picture would be useless.
const SMALLEST_SIDE: u32 = 32;

impl EncodedPicture<'_> {
    /// A JPEG of at most `max` bytes: at a lower quality, else at half the size, and so on. `None`: even the smallest useful
    /// picture is larger.
    pub(super) fn fit(&self, max: usize) -> Option<Bytes> {
        self.search(max).0
    }

    /// Like [`Self::fit`]; also returns the number of encodings.
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
            // Halving also reduces noise, and with it the bits per sample.
            size /= 5;
            if encode_to_fit(half.as_ref(), size, max, &mut jpeg, &mut encodings) {
                return (Some(jpeg.into()), encodings);
            }
            half = Halved::of(half.as_ref());
        }
        (None, encodings)
    }
}

/// A picture of half the size.
struct Halved {
    width: u32,
    height: u32,
    grey: bool,
    data: Vec<u8>,
}

impl Halved {
    /// Each pixel is the mean of two by two pixels. An odd last row or column is dropped; a side of 1 stays 1.
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

/// Encodes at an estimated quality that gives at most `max` bytes, and once more if the estimate was bad. Returns `false` if
/// the picture must be made smaller. `size`: bytes at [`FULL_QUALITY`]; for a halved picture it is an estimate.
fn encode_to_fit(picture: PictureRef<'_>, size: usize, max: usize, jpeg: &mut Vec<u8>, encodings: &mut usize) -> bool {
    let known = (step_of(FULL_QUALITY), size as f64);
    // The size is inversely proportional to this power of the quantiser step. Measured from quality 90 down to 30: 0.38 to
    // 0.5 for noise (5 to 6.3 bits per sample at 90), 0.55 to 1.2 for photographs (0.6 to 3.4 bits). The value used is near
    // the lower end, so that the first attempt usually fits.
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

/// The quantiser step at a quality, in percent of the standard tables.
fn step_of(quality: u8) -> f64 {
    let quality = f64::from(quality);
    if quality < 50.0 {
        5000.0 / quality
    } else {
        200.0 - 2.0 * quality
    }
}

/// The best quality with at least this step. A step slightly too large gives the lowest quality; `None`: the step is far too large.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::noise;
    use proptest::prelude::*;

    /// Width and height of the decoded picture.
    fn size_of(jpeg: &[u8]) -> (u32, u32) {
        let decoded = image::load_from_memory(jpeg).unwrap();
        (decoded.width(), decoded.height())
    }

    #[test]
    fn a_picture_that_fits_is_the_same_as_the_cached_one() {
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
    fn the_quality_is_reduced_before_the_size() {
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
        let (mut pictures, mut encodings, mut most_at_full_size) = (0, 0, 0);
        for (width, height) in [(1280, 960), (640, 480), (320, 320)] {
            let random = noise(width * height * 3);
            // From a smooth picture to pure noise.
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
                    // Most of the available bytes are used.
                    assert!(
                        jpeg.len() * 6 > max,
                        "{width}x{height}, {share} of noise, {max}: {}",
                        jpeg.len()
                    );
                    pictures += 1;
                    encodings += tried;
                    if size_of(&jpeg) == (width as u32, height as u32) {
                        most_at_full_size = most_at_full_size.max(tried);
                    }
                }
            }
        }
        assert!(
            encodings * 3 <= pictures * 5,
            "{encodings} encodings for {pictures} pictures"
        );
        assert_eq!(
            most_at_full_size, 2,
            "an estimate that was bad is corrected, and both encodings count"
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_fitted_picture_is_never_larger_than_the_limit(
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
