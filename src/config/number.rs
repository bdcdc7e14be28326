//! Numbers, typed or as text: Greengrass and people write both.

use serde_json::Value;

/// A finite number, typed or as text (`50.000000000000000`).
pub(super) fn finite(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// An integer, typed or as text, also with a fraction of zero (`5.0`).
pub(super) fn integer(value: &Value) -> Option<i64> {
    /// Up to this number (2^53) a float represents every integer exactly.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let exact = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => return None,
    };
    exact.or_else(|| {
        let number = finite(value)?;
        (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
    })
}

/// The default of `default_threshold`, also used where the given one is no threshold for probabilities.
pub const DEFAULT_THRESHOLD: f64 = 0.7;

/// The accepted values of `default_threshold` and of the command `set_threshold_filter_confidence`.
pub const ACCEPTED_THRESHOLD: &str = "a number above 0: up to 1 it is a fraction, up to 100 a percentage; \
     any number for a regression or anomaly model, whose scores are no probabilities";

/// The value is not a number, or it is no threshold for probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a confidence is {ACCEPTED_THRESHOLD}")]
pub struct ThresholdError;

/// Parses a confidence as `default_threshold` and the command `set_threshold_filter_confidence` do: a finite number or
/// numeric text, as it is. [`as_fraction`] reads it as a probability.
///
/// # Errors
/// [`ThresholdError`] for everything else.
pub fn parse_threshold(value: &Value) -> Result<f64, ThresholdError> {
    finite(value).ok_or(ThresholdError)
}

/// A threshold for probabilities: up to 1 a fraction, above 1 a percentage (`50.0` means 0.5). `None`: it is not above
/// 0 and up to 100.
pub fn as_fraction(threshold: f64) -> Option<f64> {
    if threshold <= 0.0 || threshold > 100.0 {
        None
    } else if threshold <= 1.0 {
        Some(threshold)
    } else {
        // Rounded, because answers show the figure: 75.6 / 100 is 0.7559999999999999 in floating point.
        Some((threshold * 1e10).round() / 1e12)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_integer_may_be_typed_or_text_and_may_have_a_fraction_of_zero() {
        for value in [
            json!(5),
            json!(5.0),
            json!("5"),
            json!(" 5 "),
            json!("5.0"),
            json!("5.000000000000000"),
            json!("+5"),
        ] {
            assert_eq!(integer(&value), Some(5), "{value}");
        }
        assert_eq!(integer(&json!("-1")), Some(-1));
        for value in [
            json!(5.5),
            json!("5x"),
            json!("NaN"),
            json!("inf"),
            json!(1e300),
            json!("99999999999999999999"),
            json!(true),
        ] {
            assert_eq!(integer(&value), None, "{value}");
        }
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
            assert_eq!(parse_threshold(&value).map(as_fraction), Ok(Some(expected)), "{value}");
        }
        for value in [json!(0), json!(-1), json!(100.1)] {
            assert_eq!(parse_threshold(&value).map(as_fraction), Ok(None), "{value}");
        }
        for value in [json!("NaN"), json!("inf"), json!("x"), json!(null), json!([0.5])] {
            assert_eq!(parse_threshold(&value), Err(ThresholdError), "{value}");
        }
    }
}
