//! From a GStreamer line to the numbers a model is fed with.
//!
//! [`gst_args`] decodes the line of the configuration, [`line`] makes it end in raw frames, [`pipeline`] runs it and puts
//! the newest frame into the one-place [`slot`]. The inference loop takes a frame from there, [`convert`] brings it to the
//! model's size in one pass, and [`pack`] turns the pixels into features. Nothing here queues: a frame that is not
//! inferred costs one reference.

pub mod convert;
pub mod error;
pub mod geometry;
pub mod gst_args;
pub mod line;
pub mod pack;
pub mod packages;
pub mod pipeline;
mod resampling;
pub mod slot;
mod words;

#[cfg(test)]
mod convert_tests;
#[cfg(test)]
mod pipeline_tests;
#[cfg(test)]
mod testing;

pub use convert::{ConvertError, Converter, Picture, Target};
pub use error::CaptureError;
pub use line::{PipelineDescription, describe};
pub use pipeline::{Capture, CaptureEvent, Settings, Stopped};
pub use slot::{Frame, FrameSlot, Taken};

/// Starts GStreamer. Cheap and harmless when it is started already; everything in this room that needs it calls it.
pub fn init() -> Result<(), CaptureError> {
    gstreamer::init().map_err(|error| CaptureError::Init(error.to_string()))
}
