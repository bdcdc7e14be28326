//! The sum of amounts over a sliding time, with few entries.

use std::collections::VecDeque;
use std::time::Duration;

/// Sums what was added within a time. Amounts that are added close together share an entry, and an entry counts until its last
/// amount is older than the time: the sum is never too low.
#[derive(Debug)]
pub(crate) struct SlidingWindow {
    length: Duration,
    /// Amounts within this time share an entry.
    step: Duration,
    /// When each entry began, and its amount.
    entries: VecDeque<(Duration, u64)>,
    /// The sum of all entries; those that a file has may exceed 64 bits together.
    total: u128,
}

impl SlidingWindow {
    /// `steps`: into how many entries a full window is divided, at least 1.
    pub(crate) fn new(length: Duration, steps: u32) -> Self {
        Self {
            length,
            step: length / steps.max(1),
            entries: VecDeque::new(),
            total: 0,
        }
    }

    /// Adds an amount. `now`: the time since some beginning; it never goes back.
    pub(crate) fn add(&mut self, now: Duration, amount: u64) {
        self.forget(now);
        let added = match self.entries.back_mut() {
            Some((began, sum)) if now < *began + self.step => {
                let before = *sum;
                *sum = sum.saturating_add(amount);
                *sum - before
            }
            _ => {
                self.entries.push_back((now, amount));
                amount
            }
        };
        self.total += u128::from(added);
    }

    /// Takes back an amount that was added last.
    pub(crate) fn take_back(&mut self, amount: u64) {
        if let Some((_, sum)) = self.entries.back_mut() {
            let amount = amount.min(*sum);
            *sum -= amount;
            self.total -= u128::from(amount);
        }
    }

    /// The sum.
    pub(crate) fn sum(&mut self, now: Duration) -> u64 {
        self.forget(now);
        u64::try_from(self.total).unwrap_or(u64::MAX)
    }

    fn forget(&mut self, now: Duration) {
        while let Some((began, amount)) = self.entries.front().copied()
            && now >= began + self.step + self.length
        {
            self.entries.pop_front();
            self.total -= u128::from(amount);
        }
    }

    /// The age of each entry in milliseconds, and its amount.
    pub(crate) fn ages(&mut self, now: Duration) -> Vec<(u64, u64)> {
        self.forget(now);
        let age = |began: Duration| now.saturating_sub(began).as_millis() as u64;
        self.entries
            .iter()
            .map(|(began, amount)| (age(*began), *amount))
            .collect()
    }

    /// Adds the entries of an earlier process, as [`Self::ages`] returned them `elapsed` ago. `now` must be at least the time of
    /// the window and a step.
    pub(crate) fn restore(&mut self, now: Duration, elapsed: Duration, ages: &[(u64, u64)]) {
        for (age, amount) in ages {
            let began = now.saturating_sub(elapsed).saturating_sub(Duration::from_millis(*age));
            self.total += u128::from(*amount);
            self.entries.push_back((began, *amount));
        }
        self.entries.make_contiguous().sort_unstable();
        self.forget(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(minutes * 60)
    }

    #[test]
    fn an_amount_counts_for_the_whole_time_and_not_much_longer() {
        let mut window = SlidingWindow::new(HOUR, 60);
        window.add(minutes(100), 5);
        assert_eq!(window.sum(minutes(159)), 5);
        assert_eq!(window.sum(minutes(161)), 0);
    }

    #[test]
    fn amounts_outlive_a_restart_with_their_age() {
        let mut before = SlidingWindow::new(HOUR, 60);
        before.add(minutes(10), 1);
        before.add(minutes(40), 2);
        let ages = before.ages(minutes(50));
        let mut after = SlidingWindow::new(HOUR, 60);
        after.restore(minutes(1000), minutes(5), &ages);
        assert_eq!(after.sum(minutes(1000)), 3);
        assert_eq!(after.sum(minutes(1017)), 2, "the first is 62 minutes old");
        assert_eq!(after.sum(minutes(1047)), 0);
    }

    #[test]
    fn an_amount_can_be_taken_back() {
        let mut window = SlidingWindow::new(HOUR, 60);
        window.add(minutes(100), 5);
        window.add(minutes(110), 7);
        window.take_back(7);
        assert_eq!(window.sum(minutes(110)), 5);
        window.take_back(7);
        assert_eq!(window.sum(minutes(110)), 5, "more than was added last");
    }

    #[test]
    fn amounts_of_a_file_that_exceed_64_bits_together_are_forgotten_one_after_the_other() {
        let mut window = SlidingWindow::new(HOUR, 60);
        let hours_ago = |hours: u64| hours * 3_600_000;
        window.restore(
            minutes(1000),
            Duration::ZERO,
            &[(hours_ago(2), u64::MAX), (hours_ago(1), u64::MAX), (0, 7)],
        );
        assert_eq!(window.sum(minutes(1000)), u64::MAX);
        window.add(minutes(1000), u64::MAX);
        assert_eq!(window.sum(minutes(1030)), u64::MAX);
        assert_eq!(window.sum(minutes(1200)), 0);
    }

    proptest! {
        #[test]
        fn the_sum_is_never_lower_than_the_true_one(steps in prop::collection::vec((0u64..900, 1u64..9), 1..60)) {
            let mut window = SlidingWindow::new(HOUR, 24);
            let (mut now, mut added) = (Duration::from_secs(100_000), Vec::new());
            for (wait, amount) in steps {
                now += Duration::from_secs(wait);
                window.add(now, amount);
                added.push((now, amount));
                let exact: u64 = added.iter().filter(|(at, _)| now - *at < HOUR).map(|(_, amount)| amount).sum();
                prop_assert!(window.sum(now) >= exact);
                prop_assert!(window.entries.len() <= 26);
            }
        }
    }
}
