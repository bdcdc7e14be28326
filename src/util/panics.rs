//! Catches panics, so that a panic restarts one task and the others continue.
//!
//! When these functions return, the panic hook has already written the source location to stderr.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::util::clock::rounded;
use crate::util::log_limiter::LogLimiter;

/// A caught panic with its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a fault in this program, please report it: panic: {0}")]
pub struct Panicked(String);

impl Panicked {
    fn new(payload: Box<dyn Any + Send>) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned());
        Self(text.unwrap_or_else(|| "no message".to_owned()))
    }
}

/// Runs `work` and returns its result.
///
/// After a panic, values that `work` borrowed may be inconsistent; the caller must not depend on them.
///
/// # Errors
/// [`Panicked`], if `work` panics.
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(Panicked::new)
}

/// Like [`catch_panic`], for a future.
///
/// # Errors
/// [`Panicked`], if `work` panics.
pub async fn catch_panic_in<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(Panicked::new)
}

/// Logs the panics of a task that restarts after each of them, with backoff.
pub struct PanicRestart {
    task: &'static str,
    backoff: Backoff,
    log_limiter: LogLimiter,
}

impl PanicRestart {
    /// `task` is the name of the task in log lines.
    pub fn new(task: &'static str) -> Self {
        Self::with_policy(task, BackoffPolicy::default())
    }

    /// Like [`Self::new`], with another backoff.
    pub fn with_policy(task: &'static str, policy: BackoffPolicy) -> Self {
        Self {
            task,
            backoff: Backoff::new(policy),
            log_limiter: LogLimiter::default(),
        }
    }

    /// Runs `work` until it ends or panics.
    ///
    /// # Errors
    /// The task panicked (already logged); retry after this delay.
    pub async fn attempt<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Duration> {
        self.backoff.succeeded(Instant::now());
        let panicked = match catch_panic_in(work).await {
            Ok(done) => return Ok(done),
            Err(panicked) => panicked,
        };
        let now = Instant::now();
        let wait = self.backoff.failed(now);
        if let Some(suppressed) = self.log_limiter.check_words(now, &panicked.to_string()) {
            tracing::error!(
                task = self.task,
                retry_in = ?rounded(wait),
                suppressed = suppressed.count(),
                error = %panicked,
                "A task panicked and restarts"
            );
        }
        Err(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caught_panic_has_the_message_of_the_panic() {
        assert_eq!(catch_panic(|| 7), Ok(7));
        let message = |result: Result<(), Panicked>| result.unwrap_err().to_string();
        assert!(message(catch_panic(|| panic!("plain"))).ends_with("panic: plain"));
        assert!(message(catch_panic(|| panic!("number {}", 5))).ends_with("panic: number 5"));
        assert!(message(catch_panic(|| std::panic::panic_any(5))).ends_with("no message"));
    }

    #[tokio::test]
    async fn a_task_that_panics_is_retried_until_it_succeeds() {
        let wait = Duration::from_millis(1);
        let mut panic_restart = PanicRestart::with_policy(
            "the test",
            BackoffPolicy {
                min: wait,
                max: wait,
                reset_after: wait,
            },
        );
        let mut attempts = 0;
        let done = loop {
            attempts += 1;
            let work = async {
                tokio::task::yield_now().await;
                assert!(attempts > 2, "attempt {attempts}");
                attempts
            };
            match panic_restart.attempt(work).await {
                Ok(done) => break done,
                Err(pause) => assert_eq!(pause, wait),
            }
        };
        assert_eq!(done, 3);
    }
}
