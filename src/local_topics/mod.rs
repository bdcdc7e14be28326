//! The device's messages and commands on Greengrass's local publish/subscribe, for other components on the device.
//!
//! The outbox gives a copy of each message, on the same topic as at the broker. Commands on the local `command/input` are
//! handled like those of the broker. Nothing waits for this module: what the nucleus does not take in time is dropped and
//! counted.

#[doc(hidden)]
pub mod fuzzing;
mod shorten;
mod task;

pub use task::{LocalTopics, LocalTopicsSettings, LocalTopicsTimes, start};
