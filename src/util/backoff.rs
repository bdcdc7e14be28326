//! Exponential backoff with full jitter, for every retry and restart.

use std::fmt;
use std::time::{Duration, Instant};

/// When to retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The fault may be transient: retry with backoff.
    Soon,
    /// The request was refused, and a retry fails until a setting is changed: retry every [`Retry::LATER`].
    Later,
}

impl Retry {
    /// The delay between two attempts after a refusal.
    pub const LATER: Duration = Duration::from_secs(300);
}

/// Delays between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// Shortest delay.
    pub min: Duration,
    /// Longest delay.
    pub max: Duration,
    /// After a run of this length without a failure, the delays start at `min` again.
    pub reset_after: Duration,
}

impl Default for BackoffPolicy {
    /// 1 s to 60 s, reset after 60 s.
    fn default() -> Self {
        Self {
            min: Duration::from_secs(1),
            max: Duration::from_secs(60),
            reset_after: Duration::from_secs(60),
        }
    }
}

/// Random fractions 0 <= x < 1.
pub type Jitter = Box<dyn FnMut() -> f64 + Send>;

/// Exponential backoff with full jitter: the nth delay in a row is a random value between `min` and `min * 2^n`, at most `max`.
/// It does not sleep and does not read a clock; the caller does both.
pub struct Backoff {
    policy: BackoffPolicy,
    jitter: Jitter,
    failures: u32,
    running_since: Option<Instant>,
}

impl Backoff {
    /// A backoff with the random generator of the thread.
    pub fn new(policy: BackoffPolicy) -> Self {
        Self::with_jitter(policy, Box::new(rand::random::<f64>))
    }

    /// A backoff with its own source of randomness.
    pub fn with_jitter(policy: BackoffPolicy, jitter: Jitter) -> Self {
        Self {
            policy,
            jitter,
            failures: 0,
            running_since: None,
        }
    }

    /// Records that the attempt succeeded at `now`.
    pub fn succeeded(&mut self, now: Instant) {
        self.running_since = Some(now);
    }

    /// Records that the attempt or the run failed at `now`, and returns the delay before the next attempt.
    pub fn failed(&mut self, now: Instant) -> Duration {
        let ran = self
            .running_since
            .take()
            .map(|since| now.saturating_duration_since(since));
        if ran.is_some_and(|ran| ran >= self.policy.reset_after) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let BackoffPolicy { min, max, .. } = self.policy;
        let ceiling = min
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(max);
        min.min(max) + ceiling.saturating_sub(min).mul_f64((self.jitter)().clamp(0.0, 1.0))
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

impl fmt::Debug for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backoff")
            .field("policy", &self.policy)
            .field("failures", &self.failures)
            .field("running_since", &self.running_since)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(waits: impl IntoIterator<Item = Duration>) -> Vec<u64> {
        waits.into_iter().map(|wait| wait.as_secs()).collect()
    }

    #[test]
    fn the_longest_wait_doubles_up_to_a_minute() {
        let now = Instant::now();
        let mut backoff = Backoff::with_jitter(BackoffPolicy::default(), Box::new(|| 1.0));
        assert_eq!(
            seconds((0..8).map(|_| backoff.failed(now))),
            [2, 4, 8, 16, 32, 60, 60, 60]
        );
        assert_eq!(backoff.failures(), 8);
    }

    #[test]
    fn the_shortest_wait_stays_a_second_and_a_thousand_failures_do_not_overflow() {
        let now = Instant::now();
        let mut backoff = Backoff::with_jitter(BackoffPolicy::default(), Box::new(|| 0.0));
        assert!((0..1000).all(|_| backoff.failed(now) == Duration::from_secs(1)));
    }

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        let now = Instant::now();
        let mut backoff = Backoff::new(BackoffPolicy::default());
        let waits: Vec<_> = (0..200).map(|_| backoff.failed(now).as_secs()).skip(8).collect();
        assert!(waits.iter().any(|wait| *wait < 15) && waits.iter().any(|wait| *wait > 45));
        assert!(waits.iter().all(|wait| (1..=60).contains(wait)));
    }

    #[test]
    fn a_run_of_a_minute_resets_the_backoff_and_a_shorter_one_does_not() {
        let start = Instant::now();
        let mut backoff = Backoff::with_jitter(BackoffPolicy::default(), Box::new(|| 1.0));
        for _ in 0..4 {
            backoff.failed(start);
        }
        backoff.succeeded(start);
        assert_eq!(backoff.failed(start + Duration::from_secs(59)).as_secs(), 32);
        backoff.succeeded(start);
        assert_eq!(backoff.failed(start + Duration::from_secs(60)).as_secs(), 2);
    }
}
