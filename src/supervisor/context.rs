//! The parts that outlive a session.

use std::sync::Arc;

use parking_lot::Mutex;

use super::setup::Setup;
use super::source_secrets::SourceSecrets;
use super::stuck_threads::StuckThreads;
use crate::capture::CaptureTap;
use crate::device::Topics;
use crate::events::EventRecorder;
use crate::inference::LiveTap;
use crate::model::Sandbox;
use crate::status::StatusRegistry;
use crate::status::stats::Stats;
use crate::studio::UpdateRequester;
use crate::studio::frames::FrameSelector;
use crate::studio::monitor::MonitorTap;
use crate::uplink::Outbox;

/// Shared by the message sink, the HTTP server and all sessions of one run.
pub(super) struct Context {
    /// The configuration in force.
    pub setup: Arc<Mutex<Arc<Setup>>>,
    pub device: String,
    pub topics: Arc<Topics>,
    pub stats: Arc<Stats>,
    pub outbox: Arc<Outbox>,
    pub events: Arc<EventRecorder>,
    pub live_tap: Arc<LiveTap>,
    pub registry: Arc<StatusRegistry>,
    pub stuck_threads: Arc<StuckThreads>,
    pub source_secrets: Arc<SourceSecrets>,
    /// What the process of a model may do.
    pub sandbox: Sandbox,
    /// Copies for the data collection; `None`: nothing asks for them.
    pub capture_tap: Option<Arc<CaptureTap>>,
    /// Chooses inputs that are worth an upload to Edge Impulse Studio; `None`: off.
    pub frame_selector: Option<Arc<FrameSelector>>,
    /// Shows inferences to Edge Impulse Studio; `None`: it sees none.
    pub monitor: Option<Arc<MonitorTap>>,
    /// Requests updates of the model.
    pub model_updates: UpdateRequester,
}

impl Context {
    /// The configuration in force. A deployment may change it between two calls.
    pub(super) fn setup(&self) -> Arc<Setup> {
        self.setup.lock().clone()
    }
}
