//! The detections in a result: exactly one kind per result, borrowed from it.

use crate::model::{BoundingBox, InferenceResult};

/// The part of a result that is counted, filtered and published. If a result has several kinds, the first one in the order of
/// the variants that is not empty is used. An empty kind counts like a missing one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Detections<'a> {
    /// Arrays of numbers, with at least one number.
    Freeform(&'a [Vec<f32>]),
    /// Cells of a visual anomaly grid, at least one.
    Grid(&'a [BoundingBox]),
    /// Bounding boxes, or tracked objects if the model tracks; at least one.
    Boxes(&'a [BoundingBox]),
    /// Labels with their values, at least one.
    Classes(&'a [(String, f64)]),
    /// The maximum (else the mean) of a visual anomaly grid without cells: nothing is anomalous.
    VisualAnomaly(f64),
    /// The score of a model that returns only `anomaly`.
    Anomaly(f64),
    /// No numbers, cells, boxes, labels or anomaly score.
    Nothing,
}

impl<'a> Detections<'a> {
    /// Selects the kind. If a model reports `object_tracking`, its boxes are ignored, even while it tracks no object: the
    /// tracker decides which boxes are objects.
    pub fn of(result: &'a InferenceResult) -> Self {
        if let Some(arrays) = &result.freeform
            && arrays.iter().any(|array| !array.is_empty())
        {
            return Self::Freeform(arrays);
        }
        if let Some(cells) = result.visual_anomaly_grid.as_deref().filter(|cells| !cells.is_empty()) {
            return Self::Grid(cells);
        }
        let boxes = result.object_tracking.as_deref().or(result.bounding_boxes.as_deref());
        if let Some(boxes) = boxes.filter(|boxes| !boxes.is_empty()) {
            return Self::Boxes(boxes);
        }
        if let Some(classes) = result.classification.as_deref().filter(|classes| !classes.is_empty()) {
            return Self::Classes(classes);
        }
        if let Some(score) = result.visual_anomaly_max.or(result.visual_anomaly_mean) {
            return Self::VisualAnomaly(score);
        }
        match result.anomaly {
            // An object detector without objects has no detections, even with an anomaly score.
            Some(score) if boxes.is_none() => Self::Anomaly(score),
            _ => Self::Nothing,
        }
    }

    /// The `inference_count`: the number of boxes, cells or freeform arrays; 1 for a classification or an anomaly score; 0 for
    /// an empty result and for a grid without cells.
    pub fn count(&self) -> u64 {
        match self {
            Self::Freeform(arrays) => arrays.len() as u64,
            Self::Grid(items) | Self::Boxes(items) => items.len() as u64,
            Self::Classes(_) | Self::Anomaly(_) => 1,
            Self::VisualAnomaly(_) | Self::Nothing => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::{boxed, classes};

    #[test]
    fn tracked_objects_replace_boxes_even_while_no_object_is_tracked() {
        let mut result = InferenceResult {
            bounding_boxes: Some(vec![boxed(0.9)]),
            ..Default::default()
        };
        assert_eq!(Detections::of(&result).count(), 1);

        result.object_tracking = Some(vec![]);
        assert_eq!(Detections::of(&result), Detections::Nothing);

        // Tracked objects remain for some frames after their boxes disappear.
        let tracked = [boxed(0.8), boxed(0.7)];
        result.bounding_boxes = Some(vec![]);
        result.object_tracking = Some(tracked.to_vec());
        assert_eq!(Detections::of(&result), Detections::Boxes(&tracked));
    }

    #[test]
    fn the_first_kind_that_is_not_empty_is_used() {
        let mut result = classes(&[("a", 0.1), ("b", 0.9)]);
        assert!(matches!(Detections::of(&result), Detections::Classes(_)));
        result.bounding_boxes = Some(vec![boxed(0.5)]);
        assert!(matches!(Detections::of(&result), Detections::Boxes(_)));
        result.visual_anomaly_grid = Some(vec![boxed(0.5)]);
        assert!(matches!(Detections::of(&result), Detections::Grid(_)));
        result.freeform = Some(vec![vec![0.5]]);
        assert!(matches!(Detections::of(&result), Detections::Freeform(_)));

        result.freeform = Some(vec![]);
        result.visual_anomaly_grid = Some(vec![]);
        assert!(matches!(Detections::of(&result), Detections::Boxes(_)));
    }

    #[test]
    fn a_freeform_result_without_numbers_is_empty() {
        let result = InferenceResult {
            freeform: Some(vec![vec![], vec![]]),
            ..Default::default()
        };
        assert_eq!(Detections::of(&result), Detections::Nothing);
    }

    #[test]
    fn an_anomaly_score_without_other_kinds_is_a_result() {
        let mut result = InferenceResult {
            anomaly: Some(2.5),
            classification: Some(vec![]),
            ..Default::default()
        };
        assert_eq!(Detections::of(&result), Detections::Anomaly(2.5));
        assert_eq!(Detections::of(&result).count(), 1);
        result.bounding_boxes = Some(vec![]);
        assert_eq!(Detections::of(&result), Detections::Nothing, "no objects");
    }

    #[test]
    fn a_visual_anomaly_grid_without_cells_has_its_maximum() {
        let result = InferenceResult {
            visual_anomaly_max: Some(0.5),
            visual_anomaly_mean: Some(0.25),
            visual_anomaly_grid: Some(vec![]),
            ..Default::default()
        };
        assert_eq!(Detections::of(&result), Detections::VisualAnomaly(0.5));
        assert_eq!(Detections::of(&result).count(), 0);
    }
}
