//! Logs once a minute how many messages were lost.

use std::time::Instant;

use crate::util::log_limiter::LogLimiter;

/// Messages lost since the last log line.
#[derive(Debug, Default)]
pub(super) struct DropReport {
    /// Inferences that did not fit into memory.
    pub inferences: u64,
    /// Answers and notices that did not fit into memory.
    pub urgent: u64,
    /// Inferences that did not fit into the spool.
    pub spooled: u64,
    log_limiter: LogLimiter,
}

impl DropReport {
    /// Logs the losses, at most once a minute.
    pub fn log(&mut self, now: Instant) {
        if self.has_losses() && self.log_limiter.check(now, "drops").is_some() {
            self.log_now();
        }
    }

    /// Logs the losses at once; used at the stop.
    pub fn log_now(&mut self) {
        if self.inferences > 0 || self.urgent > 0 {
            tracing::error!(
                inferences = self.inferences,
                others = self.urgent,
                "The broker does not take messages fast enough and the memory for them is full; the oldest were lost"
            );
        }
        if self.spooled > 0 {
            tracing::error!(
                inferences = self.spooled,
                advice = "spool_max_mb sets the size of the spool",
                "The spool on disk is full; the oldest undelivered inferences were lost"
            );
        }
        (self.inferences, self.urgent, self.spooled) = (0, 0, 0);
    }

    fn has_losses(&self) -> bool {
        self.inferences > 0 || self.urgent > 0 || self.spooled > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_one_kind_are_logged_and_counted_from_zero_again() {
        for losses in [(1, 0, 0), (0, 1, 0), (0, 0, 1)] {
            let mut report = DropReport::default();
            (report.inferences, report.urgent, report.spooled) = losses;
            report.log(Instant::now());
            assert_eq!(
                (report.inferences, report.urgent, report.spooled),
                (0, 0, 0),
                "{losses:?}"
            );
        }
    }
}
