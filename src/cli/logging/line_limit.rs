//! Limits how many lines each log call of the program writes, whoever causes them.
//!
//! Most log calls can be caused by others: a client of a server, a publisher of commands, the model, a camera. One that is forgotten
//! fills the disk. So the limit is here, for all of them: a log call writes some lines at once, and then a line from time to time
//! with the number of lines that were suppressed. [`LogLimiter`](crate::util::log_limiter::LogLimiter) is stricter, and knows which
//! lines are equal.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How many lines a log call may write.
#[derive(Debug, Clone, Copy)]
struct Rate {
    /// Lines at once.
    burst: u32,
    /// Time after which one more line may be written.
    interval: Duration,
}

/// Of INFO and above. A configuration with many warnings is written completely.
const RATE: Rate = Rate {
    burst: 25,
    interval: Duration::from_secs(3),
};
/// Of DEBUG and TRACE, which are written on request only.
const DEBUG_RATE: Rate = Rate {
    burst: 250,
    interval: Duration::from_millis(20),
};

/// The lines that one log call has written.
#[derive(Debug)]
struct Bucket {
    /// Lines that it may write now.
    lines: u32,
    /// Until when `lines` is counted.
    counted: Instant,
    suppressed: u64,
}

impl Bucket {
    /// Whether a line is written at `now`: how many were suppressed before it.
    fn take(&mut self, rate: Rate, now: Instant) -> Option<u64> {
        let elapsed = now.saturating_duration_since(self.counted);
        let intervals = u32::try_from(elapsed.as_nanos() / rate.interval.as_nanos()).unwrap_or(u32::MAX);
        if intervals >= rate.burst {
            (self.lines, self.counted) = (rate.burst, now);
        } else {
            self.lines = rate.burst.min(self.lines + intervals);
            self.counted += rate.interval * intervals;
        }
        if self.lines == 0 {
            self.suppressed += 1;
            return None;
        }
        self.lines -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// A format of events that leaves out events beyond the rate of their log call.
pub(super) struct LimitedLines<F> {
    format: F,
    /// Adds the number of suppressed lines to a line.
    append: fn(&mut String, u64),
    /// As many as the program has log calls.
    buckets: Mutex<HashMap<Identifier, Bucket>>,
}

impl<F> LimitedLines<F> {
    pub(super) fn new(format: F, append: fn(&mut String, u64)) -> Self {
        Self {
            format,
            append,
            buckets: Mutex::default(),
        }
    }

    fn check(&self, metadata: &Metadata<'_>, now: Instant) -> Option<u64> {
        let rate = if *metadata.level() <= Level::INFO {
            RATE
        } else {
            DEBUG_RATE
        };
        let mut buckets = self.buckets.lock();
        let bucket = buckets.entry(metadata.callsite()).or_insert(Bucket {
            lines: rate.burst,
            counted: now,
            suppressed: 0,
        });
        bucket.take(rate, now)
    }
}

impl<S, N, F> FormatEvent<S, N> for LimitedLines<F>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        match self.check(event.metadata(), Instant::now()) {
            // An empty line is not written.
            None => Ok(()),
            Some(0) => self.format.format_event(context, writer, event),
            Some(suppressed) => {
                let mut line = String::new();
                self.format.format_event(context, Writer::new(&mut line), event)?;
                (self.append)(&mut line, suppressed);
                writer.write_str(&line)
            }
        }
    }
}

/// Appends the number of suppressed lines to a line of text.
pub(super) fn append_to_text(line: &mut String, suppressed: u64) {
    line.truncate(line.trim_end().len());
    line.push_str(&format!(" suppressed_lines={suppressed}\n"));
}

/// Appends the number of suppressed lines to a line with a JSON object.
pub(super) fn append_to_json(line: &mut String, suppressed: u64) {
    let fields = line.trim_end().strip_suffix('}').map_or(line.len(), str::len);
    line.truncate(fields);
    line.push_str(&format!(",\"suppressed_lines\":{suppressed}}}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_at_once_then_from_time_to_time_with_the_number_of_suppressed_ones() {
        let start = Instant::now();
        let mut bucket = Bucket {
            lines: RATE.burst,
            counted: start,
            suppressed: 0,
        };
        let written = (0..1000).filter_map(|_| bucket.take(RATE, start)).count();
        assert_eq!(written, 25);
        assert_eq!(bucket.take(RATE, start + Duration::from_secs(3)), Some(975));
        assert_eq!(bucket.take(RATE, start + Duration::from_secs(4)), None);
        let later = start + Duration::from_secs(3600);
        let written: Vec<_> = (0..30).filter_map(|_| bucket.take(RATE, later)).collect();
        assert_eq!((written.len(), written[0], written[1]), (25, 1, 0));
    }

    #[test]
    fn a_day_of_a_flood_writes_one_line_per_interval() {
        let start = Instant::now();
        let mut bucket = Bucket {
            lines: RATE.burst,
            counted: start,
            suppressed: 0,
        };
        let times = (0..864_000).map(|tenth| start + Duration::from_millis(100) * tenth);
        let written = times.filter_map(|now| bucket.take(RATE, now)).count();
        assert_eq!(written, 25 + 86_400 / 3 - 1);
    }

    #[test]
    fn the_number_is_part_of_the_line() {
        let mut text = "WARN refused a=1\n".to_owned();
        append_to_text(&mut text, 7);
        assert_eq!(text, "WARN refused a=1 suppressed_lines=7\n");
        let mut json = "{\"a\":1}\n".to_owned();
        append_to_json(&mut json, 7);
        assert_eq!(json, "{\"a\":1,\"suppressed_lines\":7}\n");
    }
}
