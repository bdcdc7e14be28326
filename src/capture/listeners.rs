//! What is told of each frame or buffer, beside the mailbox.

use std::sync::Arc;

use super::clip::ClipSource;
use super::tap::CaptureTap;
use super::watchdog::FrameClock;
use crate::status::stats::Stats;

/// What is told of each frame or buffer, beside the mailbox.
#[derive(Debug, Clone)]
pub(super) struct SampleListeners {
    /// Counts.
    pub stats: Arc<Stats>,
    /// Knows when the last one arrived.
    pub clock: Arc<FrameClock>,
    /// Copies for the data collection.
    pub tap: Option<Arc<CaptureTap>>,
    /// Video for the clips of events.
    pub clips: Option<ClipSource>,
}
