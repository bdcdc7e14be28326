//! An object that is followed, as viewers see it.

use std::sync::Arc;

use serde::Serialize;

use super::event::EventBox;

/// An object that is followed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FollowedObject {
    /// As in event messages.
    pub id: i64,
    /// The label with the most detections.
    pub label: String,
    /// The value of the last detection.
    pub value: f64,
    /// The last detection.
    #[serde(rename = "box")]
    pub place: EventBox,
    /// Whether the last inference has found it.
    pub found: bool,
    /// The zones in which it counts.
    pub zones: Vec<Arc<str>>,
}
