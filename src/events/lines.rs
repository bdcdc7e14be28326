//! Crossings of lines.

use super::event::LineTotals;
use super::state::add_count;
use super::tracker::FractionBox;
use crate::config::{CountingLine, LineDirections};
use crate::util::geometry::{Point, segments_meet};

/// An anchor counts as beside the line from this part of the box's shorter side on. A detection jitters less.
const MARGIN: f64 = 0.1;
/// The bounds of that distance, as fractions of the picture.
const MARGIN_BOUNDS: (f64, f64) = (0.004, 0.03);
/// Most labels that are counted apart for a line. Further ones are counted as [`OTHER`].
const MAX_LABELS: usize = 64;
const OTHER: &str = "(other)";

/// On which side of a line an object was last, clearly.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LineSide {
    last: Option<(Point, bool)>,
}

impl LineSide {
    /// Takes the next position of an object. Returns whether it has crossed the line, and if so, whether forward. Positions on the
    /// line, or nearly, decide nothing: an object that stands there and jitters does not cross it again and again.
    pub fn observe(&mut self, line: &CountingLine, place: &FractionBox) -> Option<bool> {
        let point = place.anchor(line.anchor);
        let progress = line.progress(point);
        let margin = (MARGIN * place.width.min(place.height)).clamp(MARGIN_BOUNDS.0, MARGIN_BOUNDS.1);
        if !progress.is_finite() || progress.abs() <= margin {
            return None;
        }
        let is_beyond = progress > 0.0;
        let (from, was_beyond) = self.last.replace((point, is_beyond))?;
        (was_beyond != is_beyond && segments_meet((from, point), (line.from, line.to))).then_some(is_beyond)
    }
}

/// Counts a crossing. `None`: this direction is not counted.
pub(super) fn count<'l>(
    totals: &mut LineTotals,
    directions: &'l LineDirections,
    is_forward: bool,
    label: &str,
) -> Option<&'l std::sync::Arc<str>> {
    let direction = if is_forward {
        directions.forward.as_ref()?
    } else {
        directions.backward.as_ref()?
    };
    let labels = totals.entry(direction.clone()).or_default();
    let label = if labels.len() < MAX_LABELS || labels.contains_key(label) {
        label
    } else {
        OTHER
    };
    match labels.get_mut(label) {
        Some(count) => add_count(count, 1),
        None => {
            labels.insert(label.to_owned(), 1);
        }
    }
    Some(direction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_events;
    use proptest::prelude::*;
    use serde_json::json;

    fn line(value: serde_json::Value) -> CountingLine {
        parse_events(&json!({"lines": {"l": value}})).unwrap().lines.remove(0)
    }

    fn gate() -> CountingLine {
        line(json!({"from": [0.5, 0.2], "to": [0.5, 0.8]}))
    }

    fn at(x: f64, y: f64) -> FractionBox {
        FractionBox {
            left: x - 0.05,
            top: y - 0.05,
            width: 0.1,
            height: 0.1,
        }
    }

    /// The crossings of a path, `>` and `<`.
    fn crossings(line: &CountingLine, path: &[(f64, f64)]) -> String {
        let mut side = LineSide::default();
        path.iter()
            .filter_map(|(x, y)| side.observe(line, &at(*x, *y)))
            .map(|is_forward| if is_forward { '>' } else { '<' })
            .collect()
    }

    #[test]
    fn each_crossing_is_counted_once_in_its_direction() {
        let there: Vec<_> = (0..=20).map(|n| (f64::from(n) / 20.0, 0.5)).collect();
        let back: Vec<_> = there.iter().rev().copied().collect();
        assert_eq!(crossings(&gate(), &there), ">");
        assert_eq!(crossings(&gate(), &back), "<");
        assert_eq!(crossings(&gate(), &[there.clone(), back, there].concat()), "><>");
        assert_eq!(crossings(&gate(), &[(0.1, 0.5), (0.9, 0.5)]), ">", "over missed frames");
    }

    #[test]
    fn an_object_that_jitters_on_the_line_does_not_cross_it() {
        let jitter: Vec<_> = (0..100).map(|n| (0.5 + 0.008 * f64::from(n % 3 - 1), 0.5)).collect();
        assert_eq!(crossings(&gate(), &jitter), "");
        let and_on = [vec![(0.3, 0.5)], jitter.clone(), vec![(0.7, 0.5)]].concat();
        assert_eq!(crossings(&gate(), &and_on), ">");
        let and_back = [vec![(0.3, 0.5)], jitter, vec![(0.3, 0.5)]].concat();
        assert_eq!(crossings(&gate(), &and_back), "");
    }

    #[test]
    fn passing_beside_the_ends_is_no_crossing() {
        assert_eq!(crossings(&gate(), &[(0.3, 0.1), (0.7, 0.1)]), "");
        assert_eq!(
            crossings(&gate(), &[(0.3, 0.5), (0.3, 0.9), (0.7, 0.9), (0.7, 0.5)]),
            ""
        );
        assert_eq!(
            crossings(&gate(), &[(f64::NAN, 0.5), (0.3, 0.5), (f64::NAN, 0.5), (0.7, 0.5)]),
            ">"
        );
    }

    #[test]
    fn only_named_directions_are_counted_and_labels_are_bounded() {
        let one_way = line(json!({"from": [0.5, 0], "to": [0.5, 1], "directions": {"left_to_right": "in"}}));
        let mut totals = LineTotals::new();
        assert_eq!(count(&mut totals, &one_way.directions, false, "car"), None);
        for n in 0..100 {
            count(&mut totals, &one_way.directions, true, &format!("car {n}"));
        }
        assert_eq!(totals["in"].len(), MAX_LABELS + 1);
        assert_eq!((totals["in"]["car 5"], totals["in"][OTHER]), (1, 36));
    }

    proptest! {
        #[test]
        fn crossings_alternate_and_agree_with_the_ends_of_any_path_through_a_whole_line(
            path in prop::collection::vec((0.0..1.0f64, 0.0..1.0f64), 2..60)
        ) {
            let line = line(json!({"from": [0.5, 0], "to": [0.5, 1]}));
            let crossings = crossings(&line, &path);
            prop_assert!(!crossings.contains(">>") && !crossings.contains("<<"), "{crossings}");
            let sides: Vec<_> = path.iter().filter(|(x, _)| (x - 0.5).abs() > 0.01).map(|(x, _)| *x > 0.5).collect();
            if let (Some(first), Some(last)) = (sides.first(), sides.last()) {
                let forward = crossings.matches('>').count() as i64;
                let backward = crossings.matches('<').count() as i64;
                prop_assert_eq!(forward - backward, i64::from(*last) - i64::from(*first));
            }
        }
    }
}
