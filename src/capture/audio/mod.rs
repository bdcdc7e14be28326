//! Audio: from GStreamer's buffers to the windows that a model classifies.

pub(super) mod callback;
mod framer;
mod mono;
mod samples;
mod silence;

pub use framer::{AudioFormat, AudioMailbox, AudioWindow};
pub use samples::{loudness, wav, wav_header};
