//! Limits how fast messages are sent: IoT Core closes connections that exceed 100 publishes or 512 KiB per second.

use std::time::{Duration, Instant};

use super::message::Message;

/// An average rate and a burst. No second has more than both together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Messages or bytes per second, on average.
    pub per_second: f64,
    /// Messages or bytes that may be sent at once after a pause. A message larger than this is sent after a full pause.
    pub burst: f64,
}

/// Limits of a connection; `None`: no limit besides the in-flight window.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RateLimits {
    /// All messages.
    pub messages: Option<Rate>,
    /// Bytes of all messages, with topics and headers.
    pub bytes: Option<Rate>,
    /// Inferences of a backlog: read from the disk, or in memory for a second or longer.
    pub backlog: Option<Rate>,
}

impl RateLimits {
    /// No limits: for any broker but IoT Core.
    pub const UNLIMITED: Self = Self {
        messages: None,
        bytes: None,
        backlog: None,
    };

    /// At most 90 messages and 450 KiB in any second; at most 50 messages of a backlog.
    pub const IOT_CORE: Self = Self {
        messages: Some(Rate {
            per_second: 80.0,
            burst: 10.0,
        }),
        bytes: Some(Rate {
            per_second: 320.0 * 1024.0,
            burst: 130.0 * 1024.0,
        }),
        backlog: Some(Rate {
            per_second: 45.0,
            burst: 5.0,
        }),
    };
}

/// Applies [`RateLimits`]. Each call receives the time, so that tests need not wait.
#[derive(Debug)]
pub(super) struct RateLimiter {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    backlog: Option<Bucket>,
    resume_at: Option<Instant>,
}

impl RateLimiter {
    pub fn new(limits: RateLimits, now: Instant) -> Self {
        let bucket = |rate: Option<Rate>| rate.map(|rate| Bucket::new(rate, now));
        Self {
            messages: bucket(limits.messages),
            bytes: bucket(limits.bytes),
            backlog: bucket(limits.backlog),
            resume_at: None,
        }
    }

    /// Begins a new round and forgets the last refusal.
    pub fn begin(&mut self) {
        self.resume_at = None;
    }

    /// Whether the message may be sent now; if so, it is counted. Otherwise [`RateLimiter::resume_at`] returns when it may.
    pub fn admits(&mut self, message: &Message, backlog: bool, now: Instant) -> bool {
        let size = (message.payload.len() + message.topic.len() + PACKET_HEADER) as f64;
        let backlog = self.backlog.as_mut().filter(|_| backlog);
        let mut buckets = [
            (self.messages.as_mut(), 1.0),
            (self.bytes.as_mut(), size),
            (backlog, 1.0),
        ];
        let ready = |(bucket, amount): &mut (Option<&mut Bucket>, f64)| bucket.as_mut()?.ready_at(*amount, now);
        self.resume_at = buckets.iter_mut().filter_map(ready).max();
        if self.resume_at.is_some() {
            return false;
        }
        for (bucket, amount) in &mut buckets {
            if let Some(bucket) = bucket {
                bucket.level -= *amount;
            }
        }
        true
    }

    /// When the message that was refused in this round may be sent.
    pub fn resume_at(&self) -> Option<Instant> {
        self.resume_at
    }
}

/// Most bytes of a PUBLISH packet besides topic and payload.
const PACKET_HEADER: usize = 9;

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    level: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Self {
        Self {
            rate,
            level: rate.burst,
            filled: now,
        }
    }

    /// When `amount` is available; `None`: now.
    fn ready_at(&mut self, amount: f64, now: Instant) -> Option<Instant> {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        self.level = (self.level + passed * self.rate.per_second).min(self.rate.burst);
        let missing = amount.min(self.rate.burst) - self.level;
        // A difference below a thousandth of a message is a rounding error.
        (missing > 1e-3).then(|| now + Duration::from_secs_f64(missing / self.rate.per_second))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Qos;
    use crate::device::Topics;

    fn message(size: usize) -> Message {
        Message::inference(&Topics::new("d"), vec![0; size], Qos::AtLeastOnce)
    }

    /// When each message is sent if all are pushed at once.
    fn times(sizes: &[usize], backlog: bool) -> Vec<Duration> {
        let start = Instant::now();
        let mut rate_limiter = RateLimiter::new(RateLimits::IOT_CORE, start);
        let mut now = start;
        let mut times = Vec::new();
        for size in sizes {
            while !rate_limiter.admits(&message(*size), backlog, now) {
                now = rate_limiter.resume_at().expect("a time to resume");
            }
            times.push(now - start);
        }
        times
    }

    /// Most messages, and bytes, in any one second.
    fn busiest_second(times: &[Duration], sizes: &[usize]) -> (usize, usize) {
        let second = Duration::from_secs(1);
        let within = |from: Duration| {
            let of = times
                .iter()
                .zip(sizes)
                .filter(move |(at, _)| **at >= from && **at < from + second);
            (of.clone().count(), of.map(|(_, size)| size).sum::<usize>())
        };
        let all: Vec<_> = times.iter().map(|at| within(*at)).collect();
        let most = |figure: fn(&(usize, usize)) -> usize| all.iter().map(figure).max().unwrap_or(0);
        (most(|(count, _)| *count), most(|(_, bytes)| *bytes))
    }

    #[test]
    fn a_backlog_is_sent_at_nearly_fifty_messages_a_second() {
        let sizes = [300; 1000];
        let times = times(&sizes, true);
        assert!(busiest_second(&times, &sizes).0 <= 50);
        let last = times.last().expect("1000 times").as_secs_f64();
        assert!((20.0..24.0).contains(&last), "{last} s");
    }

    #[test]
    fn live_messages_are_sent_at_ninety_a_second_at_most() {
        let sizes = [300; 1000];
        let times = times(&sizes, false);
        assert!(busiest_second(&times, &sizes).0 <= 90);
        assert!(times.last().is_some_and(|last| last.as_secs_f64() < 13.0));
    }

    #[test]
    fn a_message_larger_than_the_burst_is_sent_and_delays_the_next() {
        let times = times(&[250 * 1024, 10], false);
        assert_eq!(times[0], Duration::ZERO);
        assert!(
            times[1] > Duration::from_millis(300),
            "the next message waits: {times:?}"
        );
    }

    #[test]
    fn messages_to_other_brokers_do_not_wait() {
        let now = Instant::now();
        let mut rate_limiter = RateLimiter::new(RateLimits::UNLIMITED, now);
        assert!((0..10_000).all(|_| rate_limiter.admits(&message(1000), true, now)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_second_has_more_than_ninety_messages_or_450_kib(
            sizes in prop::collection::vec(0_usize..125 * 1024, 1..200)
        ) {
            let (messages, bytes) = busiest_second(&times(&sizes, false), &sizes);
            prop_assert!(messages <= 90);
            prop_assert!(bytes <= 450 * 1024, "{bytes}");
        }
    }
}
