//! Video of the last seconds, for the clips of events.
//!
//! [`ClipSource`] takes encoded frames: those of the camera, before the decoder (H.264 or JPEG), or raw frames that
//! [`jpeg_encoder`] encodes. JPEG costs half of what H.264 costs (1.6 to 2.6 ms for a frame of 1280 x 720 instead of 3.1 to
//! 5.7 ms with x264enc), and is encoded as H.264 only for the clips that are kept.
//!
//! [`ClipRecorder`] keeps the last frames in a [`ring`] and adds the later ones to the clips in progress. [`write_mp4`] makes the
//! file. All of it is bounded in bytes and in time.

mod access_unit;
mod frame;
pub(super) mod fuzzing;
mod jpeg_encoder;
mod mp4;
mod recorder;
mod ring;
mod source;
#[cfg(test)]
pub(crate) mod testing;
mod timeline;

pub use mp4::{ClipCodec, Haste, clip_codec, write_mp4};
pub use recorder::{ClipRecorder, ClipSettings, FinishedClip};
pub(super) use source::ClipSource;
