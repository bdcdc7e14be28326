//! The labels of an object detection sample, as the file `bounding_boxes.labels`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The name of the file with the boxes, in the same request as the picture.
pub(super) const FILE_NAME: &str = "bounding_boxes.labels";

/// A box in pixels of the picture that is uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelledBox {
    /// Class label.
    pub label: String,
    /// Left edge.
    pub x: u32,
    /// Top edge.
    pub y: u32,
    /// Width, at least 1: ingestion refuses 0.
    pub width: u32,
    /// Height, at least 1: ingestion refuses 0.
    pub height: u32,
}

/// The content of the file for one picture. The format, and that it is a second part `data` of the request, is what the uploader
/// of Edge Impulse sends (`cli-common/make-image.ts` and `shared/bounding-box-file-types.ts` of edge-impulse-cli, commit
/// 64dbc038). Until version 1.33 it sent a header `x-bounding-boxes` instead, whose length is limited.
pub(super) fn labels_file(picture: &str, boxes: &[LabelledBox]) -> Value {
    json!({
        "version": 1,
        "type": "bounding-box-labels",
        "boundingBoxes": { picture: boxes },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labels_name_the_picture_and_its_boxes() {
        let found = LabelledBox {
            label: "tür".to_owned(),
            x: 1,
            y: 2,
            width: 3,
            height: 4,
        };
        assert_eq!(
            labels_file("a.jpg", &[found]),
            json!({"version": 1, "type": "bounding-box-labels", "boundingBoxes": {"a.jpg": [
                {"label": "tür", "x": 1, "y": 2, "width": 3, "height": 4}
            ]}})
        );
    }
}
