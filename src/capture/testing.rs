//! Hand-made frames for tests.

use std::time::Instant;

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::frame::Frame;

/// A test picture in RGB, three bytes a pixel: smooth shades, a slanted fine texture and a few hard edges, in brightness and in
/// colour, as in a photo.
pub(super) fn photo(width: usize, height: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let (u, v) = (x as f64 / width as f64, y as f64 / height as f64);
            let texture = 6.0 * (x as f64 * 1.9 + y as f64 * 0.7).sin();
            let edge = if (u - 0.3).abs() < 0.1 && (v - 0.6).abs() < 0.2 {
                60.0
            } else {
                0.0
            };
            let shade = |phase: f64| 110.0 + 60.0 * (6.0 * u + 4.0 * v + phase).sin();
            // A small red thing and a small blue one.
            let near = |a: f64, b: f64| (u - a).hypot(v - b) < 0.035;
            let tint = match (near(0.7, 0.3), near(0.8, 0.75)) {
                (true, _) => [70.0, -70.0, -70.0],
                (_, true) => [-70.0, -70.0, 70.0],
                _ => [0.0; 3],
            };
            for (phase, tint) in [0.0, 1.1, 2.3].into_iter().zip(tint) {
                data.push((shade(phase) + texture + edge + tint).clamp(0.0, 255.0) as u8);
            }
        }
    }
    data
}

/// A format's frame in memory, plane by plane.
pub(super) struct Raw {
    pub format: gst_video::VideoFormat,
    pub width: usize,
    pub height: usize,
    /// Rows of each plane without padding: bytes a row, rows, data.
    pub planes: Vec<(usize, usize, Vec<u8>)>,
}

impl Raw {
    /// A frame for the slot; `padding` extra bytes at the end of each row, told by a video meta.
    pub fn frame(&self, padding: usize, colorimetry: &str) -> Frame {
        super::init().unwrap();
        let mut bytes = Vec::new();
        let (mut offsets, mut strides) = (Vec::new(), Vec::new());
        for (row, rows, data) in &self.planes {
            offsets.push(bytes.len());
            // GStreamer's own rule without padding: rows are rounded up to four bytes.
            let stride = row.next_multiple_of(4) + padding;
            strides.push(stride as i32);
            for line in data.chunks_exact(*row).take(*rows) {
                bytes.extend_from_slice(line);
                // Anything that reads the padding shows in the picture.
                bytes.resize(bytes.len() + stride - row, 0xA5);
            }
        }
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        let (width, height) = (self.width as u32, self.height as u32);
        gst_video::VideoMeta::add_full(
            buffer.get_mut().unwrap(),
            gst_video::VideoFrameFlags::empty(),
            self.format,
            width,
            height,
            &offsets,
            &strides,
        )
        .unwrap();
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", self.format.to_str())
            .field("width", width as i32)
            .field("height", height as i32)
            .field("framerate", gst::Fraction::new(30, 1))
            .field("colorimetry", colorimetry)
            .build();
        let sample = gst::Sample::builder().buffer(&buffer).caps(&caps).build();
        Frame {
            sample,
            at: Instant::now(),
        }
    }
}
