//! Why an inference thread ended, and a model that will have nothing of what it is given.

use std::time::{Duration, Instant};

use crate::model::ModelError;
use crate::util::log_limiter::{LogLimiter, like};
use crate::util::panics::Panicked;

/// So many refusals in a row, over so much time, are no accident.
const REFUSALS: u32 = 20;
const REFUSING_FOR: Duration = Duration::from_secs(5);

/// What ended the loop. The caller starts the model again.
#[derive(Debug, thiserror::Error)]
pub enum InferenceFault {
    /// The model process is of no use any more.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model is there and has refused everything for a while.
    #[error("the model refused all of {times} inputs in {:.0} s, the last one with these words: {last}", over.as_secs_f32())]
    Refusing {
        /// Refusals in a row.
        times: u32,
        /// How long that took.
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
}

/// Requests that a model refused, one after the other.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    times: u32,
    since: Option<Instant>,
    said: LogLimiter,
}

impl Refusals {
    /// The model answered.
    pub(super) fn over(&mut self) {
        self.times = 0;
        self.since = None;
    }

    /// A request failed; `what` it was about is skipped.
    ///
    /// # Errors
    /// The model cannot be used any more, or refuses everything.
    pub(super) fn note(&mut self, now: Instant, what: &str, error: ModelError) -> Result<(), InferenceFault> {
        if error.is_fatal() {
            return Err(error.into());
        }
        let over = now.saturating_duration_since(*self.since.get_or_insert(now));
        self.times += 1;
        if self.times >= REFUSALS && over >= REFUSING_FOR {
            return Err(InferenceFault::Refusing {
                times: self.times,
                over,
                last: error,
            });
        }
        // The model is well and will not have this one: the next one may do.
        self.say(now, what, &error);
        Ok(())
    }

    /// Tells that something is skipped.
    pub(super) fn say(&mut self, now: Instant, what: &str, error: &dyn std::error::Error) {
        if let Some(more) = self.said.check_words(now, &error.to_string()) {
            tracing::warn!("{what} cannot be used and is skipped{}: {error}", like(more));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(number: u32) -> ModelError {
        ModelError::Refused {
            request: "the features",
            reason: format!("arena at {number:#x} exhausted"),
        }
    }

    /// How the refusals at these milliseconds end; `None`: the model is kept.
    fn end(times: impl IntoIterator<Item = u64>) -> Option<InferenceFault> {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let mut notes = times
            .into_iter()
            .map(|ms| refusals.note(start + Duration::from_millis(ms), "a frame", refused(ms as u32)));
        notes.find_map(Result::err)
    }

    #[test]
    fn a_model_that_refuses_everything_for_a_while_is_given_up() {
        let fault = end((0..1000).map(|i| i * 10)).unwrap();
        assert!(
            matches!(&fault, InferenceFault::Refusing { times: 501, over, .. } if *over == REFUSING_FOR),
            "{fault}"
        );
        assert!(end((0..20).map(|i| i * 10)).is_none(), "too short a time");
        assert!(end((0..19).map(|i| i * 1000)).is_none(), "too few");
    }

    #[test]
    fn an_answer_in_between_begins_the_count_anew() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        for second in 0..100 {
            refusals
                .note(start + Duration::from_secs(second), "a frame", refused(7))
                .unwrap();
            if second % 10 == 9 {
                refusals.over();
            }
        }
    }
}
