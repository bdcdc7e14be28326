//! Results and pictures for the tests of this module.

use crate::model::{BoundingBox, InferenceResult};

/// A box with this confidence.
pub fn boxed(value: f64) -> BoundingBox {
    BoundingBox {
        label: "cat".to_owned(),
        value,
        x: 10,
        y: 20,
        width: 64,
        height: 48,
        object_id: None,
    }
}

/// A result with boxes of these confidences.
pub fn boxes(values: &[f64]) -> InferenceResult {
    InferenceResult {
        bounding_boxes: Some(values.iter().copied().map(boxed).collect()),
        ..Default::default()
    }
}

/// A classification.
pub fn classes(classes: &[(&str, f64)]) -> InferenceResult {
    let classes = classes
        .iter()
        .map(|(label, value)| ((*label).to_owned(), *value))
        .collect();
    InferenceResult {
        classification: Some(classes),
        ..Default::default()
    }
}

/// The same incompressible bytes in each call.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as u8
        })
        .collect()
}
