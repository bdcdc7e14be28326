//! The words that stand for a choice, and the confidence as people write it.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::types::{Criteria, Launch, ResizeMode, ShmBehavior, ShutdownBehavior};
use super::values;

/// A word that is none of the accepted ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not known; accepted: {accepted}")]
pub struct UnknownWord {
    /// The word as given.
    pub word: String,
    /// The accepted words.
    pub accepted: &'static str,
}

/// Gives an enum its words: `as_str`, `Display` and a `FromStr` that takes any case. The first word of a line is the one shown.
macro_rules! words {
    ($type:ty, $accepted:literal, { $($variant:ident: $word:literal $(| $other:literal)*),+ $(,)? }) => {
        impl $type {
            /// The accepted words, for messages.
            pub const ACCEPTED: &'static str = $accepted;

            /// The word as written in configuration and answers.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text.trim().to_ascii_lowercase().as_str() {
                    $($word $(| $other)* => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { word: text.to_owned(), accepted: Self::ACCEPTED }),
                }
            }
        }
    };
}

words!(Launch, "runner, linux", { Runner: "runner", Linux: "linux" });
words!(Criteria, "gt, ge, eq, le, lt", {
    Greater: "gt",
    GreaterOrEqual: "ge",
    Equal: "eq",
    LessOrEqual: "le",
    Less: "lt",
});
words!(ResizeMode, "squash, fit-shortest, fit-longest, none", {
    Squash: "squash",
    FitShortest: "fit-shortest",
    FitLongest: "fit-longest",
    None: "none",
});
words!(ShmBehavior, "auto, always, never", { Auto: "auto", Always: "always", Never: "never" });
// `wait_for_restart` is the tutorial's spelling, `wait_on_restart` that of the old component's code.
words!(ShutdownBehavior, "none, wait_for_restart (or wait_on_restart)", {
    Restart: "none",
    WaitForRestart: "wait_for_restart" | "wait_on_restart",
});

/// A confidence that is no number from above 0 up to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a confidence is a number above 0: up to 1 it is a fraction, up to 100 a percentage")]
pub struct ThresholdError;

/// Reads a confidence as `default_threshold` and the command `set_threshold_filter_confidence` do: a number or numeric text,
/// up to 1 a fraction, above 1 and up to 100 a percentage (`50.0` means 0.5).
///
/// # Errors
/// [`ThresholdError`] for everything else.
pub fn parse_threshold(value: &Value) -> Result<f64, ThresholdError> {
    match values::finite(value) {
        Some(x) if x > 0.0 && x <= 1.0 => Ok(x),
        // Rounded far below what matters: 75.6 / 100 is 0.7559999999999999 in floating point, and answers show the figure.
        Some(x) if x > 1.0 && x <= 100.0 => Ok((x * 1e10).round() / 1e12),
        _ => Err(ThresholdError),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_are_accepted_in_any_case_and_come_back_as_documented() {
        assert_eq!(" GE ".parse::<Criteria>().map(Criteria::as_str), Ok("ge"));
        assert_eq!("Fit-Shortest".parse::<ResizeMode>(), Ok(ResizeMode::FitShortest));
        assert_eq!(
            "wait_on_restart".parse::<ShutdownBehavior>(),
            Ok(ShutdownBehavior::WaitForRestart)
        );
        assert_eq!(
            "wait_for_restart".parse::<ShutdownBehavior>(),
            Ok(ShutdownBehavior::WaitForRestart)
        );
        let error = "maybe".parse::<ShmBehavior>().unwrap_err();
        assert_eq!(error.to_string(), "`maybe` is not known; accepted: auto, always, never");
    }

    #[test]
    fn a_confidence_is_a_fraction_up_to_one_and_a_percentage_up_to_a_hundred() {
        for (value, expected) in [
            (json!(0.7), 0.7),
            (json!("0.7"), 0.7),
            (json!(1), 1.0),
            (json!(50.0), 0.5),
            (json!(75.6), 0.756),
            (json!("7.56"), 0.0756),
            (json!("50.000000000000000"), 0.5),
            (json!("100"), 1.0),
        ] {
            assert_eq!(parse_threshold(&value), Ok(expected), "{value}");
        }
        for value in [
            json!(0),
            json!(-1),
            json!(100.1),
            json!("NaN"),
            json!("inf"),
            json!("x"),
            json!(null),
            json!([0.5]),
        ] {
            assert_eq!(parse_threshold(&value), Err(ThresholdError), "{value}");
        }
    }
}
