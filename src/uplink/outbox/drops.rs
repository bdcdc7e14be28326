//! Says once a minute how much was lost.

use std::time::{Duration, Instant};

const REPORT_EVERY: Duration = Duration::from_secs(60);

/// What was lost since the last report.
#[derive(Debug, Default)]
pub(super) struct DropReport {
    /// Inferences for which memory was too small.
    pub inferences: u64,
    /// Answers and notices.
    pub urgent: u64,
    /// Inferences for which the spool was too small.
    pub spooled: u64,
    reported: Option<Instant>,
}

impl DropReport {
    /// One line for each kind of loss, if the last is a minute ago.
    pub fn report(&mut self, now: Instant) {
        let due = self
            .reported
            .is_none_or(|last| now.saturating_duration_since(last) >= REPORT_EVERY);
        if !due {
            return;
        }
        self.say(now);
    }

    /// Before the end: whenever the last line was.
    pub fn say(&mut self, now: Instant) {
        if self.inferences > 0 || self.urgent > 0 {
            tracing::error!(
                "The broker does not take messages fast enough and memory for them is full: {} inferences and {} answers or \
                 notices were lost, the oldest first, since the last such line",
                self.inferences,
                self.urgent
            );
        }
        if self.spooled > 0 {
            tracing::error!(
                "The spool on disk is full: {} undelivered inferences were dropped, the oldest first, since the last such \
                 line; spool_max_mb sets how much it holds",
                self.spooled
            );
        }
        if self.inferences > 0 || self.urgent > 0 || self.spooled > 0 {
            *self = Self {
                reported: Some(now),
                ..Self::default()
            };
        }
    }
}
