//! Frames worth learning from: inputs about which the model is not certain go to Edge Impulse Studio by themselves.
//!
//! The inference loop shows every result to the [`FrameSelector`], which compares some numbers. It copies an input only when that
//! is worth it and the limits allow it. The task of the [`FrameCollector`] compares the picture with the one before, encodes it
//! and hands it to the [`upload`](super::upload) task. The limits are on disk before anything is uploaded.

mod candidate;
mod collector;
mod flicker;
pub(super) mod fuzzing;
mod labels;
mod likeness;
mod limits;
mod selector;

pub use candidate::CollectedInput;
pub use collector::{FrameCandidates, FrameCollector};
pub use selector::FrameSelector;
