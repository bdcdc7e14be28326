//! A box in a model's result.

/// A box, tracked object or anomaly cell, in pixels of the model's input.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BoundingBox {
    /// Class label.
    pub label: String,
    /// Confidence.
    pub value: f64,
    /// Left edge.
    pub x: i64,
    /// Top edge.
    pub y: i64,
    /// Width.
    pub width: i64,
    /// Height.
    pub height: i64,
    /// Set for tracked objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_id: Option<i64>,
}
