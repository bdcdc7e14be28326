//! Measures the time without a connection and limits its log lines: the first failure, then one line a minute.

use std::time::{Duration, Instant};

use crate::util::log_limiter::LogLimiter;

/// The current outage, if there is one.
#[derive(Debug, Default)]
pub(super) struct Outage {
    since: Option<Instant>,
    failures: u32,
    log_limiter: LogLimiter,
}

impl Outage {
    /// A connection failed or ended. Returns the start of the outage, and the number of failures if a log line is due.
    pub fn failed(&mut self, now: Instant) -> (Instant, Option<u32>) {
        let since = *self.since.get_or_insert(now);
        self.failures += 1;
        let is_due = self.log_limiter.check(now, "outage").is_some();
        (since, is_due.then_some(self.failures))
    }

    /// The connection works again. Returns the duration of the outage.
    pub fn end(&mut self, now: Instant) -> Option<Duration> {
        let since = std::mem::take(self).since?;
        Some(now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_logged_at_once_and_the_others_once_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outage = Outage::default();
        let logged: Vec<_> = (0..130).map(|second| outage.failed(at(second)).1).collect();
        let logged: Vec<_> = logged.into_iter().flatten().collect();
        assert_eq!(logged, [1, 61, 121]);
        assert_eq!(outage.failed(at(131)).0, start);
        assert_eq!(outage.end(at(140)), Some(Duration::from_secs(140)));
        assert_eq!(outage.end(at(140)), None);
        assert_eq!(outage.failed(at(200)), (at(200), Some(1)));
    }
}
