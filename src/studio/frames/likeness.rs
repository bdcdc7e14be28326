//! Whether two pictures look alike: a difference hash of 64 bits.
//!
//! The picture is scaled to 9x8 grey pixels. Each bit says whether a pixel is brighter than its right neighbour.

use crate::capture::{Converter, Frame, Picture, PictureTarget};
use crate::config::ResizeMode;
use crate::util::text::sentence;

const COLUMNS: usize = 9;
const ROWS: usize = 8;
/// Noise in an even area must not change a bit.
const LEAST_DIFFERENCE: u8 = 2;
/// Most bits that differ between two pictures that look alike. A small object that moves changes some bits.
const ALIKE: u32 = 2;

/// The hash of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct PictureHash(u64);

impl PictureHash {
    /// The hash of a frame.
    ///
    /// # Errors
    /// Why it cannot be converted, as a sentence.
    pub(super) fn of(frame: &Frame) -> Result<Self, String> {
        let target = PictureTarget {
            width: COLUMNS as u32,
            height: ROWS as u32,
            grey: true,
            resize: ResizeMode::Squash,
        };
        let mut picture = Picture::default();
        Converter::new(target)
            .convert(frame, &mut picture)
            .map_err(|e| sentence(&e))?;
        Ok(Self::of_pixels(&picture.data))
    }

    /// `pixels`: rows of [`COLUMNS`].
    fn of_pixels(pixels: &[u8]) -> Self {
        let rows = pixels.chunks_exact(COLUMNS).take(ROWS);
        let pairs = rows.flat_map(|row| row.windows(2));
        Self(pairs.fold(0, |hash, pair| {
            let is_brighter = pair[0] >= pair[1].saturating_add(LEAST_DIFFERENCE);
            hash << 1 | u64::from(is_brighter)
        }))
    }

    /// Whether the pictures look alike.
    pub(super) fn is_like(self, other: Self) -> bool {
        (self.0 ^ other.0).count_ones() <= ALIKE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(brightness: u8, spot: Option<usize>) -> Vec<u8> {
        let mut pixels: Vec<u8> = (0..COLUMNS * ROWS)
            .map(|at| brightness + ((at * 37) % 90) as u8)
            .collect();
        if let Some(spot) = spot {
            pixels[spot] = 255;
            pixels[spot + COLUMNS] = 255;
            pixels[spot + 2 * COLUMNS] = 255;
        }
        pixels
    }

    #[test]
    fn another_brightness_and_noise_look_alike_and_another_object_does_not() {
        let first = PictureHash::of_pixels(&scene(40, None));
        assert!(first.is_like(PictureHash::of_pixels(&scene(60, None))));
        let noisy: Vec<u8> = scene(40, None)
            .iter()
            .enumerate()
            .map(|(n, p)| p + (n % 2) as u8)
            .collect();
        assert!(first.is_like(PictureHash::of_pixels(&noisy)));
        let near = PictureHash::of_pixels(&scene(40, Some(10)));
        assert!(!near.is_like(PictureHash::of_pixels(&scene(40, Some(42)))));
    }

    #[test]
    fn each_of_the_64_comparisons_has_a_bit() {
        let falling: Vec<u8> = (0..ROWS)
            .flat_map(|_| (0..COLUMNS as u8).map(|x| 200 - 10 * x))
            .collect();
        assert_eq!(PictureHash::of_pixels(&falling), PictureHash(u64::MAX));
        assert_eq!(PictureHash::of_pixels(&[9; COLUMNS * ROWS]), PictureHash(0));
        assert_eq!(PictureHash::of_pixels(&[]), PictureHash(0), "no pixels");
    }
}
