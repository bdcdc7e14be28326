//! Wall-clock time as messages and files carry it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch; 0 while the clock stands before it.
pub fn now_ms() -> u64 {
    unix_ms(SystemTime::now())
}

/// `at` in milliseconds since the Unix epoch; 0 for times before it.
pub fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// A duration to a tenth of a second, as log fields show it: `retry_in = ?rounded(wait)` becomes `retry_in=1.2s`.
pub fn rounded(duration: Duration) -> Duration {
    Duration::from_millis((duration.as_millis() as u64 + 50) / 100 * 100)
}
