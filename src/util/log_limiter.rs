//! Limits how often the same log line is written: at once, then once a minute with the number of suppressed lines.

use std::time::{Duration, Instant};

/// The same line is written at most once in this time.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// Most different lines that a limiter remembers. Beyond that, it forgets the line that was written longest ago.
const MAX_KEYS: usize = 16;

/// Most bytes of a line that are remembered and compared. Some lines repeat what a server answered.
const MAX_KEY_BYTES: usize = 512;

/// Number of similar lines that were suppressed since the last one was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suppressed(u64);

impl Suppressed {
    /// Value of the log field `suppressed`; `None`, which adds no field, if no line was suppressed.
    pub fn count(self) -> Option<u64> {
        (self.0 > 0).then_some(self.0)
    }
}

/// Decides whether a repeated event is logged. Each call receives the time.
///
/// ```
/// # use ei_greengrass::util::log_limiter::LogLimiter;
/// # use std::time::Instant;
/// let mut limiter = LogLimiter::default();
/// if let Some(suppressed) = limiter.check(Instant::now(), "disk full") {
///     tracing::warn!(suppressed = suppressed.count(), "The disk is full");
/// }
/// ```
#[derive(Debug, Default)]
pub struct LogLimiter {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    key: String,
    written: Instant,
    suppressed: u64,
}

impl LogLimiter {
    /// Records that the event `key` happened at `now`. `None`: do not log it, because it was logged less than [`INTERVAL`] ago.
    pub fn check(&mut self, now: Instant, key: &str) -> Option<Suppressed> {
        let key = &key[..key.floor_char_boundary(MAX_KEY_BYTES)];
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.key == key) else {
            self.insert(now, key);
            return Some(Suppressed(0));
        };
        if now.saturating_duration_since(entry.written) < INTERVAL {
            entry.suppressed += 1;
            return None;
        }
        entry.written = now;
        Some(Suppressed(std::mem::take(&mut entry.suppressed)))
    }

    /// Like [`Self::check`], but ignores words with a digit, because numbers, addresses and names of elements differ each
    /// time.
    pub fn check_words(&mut self, now: Instant, text: &str) -> Option<Suppressed> {
        let words = text.split(|c: char| !c.is_alphanumeric());
        let stable: Vec<_> = words
            .filter(|word| !word.contains(|c: char| c.is_ascii_digit()))
            .collect();
        self.check(now, &stable.join(" "))
    }

    fn insert(&mut self, now: Instant, key: &str) {
        if self.entries.len() >= MAX_KEYS
            && let Some(oldest) = (0..self.entries.len()).min_by_key(|i| self.entries[*i].written)
        {
            self.entries.swap_remove(oldest);
        }
        self.entries.push(Entry {
            key: key.to_owned(),
            written: now,
            suppressed: 0,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Option<Suppressed> = Some(Suppressed(0));

    #[test]
    fn the_same_line_is_written_once_then_once_a_minute_with_a_count() {
        let (mut limiter, start) = (LogLimiter::default(), Instant::now());
        let written: Vec<_> = [0, 1, 59, 60, 61, 200]
            .map(|s| limiter.check(start + Duration::from_secs(s), "full"))
            .into();
        assert_eq!(
            written,
            [FIRST, None, None, Some(Suppressed(2)), None, Some(Suppressed(1))]
        );
    }

    #[test]
    fn a_different_line_is_written_at_once() {
        let (mut limiter, now) = (LogLimiter::default(), Instant::now());
        assert_eq!(limiter.check(now, "full"), FIRST);
        assert_eq!(limiter.check(now, "gone"), FIRST);
        assert_eq!(limiter.check(now, "full"), None);
    }

    #[test]
    fn a_line_with_another_number_is_the_same_line() {
        let (mut limiter, now) = (LogLimiter::default(), Instant::now());
        let written: Vec<_> = (0..5)
            .map(|i| limiter.check_words(now, &format!("frame {i} at 0x{i}fe")))
            .collect();
        assert_eq!(written, [FIRST, None, None, None, None]);
    }

    #[test]
    fn only_the_beginning_of_a_long_line_is_remembered() {
        let (mut limiter, now) = (LogLimiter::default(), Instant::now());
        let long = format!("the server answered {}", "ä".repeat(10_000));
        assert_eq!(limiter.check(now, &long), FIRST);
        assert_eq!(limiter.check(now, &long), None);
        assert!(limiter.entries[0].key.capacity() <= MAX_KEY_BYTES);
    }

    #[test]
    fn memory_stays_bounded_when_every_line_is_different() {
        let (mut limiter, now) = (LogLimiter::default(), Instant::now());
        for i in 0..1000 {
            assert_eq!(limiter.check(now + Duration::from_millis(i), &i.to_string()), FIRST);
        }
        assert_eq!(limiter.entries.len(), MAX_KEYS);
        assert_eq!(limiter.check(now + Duration::from_secs(1), "999"), None);
    }
}
