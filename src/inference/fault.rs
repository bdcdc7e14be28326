//! Why an inference loop ended, and when a model that refuses its input counts as failed.

use std::time::{Duration, Instant};

use crate::model::ModelError;
use crate::util::log_limiter::LogLimiter;
use crate::util::panics::Panicked;

/// A model that refuses at least this many inputs in a row, over at least this time, has failed.
const MIN_REFUSALS: u32 = 20;
const MIN_REFUSING_TIME: Duration = Duration::from_secs(5);

/// What ended the loop. The caller starts the model again.
#[derive(Debug, thiserror::Error)]
pub enum InferenceFault {
    /// The model process cannot be used any more.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model is running and refuses every input.
    #[error("the model refused all of {times} inputs within {:.0} s; last error: {last}", over.as_secs_f32())]
    Refusing {
        /// Refusals in a row.
        times: u32,
        /// Time from the first to the last of them.
        over: Duration,
        /// The last one.
        last: ModelError,
    },
    /// The thread panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

impl InferenceFault {
    /// [`ModelError::brief`].
    pub fn brief(&self) -> String {
        match self {
            Self::Model(error) => error.brief(),
            other => other.to_string(),
        }
    }

    /// [`ModelError::output`].
    pub fn output(&self) -> &[String] {
        match self {
            Self::Model(error) | Self::Refusing { last: error, .. } => error.output(),
            Self::Panicked(_) => &[],
        }
    }

    /// [`ModelError::is_stop_signal`].
    pub fn is_stop_signal(&self) -> bool {
        matches!(self, Self::Model(error) if error.is_stop_signal())
    }

    /// Whether the model file is not the one that was downloaded.
    pub fn is_changed_file(&self) -> bool {
        matches!(self, Self::Model(ModelError::Changed { .. }))
    }

    /// [`ModelError::is_models_fault`]. What made this program panic may be an answer of the model.
    pub fn is_models_fault(&self) -> bool {
        match self {
            Self::Model(error) => error.is_models_fault(),
            Self::Refusing { .. } | Self::Panicked(_) => true,
        }
    }
}

/// Counts inputs that a model refuses in a row.
#[derive(Debug, Default)]
pub(super) struct RefusalTracker {
    times: u32,
    since: Option<Instant>,
    log_limiter: LogLimiter,
}

impl RefusalTracker {
    /// The model answered.
    pub(super) fn reset(&mut self) {
        self.times = 0;
        self.since = None;
    }

    /// A request failed; its `input` (for the log) is skipped.
    ///
    /// # Errors
    /// The model cannot be used any more, or refuses every input.
    pub(super) fn refused(&mut self, now: Instant, input: &str, error: ModelError) -> Result<(), InferenceFault> {
        if error.is_fatal() {
            return Err(error.into());
        }
        let over = now.saturating_duration_since(*self.since.get_or_insert(now));
        self.times += 1;
        if self.times >= MIN_REFUSALS && over >= MIN_REFUSING_TIME {
            return Err(InferenceFault::Refusing {
                times: self.times,
                over,
                last: error,
            });
        }
        self.log_skipped(now, input, &error);
        Ok(())
    }

    /// Logs that an input is skipped.
    pub(super) fn log_skipped(&mut self, now: Instant, input: &str, error: &dyn std::error::Error) {
        if let Some(suppressed) = self.log_limiter.check_words(now, &error.to_string()) {
            tracing::warn!(
                input,
                %error,
                suppressed = suppressed.count(),
                "The input cannot be used and is skipped"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(number: u32) -> ModelError {
        ModelError::Refused {
            request: "the features",
            reason: format!("arena at {number:#x} exhausted"),
        }
    }

    /// The fault after refusals at these milliseconds; `None`: the model is kept.
    fn fault_after(times: impl IntoIterator<Item = u64>) -> Option<InferenceFault> {
        let (mut refusals, start) = (RefusalTracker::default(), Instant::now());
        let mut outcomes = times
            .into_iter()
            .map(|ms| refusals.refused(start + Duration::from_millis(ms), "frame", refusal(ms as u32)));
        outcomes.find_map(Result::err)
    }

    #[test]
    fn a_model_that_refuses_every_input_for_five_seconds_has_failed() {
        let fault = fault_after((0..1000).map(|i| i * 10)).unwrap();
        assert!(
            matches!(&fault, InferenceFault::Refusing { times: 501, over, .. } if *over == MIN_REFUSING_TIME),
            "{fault}"
        );
        assert!(fault_after((0..20).map(|i| i * 10)).is_none(), "too short a time");
        assert!(fault_after((0..19).map(|i| i * 1000)).is_none(), "too few");
    }

    #[test]
    fn an_answer_in_between_resets_the_count() {
        let (mut refusals, start) = (RefusalTracker::default(), Instant::now());
        for second in 0..100 {
            refusals
                .refused(start + Duration::from_secs(second), "frame", refusal(7))
                .unwrap();
            if second % 10 == 9 {
                refusals.reset();
            }
        }
    }
}
