//! The value of a label in a result of any kind.

use crate::model::{BoundingBox, InferenceResult};

/// A value, with the box that has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Score<'r> {
    pub value: f64,
    pub place: Option<&'r BoundingBox>,
}

/// The highest value of the label: of a class, of a box or of a cell of a grid. `anomaly`, `visual_anomaly_max` and
/// `visual_anomaly_mean` are the scores of those names; for a model that finds anomalies in pictures `anomaly` is the highest one.
pub(super) fn score<'r>(result: &'r InferenceResult, label: &str) -> Option<Score<'r>> {
    let classes = result.classification.iter().flatten();
    let classes = classes
        .filter(|(class, _)| class == label)
        .map(|(_, value)| plain(*value));
    let boxes = result.object_tracking.as_ref().or(result.bounding_boxes.as_ref());
    let boxes = boxes
        .into_iter()
        .flatten()
        .chain(result.visual_anomaly_grid.iter().flatten());
    let boxes = boxes.filter(|found| found.label == label).map(|found| Score {
        value: found.value,
        place: Some(found),
    });
    let scores = match label {
        "anomaly" => [result.anomaly, result.visual_anomaly_max],
        "visual_anomaly_max" => [result.visual_anomaly_max, None],
        "visual_anomaly_mean" => [result.visual_anomaly_mean, None],
        _ => [None, None],
    };
    let scores = scores.into_iter().flatten().map(plain);
    classes
        .chain(boxes)
        .chain(scores)
        .max_by(|one, other| one.value.total_cmp(&other.value))
}

fn plain<'r>(value: f64) -> Score<'r> {
    Score { value, place: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(result: &InferenceResult, label: &str) -> Option<f64> {
        score(result, label).map(|score| score.value)
    }

    #[test]
    fn every_kind_of_result_has_values_for_labels() {
        let classes = InferenceResult {
            classification: Some(vec![("yes".into(), 0.25), ("no".into(), 0.75)]),
            anomaly: Some(-1.5),
            ..InferenceResult::default()
        };
        assert_eq!(value(&classes, "no"), Some(0.75));
        assert_eq!(value(&classes, "anomaly"), Some(-1.5));
        assert_eq!(value(&classes, "maybe"), None);

        let found = |label: &str, value, x| BoundingBox {
            label: label.into(),
            value,
            x,
            y: 0,
            width: 4,
            height: 4,
            object_id: None,
        };
        let boxes = InferenceResult {
            bounding_boxes: Some(vec![found("car", 0.5, 1), found("car", 0.75, 2), found("bus", 0.9, 3)]),
            ..InferenceResult::default()
        };
        let best = score(&boxes, "car").unwrap();
        assert_eq!((best.value, best.place.map(|place| place.x)), (0.75, Some(2)));

        let grid = InferenceResult {
            visual_anomaly_grid: Some(vec![found("anomaly", 3.5, 0)]),
            visual_anomaly_max: Some(4.5),
            visual_anomaly_mean: Some(1.25),
            ..InferenceResult::default()
        };
        assert_eq!(value(&grid, "anomaly"), Some(4.5));
        assert_eq!(value(&grid, "visual_anomaly_mean"), Some(1.25));
    }
}
