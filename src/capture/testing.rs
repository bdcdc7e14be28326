//! Frames for tests.

use std::time::Instant;

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::convert::{Converter, Picture};
use super::frame::Frame;

/// A test picture in RGB, three bytes a pixel: smooth shades, a slanted fine texture and a few hard edges, in
/// brightness and in colour, as in a photo.
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
            // A small red spot and a small blue one.
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

/// The picture of one frame.
pub(super) fn converted(converter: &mut Converter, frame: &Frame) -> Picture {
    let mut picture = Picture::default();
    converter.convert(frame, &mut picture).unwrap();
    picture
}

/// Mean and largest difference of two pictures of one size.
pub(super) fn difference(a: &Picture, b: &Picture) -> (f64, u8) {
    assert_eq!((a.width, a.height, a.grey), (b.width, b.height, b.grey));
    let channels = if a.grey { 1 } else { 3 };
    assert_eq!(
        a.data.len(),
        (a.width * a.height) as usize * channels,
        "the picture has no padding"
    );
    assert_eq!(a.data.len(), b.data.len());
    let differences = a.data.iter().zip(&b.data).map(|(a, b)| a.abs_diff(*b));
    let total: u64 = differences.clone().map(u64::from).sum();
    (total as f64 / a.data.len() as f64, differences.max().unwrap_or(0))
}

/// A frame of RGB pixels without padding.
pub(super) fn rgb_frame(width: usize, height: usize, rgb: Vec<u8>) -> Frame {
    let raw = Raw {
        format: gst_video::VideoFormat::Rgb,
        width,
        height,
        planes: vec![(3 * width, height, rgb)],
    };
    raw.frame(0, "sRGB")
}

/// The same picture in another format, by GStreamer; `None`: it cannot write that format.
pub(super) fn in_format(frame: &Frame, format: gst_video::VideoFormat, colorimetry: Option<&str>) -> Option<Frame> {
    let input = gst_video::VideoInfo::from_caps(frame.sample.caps()?).ok()?;
    let mut caps = gst::Caps::builder("video/x-raw")
        .field("format", format.to_str())
        .field("width", input.width() as i32)
        .field("height", input.height() as i32)
        .field("framerate", input.fps());
    if let Some(colorimetry) = colorimetry {
        caps = caps.field("colorimetry", colorimetry);
    }
    let output = gst_video::VideoInfo::from_caps(&caps.build()).ok()?;
    let mut options = gst_video::VideoConverterConfig::new();
    options.set_dither_method(gst_video::VideoDitherMethod::None);
    options.set_chroma_mode(gst_video::VideoChromaMode::None);
    let converter = gst_video::VideoConverter::new(&input, &output, Some(options)).ok()?;
    let mut buffer = gst::Buffer::with_size(output.size()).ok()?;
    {
        let from = gst_video::VideoFrameRef::from_buffer_ref_readable(frame.sample.buffer()?, &input).ok()?;
        let mut to = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer.get_mut()?, &output).ok()?;
        converter.frame_ref(&from, &mut to);
    }
    let caps = output.to_caps().ok()?;
    Some(Frame {
        sample: gst::Sample::builder().buffer(&buffer).caps(&caps).build(),
        at: frame.at,
    })
}

/// Converts a frame to RGB with GStreamer, computed with 16 bits and rounded. GStreamer's direct conversions to 8-bit
/// RGB compute with 8 bits and are 2 to 3 levels darker than the formula (1.22).
pub(super) fn exact_rgb(frame: &Frame) -> Frame {
    let wide = in_format(frame, gst_video::VideoFormat::Argb64, Some("sRGB")).unwrap();
    let info = gst_video::VideoInfo::from_caps(wide.sample.caps().unwrap()).unwrap();
    let map = wide.sample.buffer().unwrap().map_readable().unwrap();
    let (samples, _) = map.as_chunks::<2>();
    let level = |sample: &[u8; 2]| ((u32::from(u16::from_ne_bytes(*sample)) + 128) / 257) as u8;
    let (pixels, _) = samples.as_chunks::<4>();
    let rgb = pixels.iter().flat_map(|pixel| pixel[1..].iter().map(level)).collect();
    rgb_frame(info.width() as usize, info.height() as usize, rgb)
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
    /// A frame with `padding` extra bytes at the end of each row. A video meta describes them.
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
                // Code that reads the padding changes the picture.
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
