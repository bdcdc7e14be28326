//! Why an inference loop returned.

use super::successor::ReadyModel;
use crate::capture::AudioWindow;

/// Why an inference loop returned without a failure.
pub(super) enum LoopEnd {
    /// [`InferenceContext::finish`](super::InferenceContext::finish) is set.
    Finished,
    /// This model takes over before the next input, after it got these windows.
    Replaced(ReadyModel, Vec<AudioWindow>),
}
