//! Decides whether S3 can be used at the moment, and when it is tried again.

use std::sync::Arc;
use std::time::Instant;

use super::bucket::{BucketClient, BucketOrigin};
use super::error::{RetryPlan, S3Error};
use crate::status::health::HealthFlag;
use crate::util::backoff::{Backoff, BackoffPolicy, Retry};
use crate::util::clock::rounded;
use crate::util::log_limiter::LogLimiter;

/// Most uploads at the same time.
const PARALLEL_UPLOADS: usize = 4;

/// The bucket, and the delays after failures.
#[derive(Debug)]
pub(super) struct BucketAccess {
    bucket: Option<Arc<BucketClient>>,
    is_looking_up: bool,
    /// No request is sent before this time; set after a failure.
    retry_at: Option<Instant>,
    /// Whether the last request failed.
    is_failing: bool,
    backoff: Backoff,
    limiter: LogLimiter,
    flag: HealthFlag,
}

impl BucketAccess {
    pub(super) fn new(flag: HealthFlag) -> Self {
        Self {
            bucket: None,
            is_looking_up: false,
            retry_at: None,
            is_failing: false,
            backoff: Backoff::new(BackoffPolicy::default()),
            limiter: LogLimiter::default(),
            flag,
        }
    }

    /// Whether the caller has to look the bucket up now.
    pub(super) fn start_look_up(&mut self, now: Instant) -> bool {
        let is_due = self.bucket.is_none() && !self.is_looking_up && !self.is_on_hold(now);
        self.is_looking_up |= is_due;
        is_due
    }

    /// Handles the result of a look-up. `waiting` is the number of waiting pairs.
    pub(super) fn on_look_up(
        &mut self,
        result: Result<(BucketClient, BucketOrigin), S3Error>,
        now: Instant,
        waiting: usize,
    ) {
        self.is_looking_up = false;
        match result {
            Ok((bucket, origin)) => {
                let created = origin == BucketOrigin::Created;
                tracing::info!(
                    bucket = bucket.name,
                    region = bucket.region,
                    created,
                    "S3 bucket is ready"
                );
                self.bucket = Some(Arc::new(bucket));
                self.retry_at = None;
                self.flag.set_ok();
            }
            Err(error) => self.on_failure(&error, now, waiting),
        }
    }

    /// The bucket; `None` until it has been looked up.
    pub(super) fn bucket(&self) -> Option<&Arc<BucketClient>> {
        self.bucket.as_ref()
    }

    /// Number of uploads that may run at the same time; only one after a failure.
    pub(super) fn max_uploads(&self, now: Instant) -> usize {
        match self.bucket {
            Some(_) if self.is_on_hold(now) => 0,
            Some(_) if self.is_failing => 1,
            Some(_) => PARALLEL_UPLOADS,
            None => 0,
        }
    }

    /// Whether requests are paused because of a failure.
    pub(super) fn is_on_hold(&self, now: Instant) -> bool {
        self.retry_at(now).is_some()
    }

    /// When S3 is tried again; `None`: now.
    pub(super) fn retry_at(&self, now: Instant) -> Option<Instant> {
        self.retry_at.filter(|retry_at| now < *retry_at)
    }

    pub(super) fn on_success(&mut self) {
        self.flag.set_ok();
        if self.is_failing {
            tracing::info!("S3 uploads work again");
            self.is_failing = false;
            self.backoff = Backoff::new(BackoffPolicy::default());
        }
    }

    /// Sets the delay after a failed request, and logs the failure once a minute. `waiting` is the number of waiting pairs.
    pub(super) fn on_failure(&mut self, error: &S3Error, now: Instant, waiting: usize) {
        self.is_failing = true;
        self.flag.set_failing(error);
        // Several requests that run at the same time fail at the same time; they count as one failure.
        if self.is_on_hold(now) {
            return;
        }
        let plan = error.retry();
        if plan == RetryPlan::LookUp {
            self.bucket = None;
        }
        let needs_change = plan == RetryPlan::Wait(Retry::Later);
        let wait = if needs_change {
            Retry::LATER
        } else {
            self.backoff.failed(now)
        };
        self.retry_at = Some(now + wait);
        let Some(suppressed) = self.limiter.check(now, error.kind()) else {
            return;
        };
        let (suppressed, retry_in) = (suppressed.count(), rounded(wait));
        if needs_change {
            tracing::error!(waiting, ?retry_in, suppressed, %error, "The S3 cache does not work");
        } else {
            tracing::warn!(waiting, ?retry_in, suppressed, %error, "S3 request failed");
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
    fn an_unreachable_s3_is_retried_with_backoff_and_a_refusal_after_a_longer_delay() {
        let (mut access, now) = (BucketAccess::new(HealthFlag::default()), Instant::now());
        assert!(access.start_look_up(now));
        assert!(!access.start_look_up(now), "one look-up at a time");
        access.on_look_up(Err(unreachable()), now, 0);
        let wait = access.retry_at(now).unwrap() - now;
        assert!(
            wait >= Duration::from_secs(1) && wait <= Duration::from_secs(2),
            "{wait:?}"
        );
        assert!(!access.start_look_up(now));

        let later = now + wait;
        assert!(access.start_look_up(later));
        let forbidden = S3Error::Forbidden {
            bucket: "photos".to_owned(),
        };
        access.on_look_up(Err(forbidden), later, 0);
        assert_eq!(access.retry_at(later), Some(later + Retry::LATER));
    }

    #[test]
    fn uploads_that_fail_at_the_same_time_count_as_one_failure() {
        let (mut access, now) = (BucketAccess::new(HealthFlag::default()), Instant::now());
        access.on_failure(&unreachable(), now, 1);
        let due = access.retry_at(now);
        (0..3).for_each(|_| access.on_failure(&unreachable(), now, 1));
        assert_eq!((access.retry_at(now), access.backoff.failures()), (due, 1));
    }
}
