//! The bytes that samples of the component's own choice may take within a day.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::status::damaged_files;
use crate::status::stats::Stats;
use crate::util::aged_file::AgedFile;
use crate::util::foreign_files;
use crate::util::sliding_window::SlidingWindow;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Entries of a full day.
const STEPS: u32 = 24;

/// Counts the bytes of the last 24 hours, over restarts too.
#[derive(Debug)]
pub(super) struct DailyBytes {
    sent: SlidingWindow,
    file: AgedFile,
    began: Instant,
    stats: Arc<Stats>,
}

impl DailyBytes {
    pub(super) fn new(path: PathBuf, now: Instant, stats: Arc<Stats>) -> Self {
        Self {
            sent: SlidingWindow::new(DAY, STEPS),
            file: AgedFile::new(path),
            began: now,
            stats,
        }
    }

    /// Takes over what an earlier process sent.
    pub(super) fn load(&mut self, now: Instant) {
        match self.file.load::<Vec<(u64, u64)>>() {
            Ok(Some((ages, elapsed))) => {
                let now = self.time(now);
                self.sent.restore(now, elapsed, &ages);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "The number of bytes sent to Edge Impulse Studio today cannot be read; it starts at 0");
                if !foreign_files::is_foreign(&error) {
                    damaged_files::set_aside(self.file.path(), &error, &self.stats);
                }
            }
        }
    }

    /// How many more bytes may be sent now.
    pub(super) fn room(&mut self, now: Instant, limit: u64) -> u64 {
        let now = self.time(now);
        limit.saturating_sub(self.sent.sum(now))
    }

    /// Counts bytes that are about to be sent. They are on disk when this returns, so that a process that ends at once and starts
    /// again does not send without end.
    pub(super) fn charge(&mut self, now: Instant, bytes: u64) {
        let now = self.time(now);
        self.sent.add(now, bytes);
        self.save(now);
    }

    /// Takes back a charge: nothing was sent.
    pub(super) fn refund(&mut self, now: Instant, bytes: u64) {
        self.sent.take_back(bytes);
        let now = self.time(now);
        self.save(now);
    }

    fn save(&mut self, now: Duration) {
        let ages = self.sent.ages(now);
        if let Err(error) = self.file.save(ages) {
            tracing::warn!(%error, "The number of bytes sent to Edge Impulse Studio today cannot be written");
        }
    }

    /// The time of the window, with room for what an earlier process sent.
    fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began) + 2 * DAY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_day_are_bounded_over_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bytes.json");
        let now = Instant::now();
        let mut first = DailyBytes::new(path.clone(), now, Arc::default());
        first.load(now);
        assert_eq!(first.room(now, 100), 100);
        first.charge(now, 70);
        first.charge(now, 20);
        first.refund(now, 20);
        for _ in 0..3 {
            let mut next = DailyBytes::new(path.clone(), now, Arc::default());
            next.load(now);
            assert_eq!(next.room(now, 100), 30);
            next.charge(now, 0);
        }
        assert_eq!(first.room(now + DAY - Duration::from_secs(1), 100), 30);
        assert_eq!(first.room(now + DAY + Duration::from_secs(3601), 100), 100);
    }
}
