//! Saying the same thing once, then once a minute with how often it happened in between.

use std::time::{Duration, Instant};

/// How long the same words are kept back after they were said.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// `, like 3 before it` for a log line that stands for others that were kept back; empty for none.
pub fn like(kept_back: u64) -> String {
    match kept_back {
        0 => String::new(),
        n => format!(", like {n} before it"),
    }
}

/// How many different words one guard keeps apart; beyond it the longest unsaid are forgotten and may be said anew.
const REMEMBERED: usize = 16;

/// Decides whether a repeated event is worth a log line. The clock comes in with each call.
///
/// ```
/// # use ei_greengrass::util::log_limiter::LogLimiter;
/// # use std::time::Instant;
/// let mut guard = LogLimiter::default();
/// if let Some(kept_back) = guard.check(Instant::now(), "disk full") {
///     println!("the disk is full ({kept_back} more of these since this was last said)");
/// }
/// ```
#[derive(Debug, Default)]
pub struct LogLimiter {
    said: Vec<Said>,
}

#[derive(Debug)]
struct Said {
    key: String,
    last: Instant,
    kept_back: u64,
}

impl LogLimiter {
    /// Notes that the event called `key` happened at `now`. `Some(n)`: say it, `n` of the same were kept back since it was
    /// last said. `None`: it was said less than [`INTERVAL`] ago.
    pub fn check(&mut self, now: Instant, key: &str) -> Option<u64> {
        let Some(said) = self.said.iter_mut().find(|said| said.key == key) else {
            self.remember(now, key);
            return Some(0);
        };
        if now.saturating_duration_since(said.last) < INTERVAL {
            said.kept_back += 1;
            return None;
        }
        said.last = now;
        Some(std::mem::take(&mut said.kept_back))
    }

    /// [`Self::check`] for a text in which words with a digit do not count: numbers, addresses and numbered elements differ
    /// each time.
    pub fn check_words(&mut self, now: Instant, text: &str) -> Option<u64> {
        let words = text.split(|c: char| !c.is_alphanumeric());
        let lasting: Vec<_> = words
            .filter(|word| !word.contains(|c: char| c.is_ascii_digit()))
            .collect();
        self.check(now, &lasting.join(" "))
    }

    fn remember(&mut self, now: Instant, key: &str) {
        if self.said.len() >= REMEMBERED
            && let Some(oldest) = (0..self.said.len()).min_by_key(|i| self.said[*i].last)
        {
            self.said.swap_remove(oldest);
        }
        self.said.push(Said {
            key: key.to_owned(),
            last: now,
            kept_back: 0,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_are_said_once_then_once_a_minute_with_a_count() {
        let (mut guard, start) = (LogLimiter::default(), Instant::now());
        let said: Vec<_> = [0, 1, 59, 60, 61, 200]
            .map(|s| guard.check(start + Duration::from_secs(s), "full"))
            .into();
        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1)]);
    }

    #[test]
    fn other_words_are_said_at_once() {
        let (mut guard, now) = (LogLimiter::default(), Instant::now());
        assert_eq!(guard.check(now, "full"), Some(0));
        assert_eq!(guard.check(now, "gone"), Some(0));
        assert_eq!(guard.check(now, "full"), None);
    }

    #[test]
    fn a_number_makes_no_other_words() {
        let (mut guard, now) = (LogLimiter::default(), Instant::now());
        let said: Vec<_> = (0..5)
            .map(|i| guard.check_words(now, &format!("frame {i} at 0x{i}fe")))
            .collect();
        assert_eq!(said, [Some(0), None, None, None, None]);
    }

    #[test]
    fn ever_new_words_do_not_grow_the_memory() {
        let (mut guard, now) = (LogLimiter::default(), Instant::now());
        for i in 0..1000 {
            assert_eq!(guard.check(now + Duration::from_millis(i), &i.to_string()), Some(0));
        }
        assert_eq!(guard.said.len(), REMEMBERED);
        assert_eq!(guard.check(now + Duration::from_secs(1), "999"), None);
    }
}
