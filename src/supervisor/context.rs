//! The parts that outlive a session.

use std::sync::Arc;

use super::setup::Setup;
use super::source_secrets::SourceSecrets;
use super::stuck_threads::StuckThreads;
use crate::device::Topics;
use crate::inference::LiveTap;
use crate::status::StatusRegistry;
use crate::status::stats::Stats;
use crate::uplink::Outbox;

/// Shared by the message sink, the HTTP server and all sessions of one run.
pub(super) struct Context {
    pub setup: Setup,
    pub device: String,
    pub topics: Arc<Topics>,
    pub stats: Arc<Stats>,
    pub outbox: Arc<Outbox>,
    pub live_tap: Arc<LiveTap>,
    pub registry: Arc<StatusRegistry>,
    pub stuck_threads: Arc<StuckThreads>,
    pub source_secrets: Arc<SourceSecrets>,
}
