//! Samples that Studio asks for, from the running capture: pictures of the camera in its own size, sound of the microphone, and
//! the snapshot stream.
//!
//! [`CollectService`] receives the requests on the task of the channel and passes them on through a bounded queue. One task
//! takes samples, one at a time. It gets copies from the [`CaptureTap`](crate::capture::CaptureTap), so inference goes on
//! undisturbed, encodes on blocking threads, and hands samples to the [`upload`](super::upload) task.

mod collector;
mod picture;
mod recording;
mod service;
mod snapshots;
mod video;

pub(super) use picture::FrameEncoder;
pub use service::{CollectService, CollectSettings};
