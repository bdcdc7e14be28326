//! Converted pictures against a reference written here in plain Rust, independent of GStreamer.

use gstreamer as gst;
use gstreamer_video::VideoFormat;

use super::convert::{ConvertError, Converter, Picture, PictureTarget};
use super::frame::Frame;
use super::testing::{Raw, converted, difference, photo};
use crate::config::ResizeMode;

const MODES: [ResizeMode; 4] = [
    ResizeMode::Squash,
    ResizeMode::FitShortest,
    ResizeMode::FitLongest,
    ResizeMode::None,
];

/// A picture of floating point numbers, three values a pixel.
#[derive(Clone)]
struct Image {
    width: usize,
    height: usize,
    data: Vec<f64>,
}

impl Image {
    fn at(&self, x: usize, y: usize) -> [f64; 3] {
        let i = (y * self.width + x) * 3;
        [self.data[i], self.data[i + 1], self.data[i + 2]]
    }

    fn build(width: usize, height: usize, pixel: impl Fn(usize, usize) -> [f64; 3]) -> Self {
        let data = (0..width * height).flat_map(|i| pixel(i % width, i / width)).collect();
        Self { width, height, data }
    }

    /// Lanczos with three lobes. For a reduction the kernel is wider by the same factor, so that nothing aliases.
    /// `across`, `down`: first and last edge of the visible part.
    fn lanczos(&self, across: (f64, f64), down: (f64, f64), (width, height): (usize, usize)) -> Self {
        let (across, down) = (weights(self.width, across, width), weights(self.height, down, height));
        let rows = Self::build(width, self.height, |x, y| sum(&across[x], |i| self.at(i, y)));
        Self::build(width, height, |x, y| sum(&down[y], |j| rows.at(x, j)))
    }

    fn whole(&self) -> ((f64, f64), (f64, f64)) {
        ((0.0, self.width as f64), (0.0, self.height as f64))
    }
}

/// Weights of the pixels for each of `to` pixels that show `first..last` of a row of `pixels`. At an edge of the row
/// the kernel is cut off.
fn weights(pixels: usize, (first, last): (f64, f64), to: usize) -> Vec<Vec<(usize, f64)>> {
    let scale = (last - first) / to as f64;
    let wide = scale.max(1.0);
    let kernel = |x: f64| {
        let sinc = |x: f64| {
            if x == 0.0 {
                1.0
            } else {
                (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x)
            }
        };
        if x.abs() < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 }
    };
    let taps = |i: usize| {
        let centre = first + (i as f64 + 0.5) * scale - 0.5;
        let taps: Vec<_> = (0..pixels)
            .map(|j| (j, kernel((j as f64 - centre) / wide)))
            .filter(|tap| tap.1 != 0.0)
            .collect();
        let total: f64 = taps.iter().map(|tap| tap.1).sum();
        taps.into_iter().map(|(j, weight)| (j, weight / total)).collect()
    };
    (0..to).map(taps).collect()
}

fn sum(taps: &[(usize, f64)], pixel: impl Fn(usize) -> [f64; 3]) -> [f64; 3] {
    taps.iter().fold([0.0; 3], |mut total, &(i, weight)| {
        for (total, value) in total.iter_mut().zip(pixel(i)) {
            *total += weight * value;
        }
        total
    })
}

/// Kr and Kb of a matrix.
const BT601: (f64, f64) = (0.299, 0.114);
const BT709: (f64, f64) = (0.2126, 0.0722);

/// Limited-range Y, Cb, Cr of an RGB pixel.
fn to_yuv([r, g, b]: [f64; 3], (kr, kb): (f64, f64)) -> [f64; 3] {
    let y = kr * r + (1.0 - kr - kb) * g + kb * b;
    let (cb, cr) = ((b - y) / (2.0 * (1.0 - kb)), (r - y) / (2.0 * (1.0 - kr)));
    [
        16.0 + y * 219.0 / 255.0,
        128.0 + cb * 224.0 / 255.0,
        128.0 + cr * 224.0 / 255.0,
    ]
}

