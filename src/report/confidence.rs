//! The confidence of a result: one value for the filter, and single values for the metrics.

use super::detections::Detections;
use crate::model::BoundingBox;

/// The confidence of a whole result: the arithmetic mean of boxes or cells, the highest value of a classification, or the
/// anomaly score. `None` for freeform results and for empty ones.
pub fn of(detections: Detections<'_>) -> Option<f64> {
    match detections {
        Detections::Grid(items) | Detections::Boxes(items) => mean(items),
        Detections::Classes(classes) => Some(highest(classes)),
        Detections::VisualAnomaly(score) | Detections::Anomaly(score) => Some(score),
        Detections::Freeform(_) | Detections::Nothing => None,
    }
}

/// Every single confidence, for the metrics: one for each box or cell, the highest of a classification, one for an anomaly
/// score, none for freeform results and for a grid without cells.
pub fn each(detections: Detections<'_>) -> impl Iterator<Item = f64> {
    let (items, class) = match detections {
        Detections::Grid(items) | Detections::Boxes(items) => (items, None),
        Detections::Classes(classes) => (&[][..], Some(highest(classes))),
        Detections::Anomaly(score) => (&[][..], Some(score)),
        Detections::Freeform(_) | Detections::VisualAnomaly(_) | Detections::Nothing => (&[][..], None),
    };
    items.iter().map(|item| item.value).chain(class)
}

/// The mean, computed from the distances to the first value, so that the mean of equal values is exactly that value. The sum
/// of three times 0.7 divided by 3 is 0.6999999999999998, which `ge` 0.7 would reject.
fn mean(items: &[BoundingBox]) -> Option<f64> {
    let first = items.first()?.value;
    let distance: f64 = items.iter().map(|item| item.value - first).sum();
    Some(first + distance / items.len() as f64)
}

/// The highest value; NaN only if all values are NaN (`f64::max` skips NaN).
fn highest(classes: &[(String, f64)]) -> f64 {
    classes.iter().map(|(_, value)| *value).fold(f64::NAN, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::{boxed, boxes, classes};

    #[test]
    fn the_confidence_of_boxes_and_cells_is_their_arithmetic_mean() {
        let items = [boxed(0.9), boxed(0.5), boxed(0.1)];
        for detections in [Detections::Boxes(&items), Detections::Grid(&items)] {
            assert!((of(detections).unwrap() - 0.5).abs() < 1e-12);
            assert_eq!(each(detections).collect::<Vec<_>>(), [0.9, 0.5, 0.1]);
        }
    }

    #[test]
    fn the_mean_of_equal_values_is_exactly_that_value() {
        let result = boxes(&[0.7, 0.7, 0.7]);
        assert_eq!(of(Detections::of(&result)), Some(0.7));
    }

    #[test]
    fn the_confidence_of_a_classification_is_its_highest_value() {
        let result = classes(&[("a", 0.2), ("b", 0.7), ("c", 0.1)]);
        assert_eq!(of(Detections::of(&result)), Some(0.7));
        assert_eq!(each(Detections::of(&result)).collect::<Vec<_>>(), [0.7]);
    }

    #[test]
    fn freeform_has_no_confidence() {
        let arrays = [vec![0.3]];
        assert_eq!(of(Detections::Freeform(&arrays)), None);
        assert_eq!(each(Detections::Freeform(&arrays)).count(), 0);
    }
}
