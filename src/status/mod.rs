//! The state of the component: health, problems and counters.
//!
//! The parts report here; the live page, `/api/status`, `/metrics` and the MQTT metrics message read from here.

pub mod health;
pub(crate) mod prometheus;
mod registry;
mod states;
pub mod stats;

pub use registry::{About, LinkView, StatusRegistry};
pub use states::{ModelState, SourceState};