fn to_rgb([y, cb, cr]: [f64; 3], (kr, kb): (f64, f64)) -> [f64; 3] {
    let (y, cb, cr) = (
        (y - 16.0) * 255.0 / 219.0,
        (cb - 128.0) * 255.0 / 224.0,
        (cr - 128.0) * 255.0 / 224.0,
    );
    let (r, b) = (y + 2.0 * (1.0 - kr) * cr, y + 2.0 * (1.0 - kb) * cb);
    [r, (y - kr * r - kb * b) / (1.0 - kr - kb), b]
}

fn byte(value: f64) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}

/// The photo in one of the formats, and the picture that plain arithmetic decodes from those bytes.
fn source(format: VideoFormat, width: usize, height: usize, matrix: (f64, f64)) -> (Raw, Image) {
    let rgb = photo(width, height);
    let image = Image {
        width,
        height,
        data: rgb.iter().map(|&v| f64::from(v)).collect(),
    };
    let luma = |x: usize, y: usize| byte(to_yuv(image.at(x, y), matrix)[0]);
    // Chroma of a block: the mean of its pixels.
    let chroma = |x: usize, y: usize, bw: usize, bh: usize, part: usize| {
        let (mut total, mut count) = (0.0, 0.0);
        for j in y * bh..((y + 1) * bh).min(height) {
            for i in x * bw..((x + 1) * bw).min(width) {
                total += to_yuv(image.at(i, j), matrix)[part];
                count += 1.0;
            }
        }
        byte(total / count)
    };
    let (cw, ch) = (width.div_ceil(2), height.div_ceil(2));
    let plane = |w: usize, h: usize, value: &dyn Fn(usize, usize) -> u8| {
        (w, h, (0..w * h).map(|i| value(i % w, i / w)).collect::<Vec<u8>>())
    };
    let (block, planes) = match format {
        VideoFormat::I420 => (
            (2, 2),
            vec![
                plane(width, height, &luma),
                plane(cw, ch, &|x, y| chroma(x, y, 2, 2, 1)),
                plane(cw, ch, &|x, y| chroma(x, y, 2, 2, 2)),
            ],
        ),
        VideoFormat::Nv12 | VideoFormat::Nv21 => {
            let first = if format == VideoFormat::Nv12 { 1 } else { 2 };
            let pair = |x: usize, y: usize| chroma(x / 2, y, 2, 2, if x.is_multiple_of(2) { first } else { 3 - first });
            ((2, 2), vec![plane(width, height, &luma), plane(2 * cw, ch, &pair)])
        }
        VideoFormat::Yuy2 | VideoFormat::Uyvy => {
            let swap = usize::from(format == VideoFormat::Uyvy);
            let value = |x: usize, y: usize| match (x + swap) % 4 {
                0 | 2 => luma((x / 2).min(width - 1), y),
                1 => chroma(x / 4, y, 2, 1, 1),
                _ => chroma(x / 4, y, 2, 1, 2),
            };
            ((2, 1), vec![plane(4 * cw, height, &value)])
        }
        VideoFormat::Bgrx => {
            let value = |x: usize, y: usize| {
                if x % 4 == 3 {
                    77
                } else {
                    rgb[(y * width + x / 4) * 3 + 2 - x % 4]
                }
            };
            ((0, 0), vec![plane(4 * width, height, &value)])
        }
        VideoFormat::Rgba => {
            let value = |x: usize, y: usize| {
                if x % 4 == 3 {
                    255
                } else {
                    rgb[(y * width + x / 4) * 3 + x % 4]
                }
            };
            ((0, 0), vec![plane(4 * width, height, &value)])
        }
        VideoFormat::Rgb => ((0, 0), vec![plane(3 * width, height, &|x, y| rgb[y * width * 3 + x])]),
        VideoFormat::Gray8 => {
            let value = |x: usize, y: usize| rgb[(y * width + x) * 3];
            let grey = Image::build(width, height, |x, y| [f64::from(value(x, y)); 3]);
            let planes = vec![plane(width, height, &value)];
            return (
                Raw {
                    format,
                    width,
                    height,
                    planes,
                },
                grey,
            );
        }
        other => panic!("no test source for {other:?}"),
    };
    let seen = match block {
        (0, 0) => image.clone(),
        (bw, bh) => Image::build(width, height, |x, y| {
            let yuv = [
                luma(x, y),
                chroma(x / bw, y / bh, bw, bh, 1),
                chroma(x / bw, y / bh, bw, bh, 2),
            ];
            to_rgb(yuv.map(f64::from), matrix).map(|v| v.clamp(0.0, 255.0))
        }),
    };
    (
        Raw {
            format,
            width,
            height,
            planes,
        },
        seen,
    )
}

