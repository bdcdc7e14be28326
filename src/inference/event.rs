//! One inference, as the loop hands it to the live tap.

use crate::capture::{Frame, Picture, PictureTarget};
use crate::events::FollowedObject;
use crate::model::InferenceResult;
use crate::report::Decision;

/// One inference, borrowed from the loop.
#[derive(Debug)]
pub struct InferenceEvent<'a> {
    /// The model's answer.
    pub result: &'a InferenceResult,
    /// The model's input picture; `None` for audio.
    pub picture: Option<&'a Picture>,
    /// The camera's frame, where [`LiveTap::wants_original_frames`](super::LiveTap::wants_original_frames) asked for
    /// it.
    pub original: Option<OriginalFrame>,
    /// Loudness of the audio window, 0 to 1; `None` for pictures.
    pub level: Option<f32>,
    /// Wall-clock time of the round trip to the model, in milliseconds.
    pub wall_ms: f32,
    /// Whether the inference is published, and why not.
    pub decision: Decision,
    /// The objects that are followed.
    pub objects: Vec<FollowedObject>,
}

/// The camera's frame behind a model's input picture, in memory of its own.
#[derive(Debug)]
pub struct OriginalFrame {
    /// The frame.
    pub frame: Frame,
    /// How the model's input picture was made from it.
    pub target: PictureTarget,
}
