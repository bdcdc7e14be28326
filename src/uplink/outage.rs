//! What the log says about the connection: the first failure, then once a minute, then the recovery.

use std::time::{Duration, Instant};

use super::connection_error::ConnectionError;

const REPEAT_EVERY: Duration = Duration::from_secs(60);

/// The time without a connection, from the log's point of view.
#[derive(Debug, Default)]
pub(super) struct Outage(Option<Current>);

#[derive(Debug)]
struct Current {
    since: Instant,
    failures: u32,
    logged: Instant,
}

impl Outage {
    /// A connection failed or ended. Returns since when there is none, and the failures in a row if it is time for a line.
    pub fn failed(&mut self, now: Instant) -> (Instant, Option<u32>) {
        let Some(current) = &mut self.0 else {
            self.0 = Some(Current {
                since: now,
                failures: 1,
                logged: now,
            });
            return (now, Some(1));
        };
        current.failures += 1;
        let due = now.saturating_duration_since(current.logged) >= REPEAT_EVERY;
        if due {
            current.logged = now;
        }
        (current.since, due.then_some(current.failures))
    }

    /// The connection stands. Returns how long there was none.
    pub fn over(&mut self, now: Instant) -> Option<Duration> {
        self.0
            .take()
            .map(|current| now.saturating_duration_since(current.since))
    }
}

/// The line for a failure.
pub(super) fn log_failure(broker: &str, reason: &ConnectionError, failures: u32, waiting: u64, retry_in: Duration) {
    let retry_in = retry_in.as_secs_f32();
    if failures == 1 {
        tracing::warn!("No connection to {broker}: {reason}. {waiting} messages wait; next attempt in {retry_in:.1} s");
    } else {
        tracing::warn!(
            "Still no connection to {broker} after {failures} attempts: {reason}. {waiting} messages wait; next attempt in \
             {retry_in:.1} s"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_told_at_once_and_the_others_once_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outage = Outage::default();
        let told: Vec<_> = (0..130).map(|second| outage.failed(at(second)).1).collect();
        let told: Vec<_> = told.into_iter().flatten().collect();
        assert_eq!(told, [1, 61, 121]);
        assert_eq!(outage.failed(at(131)).0, start);
        assert_eq!(outage.over(at(140)), Some(Duration::from_secs(140)));
        assert_eq!(outage.over(at(140)), None);
        assert_eq!(outage.failed(at(200)), (at(200), Some(1)));
    }
}