/// The expected picture. Geometry, resampling and grey are computed in this file.
fn expected(seen: &Image, target: PictureTarget) -> Picture {
    let (sw, sh) = (seen.width as f64, seen.height as f64);
    let (tw, th) = (target.width as usize, target.height as usize);
    let (across, down) = seen.whole();
    let image = match target.resize {
        ResizeMode::None => seen.clone(),
        ResizeMode::Squash => seen.lanczos(across, down, (tw, th)),
        ResizeMode::FitShortest => {
            let scale = (tw as f64 / sw).max(th as f64 / sh);
            let edges = |length: f64, shown: f64| ((length - shown) / 2.0, (length + shown) / 2.0);
            seen.lanczos(edges(sw, tw as f64 / scale), edges(sh, th as f64 / scale), (tw, th))
        }
        ResizeMode::FitLongest => {
            let scale = (tw as f64 / sw).min(th as f64 / sh);
            let (w, h) = ((sw * scale).round() as usize, (sh * scale).round() as usize);
            let small = seen.lanczos(across, down, (w, h));
            let (left, top) = ((tw - w) / 2, (th - h) / 2);
            Image::build(tw, th, |x, y| {
                let inside = (left..left + w).contains(&x) && (top..top + h).contains(&y);
                if inside { small.at(x - left, y - top) } else { [0.0; 3] }
            })
        }
    };
    let pixel = |rgb: &[f64]| -> Vec<u8> {
        if target.grey {
            vec![byte(
                BT601.0 * rgb[0] + (1.0 - BT601.0 - BT601.1) * rgb[1] + BT601.1 * rgb[2],
            )]
        } else {
            rgb.iter().map(|&v| byte(v)).collect()
        }
    };
    Picture {
        width: image.width as u32,
        height: image.height as u32,
        grey: target.grey,
        data: image.data.chunks_exact(3).flat_map(pixel).collect(),
    }
}

/// The colorimetry that a camera states for this format.
fn colours(format: VideoFormat) -> &'static str {
    match format {
        VideoFormat::Bgrx | VideoFormat::Rgba | VideoFormat::Rgb => "sRGB",
        VideoFormat::Gray8 => "1:4:0:0",
        _ => "bt601",
    }
}

/// Accepted mean and largest difference. Values are rounded to 8 bits three times (RGB, rows, columns), those of YUV
/// once more before. Overshoots at hard edges are clipped to 0 and 255 between rows and columns.
const TOLERANCE: (f64, u8) = (0.9, 4);

const FORMATS: [VideoFormat; 9] = [
    VideoFormat::I420,
    VideoFormat::Nv12,
    VideoFormat::Nv21,
    VideoFormat::Yuy2,
    VideoFormat::Uyvy,
    VideoFormat::Bgrx,
    VideoFormat::Rgba,
    VideoFormat::Rgb,
    VideoFormat::Gray8,
];

