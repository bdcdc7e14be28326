//! How many inputs may be uploaded, and when.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::candidate::CollectReason;
use super::likeness::PictureHash;
use crate::config::FrameCollectionConfig;
use crate::util::sliding_window::SlidingWindow;

const HOUR: Duration = Duration::from_secs(3600);
/// The minutes of an hour.
const STEPS: u32 = 60;
/// The time of the limits begins with this, so that there is room for what an earlier process did: it is longer than all limits.
pub(super) const BEGINNING: Duration = Duration::from_secs(8 * 24 * 3600);
/// The inputs of an hour are spread: the pause after each is the hour, divided by their number and this.
const SPREAD: u32 = 2;

/// What must be known after a restart. Times are ages in milliseconds.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedLimits {
    taken: Vec<(u64, u64)>,
    last_taken: Option<u64>,
    last_regular: Option<u64>,
    last_hash: Option<PictureHash>,
}

/// Counts what was taken. All times are since [`BEGINNING`] before the start of the process.
#[derive(Debug)]
pub(super) struct FrameLimits {
    taken: SlidingWindow,
    last_taken: Option<Duration>,
    last_regular: Option<Duration>,
    /// The picture that was taken last.
    last_hash: Option<PictureHash>,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            taken: SlidingWindow::new(HOUR, STEPS),
            last_taken: None,
            last_regular: None,
            last_hash: None,
        }
    }
}

impl FrameLimits {
    /// Whether an input may be taken because of its values.
    pub(super) fn is_open(&mut self, now: Duration, config: &FrameCollectionConfig) -> bool {
        if config.band.is_none() || config.per_hour == 0 {
            return false;
        }
        let pause = HOUR / (config.per_hour * SPREAD);
        self.last_taken.is_none_or(|last| now >= last + pause) && self.taken.sum(now) < u64::from(config.per_hour)
    }

    /// Whether an input is to be taken in any case.
    pub(super) fn is_regular_due(&self, now: Duration, config: &FrameCollectionConfig) -> bool {
        config
            .every
            .is_some_and(|every| self.last_regular.is_none_or(|last| now >= last + every))
    }

    /// Whether the picture looks like the one that was taken last.
    pub(super) fn is_like_the_last(&self, hash: PictureHash) -> bool {
        self.last_hash.is_some_and(|last| last.is_like(hash))
    }

    /// Counts an input, if the limits still allow it.
    pub(super) fn take(
        &mut self,
        now: Duration,
        config: &FrameCollectionConfig,
        reason: CollectReason,
        hash: Option<PictureHash>,
    ) -> bool {
        match reason {
            CollectReason::Regular if self.is_regular_due(now, config) => self.last_regular = Some(now),
            CollectReason::Uncertain | CollectReason::LabelFlicker if self.is_open(now, config) => {
                self.last_taken = Some(now);
                self.taken.add(now, 1);
            }
            _ => return false,
        }
        self.last_hash = hash.or(self.last_hash);
        true
    }

    pub(super) fn saved(&mut self, now: Duration) -> SavedLimits {
        let age = |at: Option<Duration>| at.map(|at| now.saturating_sub(at).as_millis() as u64);
        SavedLimits {
            taken: self.taken.ages(now),
            last_taken: age(self.last_taken),
            last_regular: age(self.last_regular),
            last_hash: self.last_hash,
        }
    }

    /// Takes over what an earlier process saved `elapsed` ago.
    pub(super) fn restore(&mut self, now: Duration, elapsed: Duration, saved: &SavedLimits) {
        let at =
            |age: Option<u64>| age.map(|age| now.saturating_sub(elapsed).saturating_sub(Duration::from_millis(age)));
        self.taken.restore(now, elapsed, &saved.taken);
        self.last_taken = at(saved.last_taken);
        self.last_regular = at(saved.last_regular);
        self.last_hash = saved.last_hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SampleCategory, ValueBand};

    fn config(per_hour: u32, every: Option<Duration>) -> FrameCollectionConfig {
        FrameCollectionConfig {
            band: Some(ValueBand { low: 0.4, high: 0.6 }),
            per_hour,
            every,
            category: SampleCategory::Training,
            bytes_per_day: 1 << 20,
        }
    }

    fn take(limits: &mut FrameLimits, now: Duration, config: &FrameCollectionConfig) -> bool {
        limits.take(now, config, CollectReason::Uncertain, None)
    }

    /// The times in seconds at which one of the frames of 30 hours, one a second, is taken.
    fn times(config: &FrameCollectionConfig) -> Vec<u64> {
        let mut limits = FrameLimits::default();
        let seconds = 0..30 * 3600;
        seconds
            .filter(|second| take(&mut limits, BEGINNING + Duration::from_secs(*second), config))
            .collect()
    }

    #[test]
    fn no_hour_has_more_than_its_number_and_they_are_spread() {
        for per_hour in [1, 10, 60, 900] {
            let times = times(&config(per_hour, None));
            for (n, at) in times.iter().enumerate() {
                let within = times[n..].iter().take_while(|later| **later < at + 3600).count();
                assert!(within <= per_hour as usize, "{per_hour} an hour: {within} after {at}");
            }
            let least = u64::from(3600 / (per_hour * SPREAD));
            assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= least), "{per_hour}");
            assert!(
                times.len() >= per_hour as usize * 29,
                "{per_hour} an hour: {}",
                times.len()
            );
        }
        assert!(times(&config(0, None)).is_empty());
    }

    #[test]
    fn regular_inputs_have_their_own_time() {
        let config = config(1, Some(Duration::from_secs(600)));
        let mut limits = FrameLimits::default();
        assert!(take(&mut limits, BEGINNING, &config));
        let regular = |limits: &mut FrameLimits, seconds| {
            let now = BEGINNING + Duration::from_secs(seconds);
            limits.take(now, &config, CollectReason::Regular, None)
        };
        assert!(
            regular(&mut limits, 0),
            "the first is due at once, whatever else was taken"
        );
        assert!(!regular(&mut limits, 599));
        assert!(regular(&mut limits, 600));
    }

    #[test]
    fn a_restart_does_not_reset_the_limits() {
        let config = config(2, Some(Duration::from_secs(600)));
        let mut saved = SavedLimits::default();
        let mut taken = 0;
        // A process that ends every second and starts again a second later.
        for _ in 0..600 {
            let mut limits = FrameLimits::default();
            limits.restore(BEGINNING, Duration::from_secs(1), &saved);
            taken += usize::from(take(&mut limits, BEGINNING, &config));
            saved = limits.saved(BEGINNING + Duration::from_secs(1));
        }
        assert_eq!(taken, 2, "20 minutes");
        let mut limits = FrameLimits::default();
        limits.restore(BEGINNING, Duration::from_secs(3600), &saved);
        assert!(take(&mut limits, BEGINNING, &config), "an hour later");
    }

    #[test]
    fn the_last_picture_is_known_after_a_restart() {
        let hash: PictureHash = serde_json::from_str("18446744073709551615").unwrap();
        let mut before = FrameLimits::default();
        assert!(!before.is_like_the_last(hash));
        assert!(before.take(BEGINNING, &config(1, None), CollectReason::Uncertain, Some(hash)));
        let text = serde_json::to_string(&before.saved(BEGINNING)).unwrap();
        let mut after = FrameLimits::default();
        after.restore(BEGINNING, Duration::ZERO, &serde_json::from_str(&text).unwrap());
        assert!(after.is_like_the_last(hash));
    }
}
