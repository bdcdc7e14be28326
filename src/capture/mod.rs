//! From a GStreamer line, a camera or a microphone to the numbers a model is fed with.
//!
//! [`gst_args`] decodes the line of the configuration, [`line`] makes it end in raw frames, [`pipeline`] runs it and puts
//! the newest frame into the one-place [`slot`]. The inference loop takes a frame from there, [`convert`] brings it to the
//! model's size in one or two [`passes`], and [`pack`] turns the pixels into features. Nothing here queues: a frame that is not
//! inferred costs one reference.
//!
//! Sound goes the same way: [`line`] makes it end in the model's kind of samples, [`windows`] cuts them, and the slot is a
//! short queue. Without a line [`devices`] looks for a [`camera`] or [`microphone`] at each start.

mod audio;
pub mod audio_framer;
pub mod camera;
pub mod convert;
pub mod devices;
pub mod elements;
mod error;
pub mod geometry;
pub mod gst_args;
pub mod launch_line;
mod launch_tokens;
pub mod mailbox;
pub mod microphone;
pub mod pack;
pub mod packages;
pub mod passes;
mod pipeline;
mod resampling;

#[cfg(test)]
mod convert_tests;
#[cfg(test)]
mod pipeline_tests;
#[cfg(test)]
mod testing;

pub use audio_framer::{AudioFormat, AudioMailbox, Window};
pub use convert::{ConvertError, Converter, Picture, Target};
pub use devices::DeviceSelection;
pub use error::CaptureError;
pub use launch_line::{PipelineDescription, describe};
pub use mailbox::{Frame, FrameMailbox, Taken};
pub use pipeline::{Capture, CaptureEvent, Inlet, Settings, Stopped};

/// Starts GStreamer. Cheap and harmless when it is started already; everything in this room that needs it calls it.
pub fn init() -> Result<(), CaptureError> {
    gstreamer::init().map_err(|error| CaptureError::Init(error.to_string()))
}
