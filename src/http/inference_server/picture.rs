//! Converts an uploaded picture to features, in the same way as camera frames, and converts coordinates of the result back to
//! pixels of the uploaded picture.

use std::io::Cursor;
use std::time::Instant;

use gstreamer as gst;
use gstreamer_video as gst_video;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use serde_json::{Value, json};

use crate::capture::geometry::Layout;
use crate::capture::pack::pack_features;
use crate::capture::{self, Converter, Frame, Picture, PictureTarget};
use crate::config::ResizeMode;
use crate::model::{BoundingBox, InferenceResult, ModelInfo};

/// Most pixels of the longest side of a picture.
const MAX_SIDE: u32 = 16_384;
/// Most pixels of a picture: the size of the largest phone cameras. Decoding needs about 350 MB for a short time, or about
/// 600 MB with 16 bits per colour.
const MAX_PIXELS: u64 = 50_000_000;
/// Most bytes of memory for decoding a picture.
const MAX_DECODED: u64 = 512 << 20;

/// Why a picture cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PictureError {
    #[error("this model takes data of the sensor \"{0}\", not pictures; post to /api/features")]
    NotForPictures(&'static str),
    #[error("the file cannot be read as a picture; accepted: JPEG, PNG, WebP, GIF and BMP: {0}")]
    Unreadable(#[from] image::ImageError),
    #[error("the picture has {0} x {1} pixels; accepted: at most {max} million in total", max = MAX_PIXELS / 1_000_000)]
    TooLarge(u32, u32),
    #[error("the file cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("the picture cannot be converted: {0}")]
    Convert(String),
}

/// How a picture was placed into the model's input.
#[derive(Debug)]
pub(super) struct PictureMapping {
    layout: Layout,
    original: (u32, u32),
    mode: ResizeMode,
}

/// Decodes and converts a picture. Takes time: call it on a blocking thread.
pub(super) fn prepare(
    file: &[u8],
    info: &ModelInfo,
    forced: Option<ResizeMode>,
) -> Result<(Vec<f32>, PictureMapping), PictureError> {
    // The existing runner squashes posted pictures.
    let Some(mut target) = PictureTarget::of(&info.input, forced, ResizeMode::Squash) else {
        return Err(PictureError::NotForPictures(info.sensor_name()));
    };
    if target.resize == ResizeMode::None {
        // A model that accepts pictures of any size was still trained for one size. All requests use that size.
        target.resize = ResizeMode::Squash;
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED);
    let mut decoder = ImageReader::new(Cursor::new(file))
        .with_guessed_format()?
        .into_decoder()?;
    let original = decoder.dimensions();
    if u64::from(original.0) * u64::from(original.1) > MAX_PIXELS {
        return Err(PictureError::TooLarge(original.0, original.1));
    }
    limits.reserve(decoder.total_bytes())?;
    decoder.set_limits(limits)?;
    let decoded = DynamicImage::from_decoder(decoder)?;
    let mut picture = Picture::default();
    let failed = |e: &dyn std::fmt::Display| PictureError::Convert(e.to_string());
    let frame = frame(decoded.into_rgba8()).map_err(|e| failed(&e))?;
    Converter::new(target)
        .convert(&frame, &mut picture)
        .map_err(|e| failed(&e))?;
    let mut features = vec![0.0; picture.pixels()];
    pack_features(&picture, &mut features);
    let mapping = PictureMapping {
        layout: Layout::new(original, (target.width, target.height), target.resize),
        original,
        mode: target.resize,
    };
    Ok((features, mapping))
}

fn frame(pixels: image::RgbaImage) -> Result<Frame, gst::glib::Error> {
    let failed = |text: &str| gst::glib::Error::new(gst::CoreError::Failed, text);
    capture::init().map_err(|e| failed(&e.to_string()))?;
    let (width, height) = pixels.dimensions();
    // Four bytes per pixel, so rows need no padding. The converter ignores the fourth byte.
    let caps = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgbx, width, height)
        .build()
        .and_then(|info| info.to_caps())
        .map_err(|e| failed(&e.to_string()))?;
    let buffer = gst::Buffer::from_mut_slice(pixels.into_raw());
    Ok(Frame {
        sample: gst::Sample::builder().buffer(&buffer).caps(&caps).build(),
        at: Instant::now(),
    })
}

