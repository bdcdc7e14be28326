//! What the component uploads to Edge Impulse Studio by itself: the keys `collect_uncertain` and those beside it.

use std::fmt;
use std::time::Duration;

use serde_json::Value;
use strum::{Display, EnumString, IntoStaticStr, VariantNames};

use super::number::finite;

/// Which inputs of the model are uploaded without a request of Studio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameCollectionConfig {
    /// Inputs whose best value lies in this band; `None`: only those of `every`.
    pub band: Option<ValueBand>,
    /// Most inputs of the band within an hour.
    pub per_hour: u32,
    /// One input in this time, whatever its value; `None`: never.
    pub every: Option<Duration>,
    /// The set of the project that they are added to.
    pub category: SampleCategory,
    /// Most bytes sent within a day.
    pub bytes_per_day: u64,
}

/// A set of samples in a project, as the ingestion API of Edge Impulse names it.
/// <https://docs.edgeimpulse.com/apis/ingestion>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, EnumString, IntoStaticStr, Display, VariantNames)]
#[strum(serialize_all = "lowercase", ascii_case_insensitive)]
pub enum SampleCategory {
    /// Training data.
    #[default]
    Training,
    /// Test data.
    Testing,
    /// Validation data.
    Validation,
    /// Studio decides: most of it is training data.
    Split,
}

impl SampleCategory {
    /// The accepted names, for messages.
    pub const ACCEPTED: &str =
        "training, testing, validation, or split (Studio divides it between training and testing)";
}

/// A band of values, both ends included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValueBand {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl ValueBand {
    /// The accepted values, for messages.
    pub const ACCEPTED: &str = "no, or two values from 0 to 1 as low-high, for example 0.4-0.6";

    /// Whether the value lies in the band.
    pub fn contains(self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

impl fmt::Display for ValueBand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.low, self.high)
    }
}

/// Reads `no` or a band.
///
/// # Errors
/// What is wrong with it, as a clause after "which"; `None` where the accepted values say enough.
pub(super) fn parse_band(given: &str) -> Result<Option<ValueBand>, Option<String>> {
    let text = given.trim().to_ascii_lowercase();
    match &*text {
        "no" | "off" | "false" => return Ok(None),
        "yes" | "on" | "true" => return Err(Some("names no band of values".to_owned())),
        _ => {}
    }
    let text = text.replace(['–', '—', '−'], "-");
    if number(&text).is_some() {
        return Err(Some("is one value; a band has two".to_owned()));
    }
    let Some((low, high)) = text.split_once('-') else {
        return Err(other_separator(&text));
    };
    let is_percentage = text.contains('%');
    let has_comma = text.contains(',');
    let bound = |part: &str| number(&part.trim().trim_end_matches('%').replace(',', "."));
    let (Some(low), Some(high)) = (bound(low), bound(high)) else {
        return Err(text.starts_with('-').then(|| "begins with a negative value".to_owned()));
    };
    let meant = |low: f64, high: f64| format!("{}-{}", low.min(high), low.max(high));
    if is_percentage || (low.max(high) > 1.0 && low.max(high) <= 100.0 && low.min(high) >= 1.0) {
        let example = meant(low / 100.0, high / 100.0);
        return Err(Some(format!("is a band of percentages; as fractions it is {example}")));
    }
    if low.max(high) > 1.0 {
        return Err(Some("goes beyond 1, the highest value of a model".to_owned()));
    }
    if has_comma {
        let example = meant(low, high);
        return Err(Some(format!(
            "has a comma for the decimal point; with points it is {example}"
        )));
    }
    if low > high {
        let example = meant(low, high);
        return Err(Some(format!("has the higher value first; in order it is {example}")));
    }
    if low == high {
        return Err(Some("begins and ends with the same value".to_owned()));
    }
    Ok(Some(ValueBand { low, high }))
}

/// The reason if two values are separated by something else than `-`.
fn other_separator(text: &str) -> Option<String> {
    let separators = [",", ";", ":", "..", " to ", "/", " "];
    let parts = separators.iter().find_map(|separator| {
        let (low, high) = text.split_once(separator)?;
        Some((number(low)?, number(high)?))
    });
    parts.map(|(low, high)| format!("has no hyphen between the values; with one it is {low}-{high}"))
}

fn number(text: &str) -> Option<f64> {
    let is_plain = !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_digit() || c == '.' || c.is_whitespace());
    is_plain
        .then(|| finite(&Value::String(text.trim().to_owned())))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_band_is_two_fractions_in_order() {
        for text in ["0.4-0.6", " 0.4 - 0.6 ", "0.40–0.60", ".4-.6"] {
            assert_eq!(parse_band(text), Ok(Some(ValueBand { low: 0.4, high: 0.6 })), "{text}");
        }
        assert_eq!(parse_band("0-1"), Ok(Some(ValueBand { low: 0.0, high: 1.0 })));
        for text in ["no", "OFF", "false"] {
            assert_eq!(parse_band(text), Ok(None), "{text}");
        }
        let band = ValueBand { low: 0.4, high: 0.6 };
        assert!(band.contains(0.4) && band.contains(0.6) && !band.contains(0.39) && !band.contains(f64::NAN));
        assert_eq!(parse_band(&band.to_string()), Ok(Some(band)));
    }

    #[test]
    fn a_mistake_in_a_band_is_explained() {
        for (text, part) in [
            ("40-60", "as fractions it is 0.4-0.6"),
            ("40%-60%", "as fractions it is 0.4-0.6"),
            ("60-40", "as fractions it is 0.4-0.6"),
            ("0,4-0,6", "with points it is 0.4-0.6"),
            ("0.6-0.4", "in order it is 0.4-0.6"),
            ("0.5-0.5", "the same value"),
            ("0.4,0.6", "with one it is 0.4-0.6"),
            ("0.4 0.6", "with one it is 0.4-0.6"),
            ("0.4..0.6", "with one it is 0.4-0.6"),
            ("0.4 to 0.6", "with one it is 0.4-0.6"),
            ("0.5", "one value"),
            ("50", "one value"),
            ("0.4-1.6", "goes beyond 1"),
            ("-0.4-0.6", "a negative value"),
            ("yes", "names no band"),
        ] {
            let reason = parse_band(text).unwrap_err().unwrap_or_default();
            assert!(reason.contains(part), "{text}: {reason}");
        }
        for text in [
            "0.4-",
            "-",
            "low-high",
            "0.4-0.5-0.6",
            "nan-inf",
            "1e-1-1",
            "0.4-0.6x",
            "",
        ] {
            assert!(parse_band(text).is_err(), "{text}");
        }
    }
}