#[test]
fn every_mode_and_format_gives_the_picture_of_the_reference() {
    for format in FORMATS {
        // The crop ends at even, odd and fractional columns and rows.
        for (width, height, padding) in [(80, 60, 0), (80, 60, 36), (59, 75, 12), (85, 50, 0), (60, 49, 4)] {
            let (raw, seen) = source(format, width, height, BT601);
            let frame = raw.frame(padding, colours(format));
            for resize in MODES {
                for grey in [false, true] {
                    for (tw, th) in [(32, 32), (75, 49), (65, 48), (100, 90)] {
                        let target = PictureTarget {
                            width: tw,
                            height: th,
                            grey,
                            resize,
                        };
                        let picture = converted(&mut Converter::new(target), &frame);
                        let (mean, max) = difference(&picture, &expected(&seen, target));
                        assert!(
                            mean <= TOLERANCE.0 && max <= TOLERANCE.1,
                            "{format:?} {width}x{height}+{padding} {target:?}: mean {mean:.2}, largest {max}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_matrix_of_the_source_is_honoured() {
    for format in FORMATS.into_iter().filter(|format| colours(*format) == "bt601") {
        let (raw, seen) = source(format, 160, 120, BT709);
        let frame = raw.frame(0, "bt709");
        for grey in [false, true] {
            for (width, height) in [(80, 60), (160, 120)] {
                let target = PictureTarget {
                    width,
                    height,
                    grey,
                    resize: ResizeMode::Squash,
                };
                let picture = converted(&mut Converter::new(target), &frame);
                let (mean, max) = difference(&picture, &expected(&seen, target));
                assert!(
                    mean <= TOLERANCE.0 && max <= TOLERANCE.1,
                    "{format:?} {target:?}: mean {mean:.2}, largest {max}"
                );
            }
        }
    }
}

#[test]
fn white_is_white_in_grey_whatever_the_matrix() {
    for (format, bytes) in [(VideoFormat::Uyvy, [128, 235]), (VideoFormat::Yuy2, [235, 128])] {
        for colours in ["bt601", "bt709"] {
            for size in [64, 24] {
                let raw = Raw {
                    format,
                    width: 64,
                    height: 64,
                    planes: vec![(128, 64, bytes.repeat(64 * 64))],
                };
                let target = PictureTarget {
                    width: size,
                    height: size,
                    grey: true,
                    resize: ResizeMode::Squash,
                };
                let picture = converted(&mut Converter::new(target), &raw.frame(0, colours));
                let darkest = picture.data.iter().min().unwrap();
                assert!(*darkest >= 254, "{format:?} {colours} to {size}: {darkest}");
            }
        }
    }
}

#[test]
fn fine_stripes_do_not_alias() {
    // Columns of black and white, one pixel wide. A reduced picture of them is an even grey.
    let data = (0..640 * 480).map(|i| if i % 2 == 0 { 0 } else { 255 }).collect();
    let raw = Raw {
        format: VideoFormat::Gray8,
        width: 640,
        height: 480,
        planes: vec![(640, 480, data)],
    };
    let target = PictureTarget {
        width: 96,
        height: 96,
        grey: true,
        resize: ResizeMode::Squash,
    };
    let picture = converted(&mut Converter::new(target), &raw.frame(0, "1:4:0:0"));
    let inner = picture.data.chunks_exact(96).flat_map(|row| &row[2..94]);
    assert!(
        inner.clone().all(|v| v.abs_diff(128) <= 12),
        "{:?}..{:?}",
        inner.clone().min(),
        inner.max()
    );
}

#[test]
fn a_flat_frame_keeps_its_brightness_at_every_size() {
    for size in 32..=320 {
        let raw = Raw {
            format: VideoFormat::Gray8,
            width: 640,
            height: 480,
            planes: vec![(640, 480, vec![200; 640 * 480])],
        };
        let target = PictureTarget {
            width: size,
            height: size,
            grey: true,
            resize: ResizeMode::Squash,
        };
        let picture = converted(&mut Converter::new(target), &raw.frame(0, "1:4:0:0"));
        assert!(
            picture.data.iter().all(|v| v.abs_diff(200) <= 1),
            "size {size}: {:?}",
            picture.data.iter().max()
        );
    }
}

#[test]
fn a_new_format_within_a_stream_is_accepted_and_the_memory_is_reused() {
    let target = PictureTarget {
        width: 32,
        height: 32,
        grey: false,
        resize: ResizeMode::None,
    };
    let mut converter = Converter::new(target);
    let mut picture = Picture::default();
    let large = source(VideoFormat::Nv12, 64, 48, BT601).0.frame(0, "bt601");
    converter.convert(&large, &mut picture).unwrap();
    assert_eq!(
        (picture.width, picture.height, picture.data.len()),
        (64, 48, 64 * 48 * 3)
    );
    let memory = picture.data.as_ptr();
    let small = source(VideoFormat::Yuy2, 33, 17, BT601).0.frame(8, "bt601");
    converter.convert(&small, &mut picture).unwrap();
    assert_eq!(
        (picture.width, picture.height, picture.data.len()),
        (33, 17, 33 * 17 * 3)
    );
    converter.convert(&large, &mut picture).unwrap();
    assert_eq!(picture.data.as_ptr(), memory, "the same memory from frame to frame");
}

#[test]
fn a_frame_that_is_no_picture_is_an_error_and_the_next_frame_is_converted() {
    super::init().unwrap();
    let mut converter = Converter::new(PictureTarget {
        width: 32,
        height: 32,
        grey: false,
        resize: ResizeMode::Squash,
    });
    let mut picture = Picture::default();
    let good = source(VideoFormat::I420, 64, 48, BT601).0.frame(0, "bt601");
    let with = |caps: Option<&str>, size: Option<usize>| {
        let caps = caps.map(|text| text.parse::<gst::Caps>().unwrap());
        let buffer = size.map(|size| gst::Buffer::with_size(size).unwrap());
        let mut sample = gst::Sample::builder();
        if let Some(caps) = &caps {
            sample = sample.caps(caps);
        }
        if let Some(buffer) = &buffer {
            sample = sample.buffer(buffer);
        }
        Frame {
            sample: sample.build(),
            at: good.at,
        }
    };
    let raw = "video/x-raw,format=I420,width=64,height=48,framerate=30/1";
    let mut failure = |frame: Frame| converter.convert(&frame, &mut picture).unwrap_err();
    assert_eq!(failure(with(Some(raw), None)), ConvertError::Empty);
    assert_eq!(failure(with(None, Some(10))), ConvertError::Empty);
    assert!(matches!(
        failure(with(Some("image/jpeg"), Some(10))),
        ConvertError::Format { .. }
    ));
    assert!(matches!(
        failure(with(Some(raw), Some(10))),
        ConvertError::Failed { .. }
    ));
    converter.convert(&good, &mut picture).unwrap();
    assert_eq!(picture.data.len(), 32 * 32 * 3);
}

#[test]
fn a_last_row_without_its_padding_is_read_and_a_shorter_one_is_refused() {
    let target = PictureTarget {
        width: 32,
        height: 32,
        grey: false,
        resize: ResizeMode::Squash,
    };
    for format in [
        VideoFormat::Yuy2,
        VideoFormat::Bgrx,
        VideoFormat::Rgb,
        VideoFormat::Gray8,
    ] {
        let padding = 36;
        let (raw, seen) = source(format, 64, 48, BT601);
        let frame = raw.frame(padding, colours(format));
        let without = |bytes: usize| {
            let mut buffer = frame.sample.buffer_owned().unwrap();
            let size = buffer.size() - bytes;
            buffer.make_mut().set_size(size);
            Frame {
                sample: gst::Sample::builder()
                    .buffer(&buffer)
                    .caps(&frame.sample.caps_owned().unwrap())
                    .build(),
                at: frame.at,
            }
        };
        let picture = converted(&mut Converter::new(target), &without(padding));
        let (mean, max) = difference(&picture, &expected(&seen, target));
        assert!(
            mean <= TOLERANCE.0 && max <= TOLERANCE.1,
            "{format:?}: mean {mean:.2}, largest {max}"
        );
        let refused = Converter::new(target).convert(&without(padding + 1), &mut Picture::default());
        assert!(
            matches!(refused, Err(ConvertError::Failed { .. })),
            "{format:?}: {refused:?}"
        );
    }
}
