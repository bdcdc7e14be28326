//! One inference with everything that viewers are shown.

use super::event::InferenceEvent;
use crate::events::FollowedObject;
use crate::model::InferenceResult;
use crate::report::Decision;
use crate::util::clock::now_ms;

/// An inference, shared by all viewers.
#[derive(Debug)]
pub(crate) struct InferenceView {
    /// The model's answer.
    pub result: InferenceResult,
    /// Wall-clock time of the round trip to the model, in milliseconds.
    pub wall_ms: f32,
    /// Milliseconds since the Unix epoch.
    pub ts: u64,
    /// Whether the inference is published, and why not.
    pub decision: Decision,
    /// Loudness of an audio window, 0 to 1.
    pub level: Option<f32>,
    /// Width and height of the model's input picture, in pixels.
    pub size: Option<(u32, u32)>,
    /// The objects that are followed.
    pub objects: Vec<FollowedObject>,
}

impl From<InferenceEvent<'_>> for InferenceView {
    fn from(event: InferenceEvent<'_>) -> Self {
        Self {
            result: event.result.clone(),
            wall_ms: event.wall_ms,
            ts: now_ms(),
            decision: event.decision,
            level: event.level,
            size: event.picture.map(|picture| (picture.width, picture.height)),
            objects: event.objects,
        }
    }
}
