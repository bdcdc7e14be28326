//! Capture: from a launch line, a camera or a microphone to the input of a model.
//!
//! [`session`] starts and stops a capture. It takes the launch line of the configuration ([`gst_args`] decodes it) or
//! of the selected device ([`device_selection`]), lets [`launch_line`] rewrite its end, and lets [`pipeline`] start it.
//! [`output`] connects the pipeline's `appsink` to a [`mailbox`], and [`watchdog`] reports the end of the capture.
//!
//! The inference loop receives video frames from the mailbox, [`convert`] scales and converts them to the model's
//! format, and [`pack`] turns the pixels into features. Frames are not queued: a frame that is not inferred costs only
//! one reference. Audio is cut into windows ([`audio`]), which wait in a short queue.
//!
//! [`clip`] keeps the last seconds of encoded video for the clips of events, if they are wanted.

pub mod audio;
pub mod camera;
mod clip;
pub mod convert;
mod description;
mod device_selection;
mod devices;
mod elements;
mod error;
mod formats;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod geometry;
mod gst_args;
mod launch_line;
mod launch_tokens;
mod listeners;
mod mailbox;
pub mod microphone;
mod output;
pub mod pack;
mod packages;
mod pipeline;
mod registry;
mod secret_values;
mod session;
mod shell_text;
mod tap;
mod unpack;
mod video_encoder;
mod video_file;
mod watchdog;
mod whole_frame;

#[cfg(test)]
mod convert_tests;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod testing;

#[cfg(test)]
pub(crate) use clip::testing::jpeg_clip;

pub use audio::{AudioFormat, AudioMailbox, AudioWindow};
pub use clip::{ClipCodec, ClipRecorder, ClipSettings, FinishedClip, Haste, clip_codec, write_mp4};
pub use convert::{ConvertError, Converter, Picture, PictureTarget};
pub use description::{PipelineDescription, describe_pipeline};
pub use device_selection::DeviceSelection;
pub use error::CaptureError;
pub use frame::{Frame, FrameMailbox};
pub use launch_line::MediaKind;
pub use mailbox::{Mailbox, MailboxSender, OverflowPolicy, Received, Reservation, SendOutcome};
pub use output::CaptureOutput;
pub use packages::MissingElement;
pub use registry::init;
pub use secret_values::SecretResolver;
pub use session::{Capture, CaptureSettings, StopOutcome};
pub use tap::{CaptureTap, TappedSources};
pub use video_file::{VIDEO_RATE, VIDEO_SIZE, VideoError, VideoFile, can_encode_video};
pub use watchdog::CaptureEvent;
