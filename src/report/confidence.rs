//! How sure a result is: one figure for the filter, single figures for the metrics.

use super::detections::Detections;
use crate::model::BoundingBox;

/// Confidence of a whole result: the arithmetic mean of the boxes or cells, the highest class, the anomaly score; `None` for
/// freeform and for nothing.
pub fn of(findings: Detections<'_>) -> Option<f64> {
    match findings {
        Detections::Grid(items) | Detections::Boxes(items) => mean(items),
        Detections::Classes(classes) => Some(highest(classes)),
        Detections::VisualAnomaly(score) | Detections::Anomaly(score) => Some(score),
        Detections::Freeform(_) | Detections::Nothing => None,
    }
}

/// Every single confidence, for the metrics: one per box or cell, one (the highest) per classification, one per anomaly
/// score, none for freeform and for a grid without cells.
pub fn each(findings: Detections<'_>) -> impl Iterator<Item = f64> {
    let (items, class) = match findings {
        Detections::Grid(items) | Detections::Boxes(items) => (items, None),
        Detections::Classes(classes) => (&[][..], Some(highest(classes))),
        Detections::Anomaly(score) => (&[][..], Some(score)),
        Detections::Freeform(_) | Detections::VisualAnomaly(_) | Detections::Nothing => (&[][..], None),
    };
    items.iter().map(|item| item.value).chain(class)
}

/// The mean, taken as the distance from the first value, so that equal values have exactly that mean: three boxes of 0.7
/// summed up and divided by 3 give 0.6999999999999998, which `ge` 0.7 would reject.
fn mean(items: &[BoundingBox]) -> Option<f64> {
    let first = items.first()?.value;
    let distance: f64 = items.iter().map(|item| item.value - first).sum();
    Some(first + distance / items.len() as f64)
}

/// The highest value; NaN only when there is nothing else (`f64::max` skips NaN).
fn highest(classes: &[(String, f64)]) -> f64 {
    classes.iter().map(|(_, value)| *value).fold(f64::NAN, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::{boxed, boxes, classes};

    #[test]
    fn boxes_and_cells_have_their_arithmetic_mean() {
        let items = [boxed(0.9), boxed(0.5), boxed(0.1)];
        for findings in [Detections::Boxes(&items), Detections::Grid(&items)] {
            assert!((of(findings).unwrap() - 0.5).abs() < 1e-12);
            assert_eq!(each(findings).collect::<Vec<_>>(), [0.9, 0.5, 0.1]);
        }
    }

    #[test]
    fn equal_values_have_exactly_that_mean() {
        let result = boxes(&[0.7, 0.7, 0.7]);
        assert_eq!(of(Detections::of(&result)), Some(0.7));
    }

    #[test]
    fn a_classification_has_its_highest_value_and_counts_once() {
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
