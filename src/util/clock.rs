//! Wall-clock time in the format of messages and files, and the monotonic clock of the delivery of messages.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time of the monotonic clock; in a tokio runtime whose time is paused, that runtime's time. The delivery of messages uses it,
/// so that simulations do not wait.
pub fn monotonic_now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Milliseconds since the Unix epoch; 0 if the clock is before it.
pub fn now_ms() -> u64 {
    unix_ms(SystemTime::now())
}

/// `at` in milliseconds since the Unix epoch; 0 for times before it.
pub fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Rounds a duration to a tenth of a second for log fields: `retry_in = ?rounded(wait)` is logged as `retry_in=1.2s`.
pub fn rounded(duration: Duration) -> Duration {
    Duration::from_millis((duration.as_millis() as u64 + 50) / 100 * 100)
}
