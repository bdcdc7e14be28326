//! Pictures scaled as Pillow's `Image.LANCZOS` does it.
//!
//! A crate of its own, because much of `fast_image_resize` is generic: it is compiled where it is used, and only this crate has
//! to be optimised in development builds.

use std::f64::consts::PI;
use std::sync::LazyLock;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x4};
use fast_image_resize::{Filter, FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

/// Why a picture cannot be scaled: its size does not fit its pixels, or the crop lies outside.
pub type Error = Box<dyn std::error::Error>;

/// Entries of the table for each pixel of distance. Between them the kernel is taken for straight, which is at most 4e-7 off;
/// weights are rounded to some 3e-5.
const STEPS: usize = 1024;

/// The kernel from distance 0 to 3.
///
/// `fast_image_resize` computes the weights again for each picture. With two sines for each weight that is 0.12 of 0.65 ms
/// for 480 x 480 pixels into 320 x 320.
static KERNEL: LazyLock<Vec<f64>> =
    LazyLock::new(|| (0..=3 * STEPS + 1).map(|i| kernel(i as f64 / STEPS as f64)).collect());

fn kernel(distance: f64) -> f64 {
    let x = PI * distance;
    match distance {
        0.0 => 1.0,
        d if d < 3.0 => 3.0 * x.sin() * (x / 3.0).sin() / (x * x),
        _ => 0.0,
    }
}

fn tabled_kernel(distance: f64) -> f64 {
    let position = distance.abs() * STEPS as f64;
    let index = position as usize;
    match KERNEL.get(index..index + 2) {
        Some(&[before, after]) => before + (after - before) * (position - index as f64),
        _ => 0.0,
    }
}

/// The bytes of a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// Luma.
    Grey,
    /// Red, green, blue, and a byte without meaning.
    Rgbx,
}

/// The pixels of a picture, row after row without gaps.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    /// `width * height` pixels.
    pub data: &'a [u8],
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes of a pixel.
    pub channels: Channels,
}

/// A part of a picture. Its edges may lie within pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crop {
    /// Left edge, in pixels.
    pub left: f64,
    /// Top edge, in pixels.
    pub top: f64,
    /// Width in pixels.
    pub width: f64,
    /// Height in pixels.
    pub height: f64,
}

/// Scales with Lanczos-3. Keeps its memory from picture to picture, except for the weights.
#[derive(Debug)]
pub struct Lanczos {
    resizer: Resizer,
    options: ResizeOptions,
    /// The picture at its new width and its old height.
    narrowed: Vec<u8>,
}

impl Default for Lanczos {
    fn default() -> Self {
        let kernel =
            Filter::new("Lanczos3 by table", tabled_kernel, 3.0).map_or(FilterType::Lanczos3, FilterType::Custom);
        Self {
            resizer: Resizer::new(),
            options: ResizeOptions::new()
                .resize_alg(ResizeAlg::Convolution(kernel))
                .use_alpha(false),
            narrowed: Vec::new(),
        }
    }
}

impl Lanczos {
    /// Scales a part of a picture to `size` (width, height in pixels). `scaled` receives pixels of the same kind.
    ///
    /// # Errors
    /// [`Error`]
    pub fn scale(&mut self, from: Pixels<'_>, crop: Crop, size: (u32, u32), scaled: &mut [u8]) -> Result<(), Error> {
        match from.channels {
            Channels::Grey => self.scale_pixels::<U8>(from, crop, size, scaled),
            Channels::Rgbx => self.scale_pixels::<U8x4>(from, crop, size, scaled),
        }
    }

    fn scale_pixels<P: PixelTrait>(
        &mut self,
        from: Pixels<'_>,
        crop: Crop,
        (width, height): (u32, u32),
        scaled: &mut [u8],
    ) -> Result<(), Error> {
        // Rounding may put the far edge some 1e-13 pixels outside, which is refused.
        let cropped_width = crop.width.min(f64::from(from.width) - crop.left);
        let cropped_height = crop.height.min(f64::from(from.height) - crop.top);
        let picture = TypedImageRef::<P>::from_buffer(from.width, from.height, from.data)?;
        let mut to = TypedImage::<P>::from_buffer(width, height, scaled)?;
        let is_scaled_across = is_scaled(crop.left, crop.width, width);
        let is_scaled_down = is_scaled(crop.top, crop.height, height);
        if !(is_scaled_across && is_scaled_down) {
            let options = self.options.crop(crop.left, crop.top, cropped_width, cropped_height);
            return Ok(self.resizer.resize_typed(&picture, &mut to, &options)?);
        }
        // Across first, as Pillow: in one call it would go down first, and where a hard edge overshoots and is cut off at 0
        // or 255 between the two, single pixels would be up to 5 levels off.
        self.narrowed
            .resize((width as usize) * (from.height as usize) * size_of::<P>(), 0);
        let mut narrowed = TypedImage::<P>::from_buffer(width, from.height, &mut self.narrowed)?;
        let options = self.options.crop(crop.left, 0.0, cropped_width, f64::from(from.height));
        self.resizer.resize_typed(&picture, &mut narrowed, &options)?;
        let options = self.options.crop(0.0, crop.top, f64::from(width), cropped_height);
        Ok(self.resizer.resize_typed(&narrowed, &mut to, &options)?)
    }
}

/// Whether a length is scaled to this number of pixels, or begins within a pixel.
pub fn is_scaled(start: f64, length: f64, pixels: u32) -> bool {
    length != f64::from(pixels) || start.fract() != 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_gives_the_kernel() {
        for step in -40_000..40_000 {
            let distance = f64::from(step) * 1e-4;
            let off = (tabled_kernel(distance) - kernel(distance.abs())).abs();
            assert!(off < 1e-6, "{distance}: {off}");
        }
    }
}
