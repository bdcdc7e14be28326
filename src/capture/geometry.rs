//! Computes which part of a frame is shown where in the model's picture.

use crate::config::ResizeMode;

/// A rectangle in whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// Left edge.
    pub x: u32,
    /// Top edge.
    pub y: u32,
    /// Width, at least 1.
    pub width: u32,
    /// Height, at least 1.
    pub height: u32,
}

impl Rect {
    /// All of a picture of this size.
    pub fn whole(width: u32, height: u32) -> Self {
        Self {
            x: 0,
            y: 0,
            width,
            height,
        }
    }
}

/// A rectangle whose edges may lie within pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    /// Left edge.
    pub x: f64,
    /// Top edge.
    pub y: f64,
    /// Width, at least 1.
    pub width: f64,
    /// Height, at least 1.
    pub height: f64,
}

/// How a frame is placed into a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layout {
    /// Width of the picture.
    pub width: u32,
    /// Height of the picture.
    pub height: u32,
    /// The part of the frame that is shown.
    pub source: Area,
    /// The part of the picture it fills; the rest is black.
    pub dest: Rect,
}

impl Layout {
    /// Places a frame of `source` (width, height) into a picture of `target` size. All four are at least 1 (a zero is
    /// taken as 1). With [`ResizeMode::None`] the picture has the frame's size and `target` does not matter.
    pub fn new(source: (u32, u32), target: (u32, u32), mode: ResizeMode) -> Self {
        let (sw, sh) = (source.0.max(1), source.1.max(1));
        let (tw, th) = match mode {
            ResizeMode::None => (sw, sh),
            _ => (target.0.max(1), target.1.max(1)),
        };
        let (width, height) = (f64::from(sw), f64::from(sh));
        let mut from = Area {
            x: 0.0,
            y: 0.0,
            width,
            height,
        };
        let mut to = Rect::whole(tw, th);
        // The frame is wider than the picture when sw/sh > tw/th.
        let wider = u64::from(sw) * u64::from(th) > u64::from(tw) * u64::from(sh);
        match mode {
            ResizeMode::Squash | ResizeMode::None => {}
            ResizeMode::FitShortest if wider => {
                from.width = (f64::from(tw) * height / f64::from(th)).clamp(1.0, width);
                from.x = (width - from.width) / 2.0;
            }
            ResizeMode::FitShortest => {
                from.height = (f64::from(th) * width / f64::from(tw)).clamp(1.0, height);
                from.y = (height - from.height) / 2.0;
            }
            ResizeMode::FitLongest if wider => {
                to.height = scaled(sh, tw, sw, th);
                to.y = (th - to.height) / 2;
            }
            ResizeMode::FitLongest => {
                to.width = scaled(sw, th, sh, tw);
                to.x = (tw - to.width) / 2;
            }
        }
        Self {
            width: tw,
            height: th,
            source: from,
            dest: to,
        }
    }

    /// Whether a part of the picture stays black.
    pub fn has_border(&self) -> bool {
        self.dest != Rect::whole(self.width, self.height)
    }

    /// Whether the visible part is scaled or begins within a pixel: horizontally, vertically.
    pub(super) fn is_scaled(&self) -> (bool, bool) {
        let (shown, dest) = (self.source, self.dest);
        (
            lanczos::is_scaled(shown.x, shown.width, dest.width),
            lanczos::is_scaled(shown.y, shown.height, dest.height),
        )
    }

    /// The pixels of a frame of `size` that Lanczos-3 reads for the visible part. At its edge the kernel reaches beyond
    /// it.
    pub(super) fn read_for_lanczos(&self, size: (u32, u32)) -> Rect {
        let along = |is_scaled: bool, start: f64, length: f64, pixels: u32, limit: u32| {
            let scale = length / f64::from(pixels);
            let reach = if is_scaled { 3.0 * scale.max(1.0) + 1.0 } else { 0.0 };
            let first = (start - reach).floor().max(0.0) as u32;
            let end = (start + length + reach).ceil().min(f64::from(limit)) as u32;
            (first, end - first)
        };
        let (across, down) = self.is_scaled();
        let (x, width) = along(across, self.source.x, self.source.width, self.dest.width, size.0);
        let (y, height) = along(down, self.source.y, self.source.height, self.dest.height, size.1);
        Rect { x, y, width, height }
    }
}

