//! The model process (`.eim`): started, spoken to, ended. Blocking; lives on the inference thread.

pub mod protocol;

pub use protocol::{BoundingBox, InferenceResult, ModelInfo};
