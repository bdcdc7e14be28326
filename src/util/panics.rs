//! A panic is a fault of the part in which it happens: that part is started again, and the others go on.
//!
//! The panic hook has written the place to stderr by the time these functions return.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::util::log_limiter::{LogLimiter, like};

/// Something panicked. Its text is what the panic said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a fault in this program, please report it: panic: {0}")]
pub struct Panicked(String);

impl Panicked {
    fn new(payload: Box<dyn Any + Send>) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned());
        Self(text.unwrap_or_else(|| "it said nothing".to_owned()))
    }
}

/// Does `work` and gives what it returns.
///
/// What it borrowed may be half changed after a panic: the caller goes on with nothing that could mind.
///
/// # Errors
/// [`Panicked`], when it did.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(Panicked::new)
}

/// The same for a future.
///
/// # Errors
/// [`Panicked`], when it did.
pub async fn caught_in<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(Panicked::new)
}

/// What is said of a part that panics, and how long it waits before it is started again.
pub struct PanicRestart {
    what: &'static str,
    backoff: Backoff,
    said: LogLimiter,
}

impl PanicRestart {
    /// For the part that log lines call `what`.
    pub fn new(what: &'static str) -> Self {
        Self::with_policy(what, BackoffPolicy::default())
    }

    /// The same with other waits.
    pub fn with_policy(what: &'static str, policy: BackoffPolicy) -> Self {
        Self {
            what,
            backoff: Backoff::new(policy),
            said: LogLimiter::default(),
        }
    }

    /// Does `work`, which runs until it is to end.
    ///
    /// # Errors
    /// It panicked, which was said; so long is to be waited before the next attempt.
    pub async fn attempt<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Duration> {
        self.backoff.succeeded(Instant::now());
        let panicked = match caught_in(work).await {
            Ok(done) => return Ok(done),
            Err(panicked) => panicked,
        };
        let now = Instant::now();
        let wait = self.backoff.failed(now);
        if let Some(more) = self.said.check_words(now, &panicked.to_string()) {
            tracing::error!(
                "{} is started again in {:.1} s{}: {panicked}",
                self.what,
                wait.as_secs_f32(),
                like(more)
            );
        }
        Err(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_comes_back_with_its_words() {
        assert_eq!(caught(|| 7), Ok(7));
        let words = |result: Result<(), Panicked>| result.unwrap_err().to_string();
        assert!(words(caught(|| panic!("plain"))).ends_with("panic: plain"));
        assert!(words(caught(|| panic!("number {}", 5))).ends_with("panic: number 5"));
        assert!(words(caught(|| std::panic::panic_any(5))).ends_with("it said nothing"));
    }

    #[tokio::test]
    async fn what_panics_is_started_again_until_it_ends() {
        let wait = Duration::from_millis(1);
        let mut relief = PanicRestart::with_policy(
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
            match relief.attempt(work).await {
                Ok(done) => break done,
                Err(pause) => assert_eq!(pause, wait),
            }
        };
        assert_eq!(done, 3);
    }
}
