//! The status of the component: health, problems, states and counters.
//!
//! The other modules report to this one: they set [`health::HealthFlag`]s, count in [`stats::Stats`], and implement
//! [`StatusSource`]. The live page, `/api/status`, `/metrics` and the MQTT metrics message are written from one snapshot of
//! the [`StatusRegistry`].

pub(crate) mod damaged_files;
mod document;
pub mod health;
pub mod latency;
mod metrics_message;
mod model_versions;
pub(crate) mod prometheus;
mod registry;
mod snapshot;
mod source;
mod states;
pub mod stats;
mod studio_activity;

pub use model_versions::{ModelVersionCell, ModelVersionStatus, UpdateStep};
pub use registry::StatusRegistry;
pub use source::{
    CacheStatus, ComponentInfo, EventStatus, LineCounts, LinkStatus, ModelInputSummary, ModelSummary, OutboxStatus,
    PublishedMessage, ReportStatus, RuleStatus, StatusSource, ViewerStatus,
};
pub use states::{ModelState, SourceState, StudioState, StudioStateCell};
pub use studio_activity::{StudioActivity, StudioProject, UploadRecord, UploadState};
