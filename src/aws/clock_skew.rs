//! The difference between this machine's clock and that of a server.

use std::fmt;
use std::time::{Duration, SystemTime};

/// AWS refuses a signature (Signature Version 4) if its time differs by more than this.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// The time of this machine and the time in the `Date` header of a server's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSkew {
    ours: SystemTime,
    server: SystemTime,
}

impl ClockSkew {
    /// Compares the `Date` header of an answer with our time. Returns `None` if they differ by at most 5 minutes, or if the header
    /// is not a date.
    pub fn from_date(header: &str, ours: SystemTime) -> Option<Self> {
        let server = httpdate::parse_http_date(header).ok()?;
        let skew = Self { ours, server };
        (skew.amount() > TOLERANCE).then_some(skew)
    }

    fn amount(self) -> Duration {
        match self.ours.duration_since(self.server) {
            Ok(ahead) => ahead,
            Err(behind) => behind.duration(),
        }
    }
}

impl fmt::Display for ClockSkew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded, because the header contains whole seconds.
        let minutes = (self.amount().as_secs() + 30) / 60;
        let amount = match minutes {
            0..=119 => format!("{minutes} minutes"),
            120..=2879 => format!("{} hours", minutes / 60),
            _ => format!("{} days", minutes / (60 * 24)),
        };
        let direction = if self.ours < self.server { "behind" } else { "ahead" };
        write!(
            f,
            "this machine's clock is {amount} {direction} (it says {}, the server says {}), and AWS refuses signatures whose time \
             differs by more than 5 minutes: set the clock, or use NTP",
            httpdate::fmt_http_date(self.ours),
            httpdate::fmt_http_date(self.server)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn skew(offset: i64) -> Option<String> {
        let server = httpdate::parse_http_date(DATE).unwrap();
        let amount = Duration::from_secs(offset.unsigned_abs());
        let ours = if offset < 0 { server - amount } else { server + amount };
        ClockSkew::from_date(DATE, ours).map(|skew| skew.to_string())
    }

    #[test]
    fn a_wrong_clock_is_described_with_direction_and_amount() {
        assert!(skew(-3600).unwrap().contains("60 minutes behind"));
        assert!(skew(3 * 86400).unwrap().contains("3 days ahead"));
        assert!(skew(5 * 3600).unwrap().contains("5 hours ahead"));
    }

    #[test]
    fn five_minutes_are_tolerated_and_an_invalid_date_is_ignored() {
        assert_eq!(skew(300), None);
        assert_eq!(skew(-300), None);
        assert_eq!(ClockSkew::from_date("yesterday", SystemTime::now()), None);
    }

    proptest! {
        #[test]
        fn any_date_header_gives_a_description_or_none(
            text in "\\PC{0,40}",
            seconds in 0..253_402_300_799_u64,
            ours in 0..253_402_300_799_u64,
        ) {
            let ours = SystemTime::UNIX_EPOCH + Duration::from_secs(ours);
            let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            for header in [text, date] {
                let text = ClockSkew::from_date(&header, ours).map(|skew| skew.to_string());
                prop_assert!(text.is_none_or(|text| text.contains("this machine's clock is")));
            }
        }
    }
}