/// `length * numerator / denominator` to the nearest whole pixel, within 1..=limit.
fn scaled(length: u32, numerator: u32, denominator: u32, limit: u32) -> u32 {
    let denominator = u64::from(denominator);
    let exact = u64::from(length) * u64::from(numerator);
    let nearest = (exact + denominator / 2) / denominator;
    nearest.clamp(1, u64::from(limit)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect { x, y, width, height }
    }

    fn area(x: f64, y: f64, width: f64, height: f64) -> Area {
        Area { x, y, width, height }
    }

    #[test]
    fn squash_uses_everything() {
        let layout = Layout::new((640, 480), (320, 320), ResizeMode::Squash);
        assert_eq!(layout.source, area(0.0, 0.0, 640.0, 480.0));
        assert_eq!(layout.dest, rect(0, 0, 320, 320));
    }

    #[test]
    fn fit_shortest_crops_the_long_side_in_the_middle() {
        let layout = Layout::new((640, 480), (320, 320), ResizeMode::FitShortest);
        assert_eq!(layout.source, area(80.0, 0.0, 480.0, 480.0));
        assert_eq!(layout.dest, rect(0, 0, 320, 320));
        let upright = Layout::new((480, 640), (96, 96), ResizeMode::FitShortest);
        assert_eq!(upright.source, area(0.0, 80.0, 480.0, 480.0));
        let fraction = Layout::new((131, 97), (48, 64), ResizeMode::FitShortest);
        assert_eq!(fraction.source, area(29.125, 0.0, 72.75, 97.0));
    }

    #[test]
    fn fit_longest_leaves_equal_borders() {
        let layout = Layout::new((640, 480), (320, 320), ResizeMode::FitLongest);
        assert_eq!(layout.source, area(0.0, 0.0, 640.0, 480.0));
        assert_eq!(layout.dest, rect(0, 40, 320, 240));
        let upright = Layout::new((480, 640), (320, 320), ResizeMode::FitLongest);
        assert_eq!(upright.dest, rect(40, 0, 240, 320));
    }

    #[test]
    fn none_keeps_the_size_of_the_frame() {
        let layout = Layout::new((641, 479), (320, 320), ResizeMode::None);
        assert_eq!((layout.width, layout.height), (641, 479));
        assert_eq!(layout.source, area(0.0, 0.0, 641.0, 479.0));
        assert_eq!(layout.dest, rect(0, 0, 641, 479));
    }

    #[test]
    fn extreme_shapes_keep_at_least_one_pixel() {
        let layout = Layout::new((10_000, 1), (32, 32), ResizeMode::FitLongest);
        assert_eq!(layout.dest, rect(0, 15, 32, 1));
        let layout = Layout::new((1, 10_000), (32, 1), ResizeMode::FitShortest);
        assert_eq!((layout.source.width, layout.source.height), (1.0, 1.0));
    }

    fn inside(part: Rect, width: u32, height: u32) -> bool {
        part.width >= 1 && part.height >= 1 && part.x + part.width <= width && part.y + part.height <= height
    }

    proptest! {
        #[test]
        fn parts_are_inside_centred_and_keep_the_aspect(
            sw in 1u32..5000, sh in 1u32..5000, tw in 1u32..2000, th in 1u32..2000,
            mode in prop::sample::select(vec![
                ResizeMode::Squash, ResizeMode::FitShortest, ResizeMode::FitLongest, ResizeMode::None,
            ]),
        ) {
            let layout = Layout::new((sw, sh), (tw, th), mode);
            prop_assert!(inside(layout.dest, layout.width, layout.height));
            let shown = layout.source;
            for (start, length, limit) in [(shown.x, shown.width, sw), (shown.y, shown.height, sh)] {
                let after = f64::from(limit) - start - length;
                prop_assert!(start >= 0.0 && length >= 1.0 && after > -1e-9);
                prop_assert!((start - after).abs() < 1e-9, "source is off the middle: {layout:?}");
            }
            let read = layout.read_for_lanczos((sw, sh));
            prop_assert!(inside(read, sw, sh));
            prop_assert!(f64::from(read.x) <= shown.x && f64::from(read.x + read.width) >= shown.x + shown.width - 1e-9);
            let (top, bottom) = (layout.dest.y, layout.height - layout.dest.y - layout.dest.height);
            prop_assert!(bottom >= top && bottom - top <= 1, "picture is off the middle: {layout:?}");

            let scale_x = f64::from(layout.dest.width) / shown.width;
            let scale_y = f64::from(layout.dest.height) / shown.height;
            match mode {
                // The other side, computed without rounding, is within half a pixel of what was chosen.
                ResizeMode::FitLongest => {
                    let scale = (f64::from(tw) / f64::from(sw)).min(f64::from(th) / f64::from(sh));
                    prop_assert!((f64::from(sw) * scale - f64::from(layout.dest.width)).abs() <= 1.0);
                    prop_assert!((f64::from(sh) * scale - f64::from(layout.dest.height)).abs() <= 1.0);
                    prop_assert!(layout.dest.width == tw || layout.dest.height == th);
                }
                ResizeMode::FitShortest => {
                    let scale = (f64::from(tw) / f64::from(sw)).max(f64::from(th) / f64::from(sh));
                    prop_assert!((f64::from(tw) / scale - shown.width).abs() <= 1.0);
                    prop_assert!((f64::from(th) / scale - shown.height).abs() <= 1.0);
                    prop_assert!(shown.width == f64::from(sw) || shown.height == f64::from(sh));
                }
                ResizeMode::Squash => prop_assert!(shown.width == f64::from(sw) && layout.dest.width == tw),
                ResizeMode::None => prop_assert!(scale_x == 1.0 && scale_y == 1.0),
            }
        }
    }
}
