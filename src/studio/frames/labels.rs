//! Maps the boxes of a result to the frame of the camera.

use crate::capture::PictureTarget;
use crate::capture::geometry::Layout;
use crate::model::BoundingBox;
use crate::studio::upload::LabelledBox;

/// The boxes in pixels of a frame of this size. What lies beyond the edge of the frame, as in the border of `fit-longest`, is cut.
pub(super) fn boxes_in_frame(boxes: &[BoundingBox], frame: (u32, u32), target: PictureTarget) -> Vec<LabelledBox> {
    let layout = Layout::new(frame, (target.width, target.height), target.resize);
    let (source, dest) = (layout.source, layout.dest);
    let scale_x = source.width / f64::from(dest.width);
    let scale_y = source.height / f64::from(dest.height);
    let across = |x: f64| source.x + (x - f64::from(dest.x)) * scale_x;
    let down = |y: f64| source.y + (y - f64::from(dest.y)) * scale_y;
    let mapped = boxes.iter().filter_map(|found| {
        let (x, y) = (found.x as f64, found.y as f64);
        let (x, width) = whole_pixels(across(x), across(x + found.width as f64), frame.0)?;
        let (y, height) = whole_pixels(down(y), down(y + found.height as f64), frame.1)?;
        Some(LabelledBox {
            label: found.label.clone(),
            x,
            y,
            width,
            height,
        })
    });
    mapped.collect()
}

/// The first pixel and the number of pixels, at least 1; `None`: all of it is beyond the edge.
fn whole_pixels(from: f64, to: f64, limit: u32) -> Option<(u32, u32)> {
    let end = f64::from(limit);
    if to <= 0.0 || from >= end || to <= from {
        return None;
    }
    let first = (from.max(0.0).round() as u32).min(limit.saturating_sub(1));
    let last = to.min(end).round() as u32;
    Some((first, last.saturating_sub(first).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ResizeMode;

    const FRAME: (u32, u32) = (640, 480);

    fn map(resize: ResizeMode, (x, y, width, height): (i64, i64, i64, i64)) -> Option<(u32, u32, u32, u32)> {
        let target = PictureTarget {
            width: 320,
            height: 320,
            grey: false,
            resize,
        };
        let found = BoundingBox {
            label: "car".to_owned(),
            value: 0.5,
            x,
            y,
            width,
            height,
            object_id: None,
        };
        let mapped = boxes_in_frame(&[found], FRAME, target);
        mapped.first().map(|b| (b.x, b.y, b.width, b.height))
    }

    #[test]
    fn squash_stretches_each_side_by_itself() {
        let mapped = map(ResizeMode::Squash, (32, 64, 100, 80));
        assert_eq!(mapped, Some((64, 96, 200, 120)));
        assert_eq!(map(ResizeMode::Squash, (0, 0, 320, 320)), Some((0, 0, 640, 480)));
    }

    #[test]
    fn fit_shortest_adds_the_cropped_side() {
        // 480 of the 640 columns are seen, from column 80 on.
        let mapped = map(ResizeMode::FitShortest, (0, 0, 320, 320));
        assert_eq!(mapped, Some((80, 0, 480, 480)));
        assert_eq!(
            map(ResizeMode::FitShortest, (32, 64, 100, 80)),
            Some((128, 96, 150, 120))
        );
    }

    #[test]
    fn fit_longest_removes_the_border() {
        // The picture fills the rows 40 to 280.
        assert_eq!(map(ResizeMode::FitLongest, (32, 60, 100, 80)), Some((64, 40, 200, 160)));
        assert_eq!(map(ResizeMode::FitLongest, (0, 0, 320, 320)), Some((0, 0, 640, 480)));
        assert_eq!(map(ResizeMode::FitLongest, (0, 0, 100, 40)), None, "only the border");
    }

    #[test]
    fn none_keeps_the_pixels() {
        assert_eq!(map(ResizeMode::None, (600, 400, 30, 70)), Some((600, 400, 30, 70)));
    }

    #[test]
    fn a_box_beyond_the_edge_is_cut_and_an_empty_one_left_out() {
        assert_eq!(map(ResizeMode::Squash, (-50, 300, 100, 80)), Some((0, 450, 100, 30)));
        assert_eq!(map(ResizeMode::Squash, (320, 0, 10, 10)), None);
        assert_eq!(map(ResizeMode::Squash, (10, 10, 0, 5)), None);
        assert_eq!(map(ResizeMode::Squash, (i64::MAX, i64::MIN, 5, 5)), None);
        assert_eq!(map(ResizeMode::Squash, (i64::MIN, 0, -5, 5)), None);
    }
}
