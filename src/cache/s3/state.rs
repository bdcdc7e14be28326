//! Whether S3 can be used at the moment, and when it is tried again.

use std::sync::Arc;
use std::time::Instant;

use super::client::{Bucket, Found};
use super::error::{RetryPlan, S3Error};
use crate::status::health::HealthFlag;
use crate::util::backoff::{Backoff, BackoffPolicy, Retry};
use crate::util::log_limiter::{LogLimiter, like};

/// Uploads side by side.
const UPLOADS: usize = 4;

/// The way to the bucket.
#[derive(Debug)]
pub(super) struct State {
    bucket: Option<Arc<Bucket>>,
    looking_up: bool,
    /// After a failure: nothing is tried before this.
    hold: Option<Instant>,
    /// Whether the last that was heard of S3 was a failure.
    failing: bool,
    backoff: Backoff,
    said: LogLimiter,
    flag: HealthFlag,
}

impl State {
    pub(super) fn new(flag: HealthFlag) -> Self {
        Self {
            bucket: None,
            looking_up: false,
            hold: None,
            failing: false,
            backoff: Backoff::new(BackoffPolicy::default()),
            said: LogLimiter::default(),
            flag,
        }
    }

    /// Whether the bucket is to be looked up now.
    pub(super) fn begins_look_up(&mut self, now: Instant) -> bool {
        let begins = self.bucket.is_none() && !self.looking_up && !self.holds(now);
        self.looking_up |= begins;
        begins
    }

    /// The bucket was looked up.
    pub(super) fn looked_up(&mut self, result: Result<(Bucket, Found), S3Error>, now: Instant, waiting: usize) {
        self.looking_up = false;
        match result {
            Ok((bucket, found)) => {
                let made = if found == Found::Created { ", made just now" } else { "" };
                tracing::info!(
                    "the S3 cache uses the bucket {} in {}{made}",
                    bucket.name,
                    bucket.region
                );
                self.bucket = Some(Arc::new(bucket));
                self.hold = None;
                self.flag.set_ok();
            }
            Err(error) => self.failed(&error, now, waiting),
        }
    }

    /// The bucket, once it was found.
    pub(super) fn bucket(&self) -> Option<&Arc<Bucket>> {
        self.bucket.as_ref()
    }

    /// Uploads that may be under way at once. One, to try, after a failure.
    pub(super) fn uploads(&self, now: Instant) -> usize {
        match self.bucket {
            Some(_) if self.holds(now) => 0,
            Some(_) if self.failing => 1,
            Some(_) => UPLOADS,
            None => 0,
        }
    }

    /// Whether a failure is being waited out.
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.hold.is_some_and(|until| now < until)
    }

    /// When something is to be tried that is not tried now.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.hold.filter(|until| now < *until)
    }

    /// S3 took something.
    pub(super) fn succeeded(&mut self) {
        self.flag.set_ok();
        if self.failing {
            tracing::info!("S3 takes pairs again");
            self.failing = false;
            self.backoff = Backoff::new(BackoffPolicy::default());
        }
    }

    /// S3 took something not. Says so once a minute, and waits. `waiting`: pairs that do so.
    pub(super) fn failed(&mut self, error: &S3Error, now: Instant, waiting: usize) {
        self.failing = true;
        self.flag.set_failing(error);
        // Those that were under way together fail together.
        if self.holds(now) {
            return;
        }
        let retry = error.retry();
        if retry == RetryPlan::LookUp {
            self.bucket = None;
        }
        let needs_change = retry == RetryPlan::Wait(Retry::Later);
        let wait = if needs_change {
            Retry::LATER
        } else {
            self.backoff.failed(now)
        };
        self.hold = Some(now + wait);
        let Some(more) = self.said.check(now, error.kind()) else {
            return;
        };
        let again = format!("tried again in {:.0} s{}", wait.as_secs_f32().ceil(), like(more));
        if needs_change {
            tracing::error!("the S3 cache does not work; {waiting} pairs wait, {again}: {error}");
        } else {
            tracing::warn!("S3 takes no pairs; {waiting} wait, {again}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::AwsError;
    use std::time::Duration;

    fn unreachable() -> S3Error {
        AwsError::Unreachable {
            service: "S3".to_owned(),
            reason: "connection refused".to_owned(),
        }
        .into()
    }

    #[test]
    fn a_network_that_is_away_is_tried_with_backoff_and_a_refusal_after_minutes() {
        let (mut state, now) = (State::new(HealthFlag::default()), Instant::now());
        assert!(state.begins_look_up(now));
        assert!(!state.begins_look_up(now), "one look-up at a time");
        state.looked_up(Err(unreachable()), now, 0);
        let wait = state.due(now).unwrap() - now;
        assert!(
            wait >= Duration::from_secs(1) && wait <= Duration::from_secs(2),
            "{wait:?}"
        );
        assert!(!state.begins_look_up(now));

        let later = now + wait;
        assert!(state.begins_look_up(later));
        let forbidden = S3Error::Forbidden {
            bucket: "photos".to_owned(),
        };
        state.looked_up(Err(forbidden), later, 0);
        assert_eq!(state.due(later), Some(later + Retry::LATER));
    }

    #[test]
    fn uploads_that_fail_together_count_as_one_failure() {
        let (mut state, now) = (State::new(HealthFlag::default()), Instant::now());
        state.failed(&unreachable(), now, 1);
        let due = state.due(now);
        (0..3).for_each(|_| state.failed(&unreachable(), now, 1));
        assert_eq!((state.due(now), state.backoff.failures()), (due, 1));
    }
}