impl PictureMapping {
    /// Converts boxes and cells to pixels of the original picture.
    pub(super) fn map_back(&self, result: &mut InferenceResult) {
        let lists = [
            &mut result.bounding_boxes,
            &mut result.object_tracking,
            &mut result.visual_anomaly_grid,
        ];
        for found in lists.into_iter().flatten().flatten() {
            self.map_box(found);
        }
    }

    /// Adds `resizeMode` and `resized`, as the existing runner's server does.
    pub(super) fn describe(&self, result: &mut Value) {
        let Some(result) = result.as_object_mut() else {
            return;
        };
        let mode = match self.mode {
            ResizeMode::Squash => "squash",
            ResizeMode::FitShortest => "fit-shortest",
            ResizeMode::FitLongest => "fit-longest",
            ResizeMode::None => "none",
        };
        result.insert("resizeMode".to_owned(), mode.into());
        result.insert(
            "resized".to_owned(),
            json!({
                "originalWidth": self.original.0, "originalHeight": self.original.1,
                "newWidth": self.layout.width, "newHeight": self.layout.height,
            }),
        );
    }

    fn map_box(&self, found: &mut BoundingBox) {
        let Layout { source, dest, .. } = self.layout;
        let across = |x: i64| to_original(x, (dest.x, dest.width), (source.x, source.width));
        let down = |y: i64| to_original(y, (dest.y, dest.height), (source.y, source.height));
        let (left, right) = (across(found.x), across(found.x.saturating_add(found.width)));
        let (top, bottom) = (down(found.y), down(found.y.saturating_add(found.height)));
        (found.x, found.width) = (left, right - left);
        (found.y, found.height) = (top, bottom - top);
    }
}

/// Converts a coordinate of the model's input to one of the original picture, limited to the part that the model saw.
fn to_original(position: i64, (from, length): (u32, u32), (to, original): (f64, f64)) -> i64 {
    let fraction = (position as f64 - f64::from(from)) / f64::from(length);
    (to + fraction.clamp(0.0, 1.0) * original).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(original: (u32, u32), mode: ResizeMode, found: [i64; 4]) -> [i64; 4] {
        let mapping = PictureMapping {
            layout: Layout::new(original, (320, 320), mode),
            original,
            mode,
        };
        let [x, y, width, height] = found;
        let mut result = InferenceResult {
            bounding_boxes: Some(vec![BoundingBox {
                label: String::new(),
                value: 1.0,
                x,
                y,
                width,
                height,
                object_id: None,
            }]),
            ..Default::default()
        };
        mapping.map_back(&mut result);
        let found = &result.bounding_boxes.unwrap()[0];
        [found.x, found.y, found.width, found.height]
    }

    #[test]
    fn boxes_are_converted_to_pixels_of_the_original() {
        let found = [80, 80, 160, 160];
        assert_eq!(mapped((640, 480), ResizeMode::Squash, found), [160, 120, 320, 240]);
        // The model sees 480 of 640 columns, from column 80 on.
        assert_eq!(mapped((640, 480), ResizeMode::FitShortest, found), [200, 120, 240, 240]);
        // 320 columns and 240 rows, with 40 black ones above.
        assert_eq!(mapped((640, 480), ResizeMode::FitLongest, found), [160, 80, 320, 320]);
    }

    #[test]
    fn a_box_beyond_the_border_ends_at_the_border() {
        assert_eq!(
            mapped((640, 480), ResizeMode::FitLongest, [-5, 0, 400, 320]),
            [0, 0, 640, 480]
        );
        assert_eq!(
            mapped((64, 48), ResizeMode::Squash, [i64::MAX, 0, i64::MAX, 1]),
            [64, 0, 0, 0]
        );
    }
}
