//! The status of the component: health, problems, states and counters.
//!
//! The other modules report to this one: they set [`health::HealthFlag`]s, count in [`stats::Stats`], and implement
//! [`StatusSource`]. The live page, `/api/status`, `/metrics` and the MQTT metrics message are written from one snapshot of
//! the [`StatusRegistry`].

mod document;
pub mod health;
pub mod latency;
mod metrics_message;
pub(crate) mod prometheus;
mod registry;
mod snapshot;
mod source;
mod states;
pub mod stats;

pub use registry::StatusRegistry;
pub use source::{
    CacheStatus, ComponentInfo, LinkStatus, ModelInputSummary, ModelSummary, OutboxStatus, PublishedMessage,
    ReportStatus, StatusSource, ViewerStatus,
};
pub use states::{ModelState, SourceState, StudioState, StudioStateCell};
