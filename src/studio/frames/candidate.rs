//! An input that may be uploaded.

use std::sync::Arc;

use strum::{Display, IntoStaticStr};

use crate::capture::{Frame, PictureTarget};
use crate::config::SampleCategory;
use crate::model::{BoundingBox, ModelInfo};
use crate::report::detections::Detections;

/// Why an input is uploaded. The names are in the metadata of the sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, Display)]
#[strum(serialize_all = "snake_case")]
pub(super) enum CollectReason {
    /// The best value lies in the band.
    Uncertain,
    /// A tracked object changed its label.
    LabelFlicker,
    /// One of those that are taken regularly.
    Regular,
}

/// The input of a model, in memory of its own.
#[derive(Debug)]
pub enum CollectedInput {
    /// A picture.
    Picture {
        /// The frame of the camera.
        frame: Frame,
        /// How the model's input picture was made from it.
        target: PictureTarget,
    },
    /// A window of audio.
    Audio {
        /// Mono.
        samples: Vec<i16>,
        /// Samples per second.
        sample_rate: u32,
    },
}

/// An input with what the model found in it.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) reason: CollectReason,
    pub(super) input: CollectedInput,
    /// The best value.
    pub(super) value: Option<f64>,
    /// The label of the best class.
    pub(super) label: Option<String>,
    /// In pixels of the model's input.
    pub(super) boxes: Vec<BoundingBox>,
    pub(super) model: Option<Arc<ModelInfo>>,
    pub(super) category: SampleCategory,
    /// Milliseconds since the Unix epoch.
    pub(super) captured_at_ms: u64,
}

/// The highest value, or the anomaly score; `None`: the result has no value.
pub(super) fn best_value(detections: Detections<'_>) -> Option<f64> {
    match detections {
        Detections::Grid(items) | Detections::Boxes(items) => items.iter().map(|item| item.value).reduce(f64::max),
        Detections::Classes(classes) => classes.iter().map(|(_, value)| *value).reduce(f64::max),
        Detections::VisualAnomaly(score) | Detections::Anomaly(score) => Some(score),
        Detections::Freeform(_) | Detections::Nothing => None,
    }
}

/// The label of the highest value of a classification. A score that is no probability, such as that of regression, names no
/// class.
pub(super) fn best_label(detections: Detections<'_>, model: Option<&ModelInfo>) -> Option<String> {
    let Detections::Classes(classes) = detections else {
        return None;
    };
    if model.is_some_and(|model| !model.has_probabilities()) {
        return None;
    }
    let best = classes.iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map(|(label, _)| label.clone())
}

/// The boxes of objects. Cells of an anomaly grid are no objects.
pub(super) fn boxes(detections: Detections<'_>) -> Vec<BoundingBox> {
    match detections {
        Detections::Boxes(items) => items.to_vec(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InferenceResult;

    fn found(value: f64) -> BoundingBox {
        BoundingBox {
            label: "car".to_owned(),
            value,
            x: 0,
            y: 0,
            width: 1,
            height: 1,
            object_id: None,
        }
    }

    #[test]
    fn each_kind_of_result_has_its_best_value_label_and_boxes() {
        let two = vec![found(0.3), found(0.5)];
        let classes = vec![("a".to_owned(), 0.4), ("b".to_owned(), 0.6)];
        let results = [
            (
                InferenceResult {
                    bounding_boxes: Some(two.clone()),
                    ..Default::default()
                },
                (Some(0.5), None, 2),
            ),
            (
                InferenceResult {
                    object_tracking: Some(two.clone()),
                    ..Default::default()
                },
                (Some(0.5), None, 2),
            ),
            (
                InferenceResult {
                    classification: Some(classes),
                    ..Default::default()
                },
                (Some(0.6), Some("b"), 0),
            ),
            (
                InferenceResult {
                    visual_anomaly_grid: Some(two),
                    visual_anomaly_max: Some(0.5),
                    ..Default::default()
                },
                (Some(0.5), None, 0),
            ),
            (
                InferenceResult {
                    visual_anomaly_max: Some(0.2),
                    ..Default::default()
                },
                (Some(0.2), None, 0),
            ),
            (
                InferenceResult {
                    anomaly: Some(0.7),
                    ..Default::default()
                },
                (Some(0.7), None, 0),
            ),
            (
                InferenceResult {
                    freeform: Some(vec![vec![0.5]]),
                    ..Default::default()
                },
                (None, None, 0),
            ),
            (InferenceResult::default(), (None, None, 0)),
        ];
        for (result, (value, label, count)) in results {
            let detections = Detections::of(&result);
            assert_eq!(best_value(detections), value, "{result:?}");
            assert_eq!(best_label(detections, None).as_deref(), label, "{result:?}");
            assert_eq!(boxes(detections).len(), count, "{result:?}");
        }
    }
}
