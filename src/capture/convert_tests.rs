//! Converted pictures against a reference written here in plain Rust, independent of GStreamer.

use gstreamer_video::{VideoChromaMode, VideoFormat, VideoResamplerMethod};

use super::convert::{ConvertError, Converter, Picture, Resampling, Target};
use super::testing::{Raw, photo};
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

    fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Self {
        Self::build(width, height, |i, j| self.at(x + i, y + j))
    }

    /// Lanczos with three lobes, widened by the factor when it makes smaller, so that nothing aliases.
    fn lanczos(&self, width: usize, height: usize) -> Self {
        let (across, down) = (weights(self.width, width), weights(self.height, height));
        let rows = Self::build(width, self.height, |x, y| sum(&across[x], |i| self.at(i, y)));
        Self::build(width, height, |x, y| sum(&down[y], |j| rows.at(x, j)))
    }
}

fn weights(from: usize, to: usize) -> Vec<Vec<(usize, f64)>> {
    let scale = from as f64 / to as f64;
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
        let centre = (i as f64 + 0.5) * scale - 0.5;
        let first = (centre - 3.0 * wide).ceil() as i64;
        let last = (centre + 3.0 * wide).floor() as i64;
        let taps: Vec<_> = (first..=last)
            .map(|j| (j.clamp(0, from as i64 - 1) as usize, kernel((j as f64 - centre) / wide)))
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

/// The photo in one of the formats, and what a person who decodes those bytes by hand sees.
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

/// The expected picture: own geometry, own resampling, own grey.
fn expected(seen: &Image, target: Target) -> Picture {
    let (sw, sh) = (seen.width as f64, seen.height as f64);
    let (tw, th) = (target.width as usize, target.height as usize);
    let even = |space: f64| (space / 2.0).floor() as usize & !1;
    let image = match target.resize {
        ResizeMode::None => seen.clone(),
        ResizeMode::Squash => seen.lanczos(tw, th),
        ResizeMode::FitShortest => {
            let scale = (tw as f64 / sw).max(th as f64 / sh);
            let (w, h) = ((tw as f64 / scale).round(), (th as f64 / scale).round());
            seen.crop(even(sw - w), even(sh - h), w as usize, h as usize)
                .lanczos(tw, th)
        }
        ResizeMode::FitLongest => {
            let scale = (tw as f64 / sw).min(th as f64 / sh);
            let (w, h) = ((sw * scale).round() as usize, (sh * scale).round() as usize);
            let small = seen.lanczos(w, h);
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

/// Mean and largest difference.
fn difference(a: &Picture, b: &Picture) -> (f64, u8) {
    assert_eq!((a.width, a.height, a.grey), (b.width, b.height, b.grey));
    let channels = if a.grey { 1 } else { 3 };
    assert_eq!(
        a.data.len(),
        (a.width * a.height) as usize * channels,
        "the picture is tight"
    );
    assert_eq!(a.data.len(), b.data.len());
    let differences = a.data.iter().zip(&b.data).map(|(a, b)| a.abs_diff(*b));
    let total: u64 = differences.clone().map(u64::from).sum();
    (total as f64 / a.data.len() as f64, differences.max().unwrap_or(0))
}

#[test]
#[ignore = "prints figures"]
fn compare_methods() {
    for (sw, sh, tw, th) in [
        (640, 480, 320, 320),
        (640, 480, 96, 96),
        (1280, 720, 160, 160),
        (320, 240, 320, 320),
    ] {
        for format in [
            VideoFormat::I420,
            VideoFormat::Nv12,
            VideoFormat::Yuy2,
            VideoFormat::Bgrx,
        ] {
            let (raw, seen) = source(format, sw, sh, BT601);
            let frame = raw.frame(0, "bt601");
            for grey in [false, true] {
                let target = Target {
                    width: tw,
                    height: th,
                    grey,
                    resize: ResizeMode::Squash,
                };
                let wanted = expected(&seen, target);
                for method in [
                    VideoResamplerMethod::Nearest,
                    VideoResamplerMethod::Linear,
                    VideoResamplerMethod::Cubic,
                    VideoResamplerMethod::Sinc,
                    VideoResamplerMethod::Lanczos,
                ] {
                    for chroma in [VideoChromaMode::None, VideoChromaMode::Full] {
                        let mut converter = Converter::with_resampling(target, Resampling { method, chroma });
                        let mut picture = Picture::default();
                        converter.convert(&frame, &mut picture).unwrap();
                        let (mean, max) = difference(&picture, &wanted);
                        let start = std::time::Instant::now();
                        let mut count = 0;
                        while start.elapsed().as_millis() < 150 {
                            converter.convert(&frame, &mut picture).unwrap();
                            count += 1;
                        }
                        let rate = f64::from(count) / start.elapsed().as_secs_f64();
                        println!(
                            "{format:?} {sw}x{sh}->{tw}x{th} grey={grey} {method:?} {chroma:?}: mean {mean:.2} max {max} {rate:.0}/s"
                        );
                    }
                }
            }
        }
    }
}
