//! Compares pictures with those of Pillow in every resize mode, and in every raw format that GStreamer knows.

use std::path::Path;

use gstreamer_video::VideoFormat;

use super::convert::{Converter, Picture, PictureTarget};
use super::frame::Frame;
use super::testing::{converted, difference, exact_rgb, in_format, photo, rgb_frame};
use crate::config::ResizeMode;

const SIZES: [(u32, u32); 3] = [(32, 32), (27, 41), (110, 90)];
const MODES: [(ResizeMode, &str); 3] = [
    (ResizeMode::Squash, "squash"),
    (ResizeMode::FitShortest, "fit-shortest"),
    (ResizeMode::FitLongest, "fit-longest"),
];

/// A picture from tests/data/pictures.
fn stored(name: &str, grey: bool) -> Picture {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/pictures/{name}.png"));
    let image = image::open(&path).unwrap();
    let (width, height) = (image.width(), image.height());
    let data = if grey {
        image.into_luma8().into_raw()
    } else {
        image.into_rgb8().into_raw()
    };
    Picture {
        width,
        height,
        grey,
        data,
    }
}

fn frame_of(picture: &Picture) -> Frame {
    rgb_frame(picture.width as usize, picture.height as usize, picture.data.clone())
}

fn target((width, height): (u32, u32), grey: bool, resize: ResizeMode) -> PictureTarget {
    PictureTarget {
        width,
        height,
        grey,
        resize,
    }
}

#[test]
fn pictures_are_those_of_pillow() {
    for source in ["wide", "upright"] {
        let original = stored(source, false);
        let frame = frame_of(&original);
        for (mode, name) in MODES {
            for size in SIZES {
                for (grey, colours) in [(false, "RGB"), (true, "L")] {
                    let picture = converted(&mut Converter::new(target(size, grey, mode)), &frame);
                    let name = format!("{name}-{source}-{}x{}-{colours}", size.0, size.1);
                    let (mean, max) = difference(&picture, &stored(&name, grey));
                    assert!(mean <= 0.02 && max <= 3, "{name}: mean {mean:.3}, largest {max}");
                }
            }
        }
        let untouched = converted(&mut Converter::new(target((0, 0), false, ResizeMode::None)), &frame);
        assert_eq!(untouched, original);
    }
}

#[test]
fn yuv_frames_give_the_pictures_of_the_rgb_that_videoconvert_makes_of_them() {
    let formats = [
        VideoFormat::I420,
        VideoFormat::Yv12,
        VideoFormat::Nv12,
        VideoFormat::Nv21,
        VideoFormat::Y42b,
        VideoFormat::Nv16,
        VideoFormat::Yuy2,
        VideoFormat::Uyvy,
        VideoFormat::Y444,
        VideoFormat::Nv24,
        VideoFormat::P01010le,
        VideoFormat::I42010le,
        VideoFormat::I42210le,
        VideoFormat::I42012le,
        VideoFormat::I42212le,
    ];
    let mut failures = Vec::new();
    for format in formats {
        for colorimetry in ["bt601", "bt709", "bt2020", "1:4:0:0"] {
            let original = rgb_frame(97, 61, photo(97, 61));
            let yuv = in_format(&original, format, Some(colorimetry)).unwrap();
            let rgb = exact_rgb(&yuv);
            for (resize, _) in MODES {
                for size in [(32, 32), (47, 29), (110, 90)] {
                    for grey in [false, true] {
                        let mut converter = Converter::new(target(size, grey, resize));
                        let (ours, theirs) = (converted(&mut converter, &yuv), converted(&mut converter, &rgb));
                        let (mean, max) = difference(&ours, &theirs);
                        // One level more than for RGB. Where a picture is enlarged, the kernel amplifies the rounding
                        // errors of GStreamer's 8-bit matrix.
                        if mean > 1.3 || max > if size.0 > 97 { 5 } else { 4 } {
                            failures.push(format!(
                                "{format:?} {colorimetry} {resize:?} {size:?} grey={grey}: mean {mean:.3}, largest {max}"
                            ));
                        }
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Centre of the bright pixels.
fn centre(picture: &Picture) -> (f64, f64) {
    let (mut x, mut y, mut count) = (0.0, 0.0, 0.0);
    let channels = picture.data.len() / picture.pixels();
    for (index, pixel) in picture.data.chunks_exact(channels).enumerate() {
        if pixel.iter().all(|value| *value > 140) {
            x += (index % picture.width as usize) as f64 + 0.5;
            y += (index / picture.width as usize) as f64 + 0.5;
            count += 1.0;
        }
    }
    assert!(count > 0.0, "there is no ball");
    (x / count, y / count)
}

/// A white ball on dark red.
fn with_ball((width, height): (usize, usize), (x, y): (f64, f64), radius: f64) -> Frame {
    let pixel = |at: usize| {
        let (dx, dy) = ((at % width) as f64 + 0.5 - x, (at / width) as f64 + 0.5 - y);
        if dx.hypot(dy) < radius { [250; 3] } else { [90, 20, 20] }
    };
    rgb_frame(width, height, (0..width * height).flat_map(pixel).collect())
}

#[test]
fn the_ball_is_where_it_is_in_every_raw_format_whatever_is_cut_off() {
    super::init().unwrap();
    let mut seen = 0;
    for format in VideoFormat::iter_raw() {
        // The crop removes 17 columns on either side, or 29.125, or 15.5 rows. The ball touches the edge of the rest.
        for (size, ball, model) in [
            ((130, 96), (29.0, 41.0), (96, 96)),
            ((130, 96), (101.0, 60.0), (96, 96)),
            ((131, 97), (41.0, 30.0), (48, 64)),
            ((131, 97), (90.0, 60.0), (48, 64)),
            ((97, 128), (50.0, 27.0), (64, 64)),
            ((97, 128), (40.0, 100.0), (64, 64)),
        ] {
            let original = with_ball(size, ball, 9.0);
            let frame = in_format(&original, format, None).unwrap_or_else(|| panic!("no frame in {format:?}"));
            let (width, height) = (size.0 as f64, size.1 as f64);
            let scale = (f64::from(model.0) / width).max(f64::from(model.1) / height);
            let index = |at: f64, length: f64, pixels: u32| (at - length / 2.0) * scale + f64::from(pixels) / 2.0;
            let wanted = (index(ball.0, width, model.0), index(ball.1, height, model.1));
            for grey in [false, true] {
                let mut converter = Converter::new(target(model, grey, ResizeMode::FitShortest));
                let found = centre(&converted(&mut converter, &frame));
                let off = (found.0 - wanted.0).hypot(found.1 - wanted.1);
                assert!(
                    off < 0.75,
                    "{format:?} {size:?} into {model:?}, grey={grey}: {found:?} instead of {wanted:?}"
                );
            }
        }
        seen += 1;
    }
    assert!(seen >= 60, "GStreamer knows only {seen} formats");
}
