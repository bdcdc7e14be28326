//! The status of the component at one moment. All outputs are written from it.

use std::sync::Arc;
use std::time::Duration;

use super::health::Health;
use super::latency::Latency;
use super::model_versions::ModelVersionStatus;
use super::source::{CacheStatus, EventStatus, LinkStatus, ModelSummary, OutboxStatus, ReportStatus, ViewerStatus};
use super::states::{ModelState, SourceState, StudioState};
use super::studio_activity::StudioActivitySnapshot;

/// The status at one moment.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    /// Time since the start of the process or the `restart` command.
    pub uptime: Duration,
    /// Resident memory of the process; `None`: the system does not report it.
    pub resident_bytes: Option<u64>,
    pub model: ModelState,
    /// `None` until a model is loaded.
    pub model_summary: Option<Arc<ModelSummary>>,
    pub model_versions: ModelVersionStatus,
    pub source: SourceState,
    pub studio: StudioState,
    pub studio_activity: StudioActivitySnapshot,
    pub link: LinkStatus,
    pub outbox: OutboxStatus,
    /// `None` before the first session.
    pub report: Option<ReportStatus>,
    pub viewers: ViewerStatus,
    /// `None`: there are no zones, lines and rules.
    pub events: Option<EventStatus>,
    pub caches: CacheStatus,
    pub health: Health,
    /// Every counter with its name.
    pub counters: Vec<(&'static str, u64)>,
}

impl Snapshot {
    /// Latency of the model; zeros before the first inference.
    pub(super) fn latency(&self) -> Latency {
        self.report.map(|report| report.latency).unwrap_or_default()
    }
}
