//! Points in time and the cause of an event.

use std::time::{Duration, Instant};

use uuid::Uuid;

/// When something is looked at, and the inference that is the reason.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Steady time: durations are measured with it.
    pub at: Instant,
    /// Milliseconds since the Unix epoch, for messages.
    pub ts: u64,
    /// The inference; `None`: only time has passed.
    pub inference_id: Option<Uuid>,
}

/// The time from `from` to `to`, in whole milliseconds.
pub(super) fn millis_between(from: Instant, to: Instant) -> u64 {
    let elapsed: Duration = to.saturating_duration_since(from);
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
