//! Reading one value: typed or as text, as Greengrass's two implementations and people write it.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::names;
use super::types::{Criteria, Launch, ModelSource, Qos, ShutdownBehavior, SourceLine};
use crate::util::secret::Secret;

/// A value that was understood.
#[derive(Debug)]
pub(super) struct Taken<T> {
    pub(super) value: T,
    /// Something else is used than what was given: worth a warning.
    pub(super) corrected: bool,
    /// How the value was read, where that is not obvious.
    pub(super) note: Option<String>,
}

/// A value of the wrong kind or out of range.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// Reads a present value.
pub(super) type Reader<T> = fn(&Value) -> Result<Taken<T>, Refused>;

type Reading<T> = Result<Taken<T>, Refused>;

fn taken<T>(value: T) -> Reading<T> {
    Ok(Taken {
        value,
        corrected: false,
        note: None,
    })
}

fn corrected<T>(value: T) -> Reading<T> {
    Ok(Taken {
        value,
        corrected: true,
        note: None,
    })
}

/// Whether the value says that there is none: `"__none__"`, `""` or null.
pub(super) fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty() || text.trim().eq_ignore_ascii_case("__none__"),
        _ => false,
    }
}

/// A finite number, typed or as text (`50.000000000000000`).
pub(super) fn finite(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// An integer, typed or as text, also written with a fraction of zero (`5.0`).
pub(super) fn integer(value: &Value) -> Option<i64> {
    /// Up to here (2^53) a float holds every integer exactly.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let exact = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => return None,
    };
    exact.or_else(|| {
        let number = finite(value)?;
        // In this range the conversion loses nothing.
        (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
    })
}

/// An integer in a range.
fn between(value: &Value, least: i64, most: i64) -> Result<i64, Refused> {
    integer(value)
        .filter(|number| (least..=most).contains(number))
        .ok_or(Refused)
}

/// A text, or a number where a text is expected (`device_name: 42` in YAML).
fn plain(value: &Value) -> Result<String, Refused> {
    match value {
        Value::String(text) => Ok(text.trim().to_owned()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(Refused),
    }
}

/// A text on one line, without control characters.
fn one_line(value: &Value) -> Result<String, Refused> {
    plain(value)
        .ok()
        .filter(|text| !text.contains(char::is_control))
        .ok_or(Refused)
}

/// `yes`, `no`, `on`, `off`, `true`, `false` in any case, or a boolean.
pub(super) fn switch(value: &Value) -> Reading<bool> {
    match value {
        Value::Bool(on) => taken(*on),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" => taken(true),
            "no" | "off" | "false" => taken(false),
            _ => Err(Refused),
        },
        _ => Err(Refused),
    }
}

pub(super) fn any_text(value: &Value) -> Reading<String> {
    taken(plain(value)?)
}

pub(super) fn text(value: &Value) -> Reading<String> {
    taken(one_line(value)?)
}

pub(super) fn path(value: &Value) -> Reading<PathBuf> {
    taken(one_line(value)?.into())
}

pub(super) fn some_path(value: &Value) -> Reading<Option<PathBuf>> {
    taken(Some(one_line(value)?.into()))
}

/// One word: an S3 bucket.
pub(super) fn some_word(value: &Value) -> Reading<Option<String>> {
    let word = one_line(value)?;
    if word.contains(char::is_whitespace) {
        return Err(Refused);
    }
    taken(Some(word))
}

pub(super) fn some_secret(value: &Value) -> Reading<Option<Secret>> {
    taken(Some(Secret::new(one_line(value)?)))
}

/// Group names separated by blanks. The install script hands them to `usermod` as root, so nothing else gets through.
pub(super) fn groups(value: &Value) -> Reading<String> {
    let text = one_line(value)?;
    let is_name = |word: &str| {
        !word.starts_with('-')
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
    };
    if !text.split_whitespace().all(is_name) {
        return Err(Refused);
    }
    taken(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

pub(super) fn launch(value: &Value) -> Reading<Launch> {
    one_line(value)?.parse().map_or(Err(Refused), taken)
}

pub(super) fn criteria(value: &Value) -> Reading<Criteria> {
    one_line(value)?.parse().map_or(Err(Refused), taken)
}

pub(super) fn shutdown_behavior(value: &Value) -> Reading<ShutdownBehavior> {
    one_line(value)?.parse().map_or(Err(Refused), taken)
}

/// Seconds from a tenth to a day.
pub(super) fn seconds(value: &Value) -> Reading<Duration> {
    let seconds = finite(value).filter(|s| (0.1..=86_400.0).contains(s)).ok_or(Refused)?;
    Duration::try_from_secs_f64(seconds).map_or(Err(Refused), taken)
}

/// The interval of the metrics: 100 ms and below become a minute, as in the old component.
pub(super) fn metrics_interval(value: &Value) -> Reading<Duration> {
    /// The longest interval of the old component's timer (2^31 - 1 ms, 25 days).
    const MOST: f64 = 2_147_483_647.0;
    let millis = finite(value).filter(|ms| *ms <= MOST).ok_or(Refused)?;
    if millis <= 100.0 {
        return corrected(Duration::from_secs(60));
    }
    Duration::try_from_secs_f64(millis / 1000.0).map_or(Err(Refused), taken)
}

/// An integer of which everything below 1 means 1 (`iotcore_backoff`: every one).
pub(super) fn count(value: &Value) -> Reading<u32> {
    let count = integer(value).ok_or(Refused)?.max(1);
    u32::try_from(count).map_or(Err(Refused), taken)
}

pub(super) fn qos(value: &Value) -> Reading<Qos> {
    match integer(value) {
        Some(0) => taken(Qos::AtMostOnce),
        Some(1) => taken(Qos::AtLeastOnce),
        Some(2 | 3) => corrected(Qos::AtLeastOnce),
        _ => Err(Refused),
    }
}

/// A size in MiB, as bytes; at most 16 TiB.
pub(super) fn mebibytes(value: &Value) -> Reading<u64> {
    let size = between(value, 1, 1 << 24)?;
    u64::try_from(size).map_or(Err(Refused), |size| taken(size << 20))
}

pub(super) fn port(value: &Value) -> Reading<u16> {
    u16::try_from(between(value, 0, 65_535)?).map_or(Err(Refused), taken)
}

/// An IP address (IPv6 also in brackets) or a host name.
pub(super) fn host(value: &Value) -> Reading<String> {
    let text = one_line(value)?;
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(&text);
    if bare.parse::<std::net::IpAddr>().is_ok() || is_host_name(bare) {
        return taken(bare.to_owned());
    }
    Err(Refused)
}

fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// `host`, or `host:port`. IoT Core has nothing on 1883: who writes that means `mqtt://host:1883`.
fn is_host_and_port(text: &str) -> bool {
    match text.split_once(':') {
        Some((host, port)) => is_host_name(host) && port.parse::<u16>().is_ok_and(|port| port > 0 && port != 1883),
        None => is_host_name(text),
    }
}

/// The host of IoT Core, or the URL of another broker.
pub(super) fn broker(value: &Value) -> Reading<Option<String>> {
    let text = one_line(value)?;
    let usable = match Url::parse(&text) {
        Ok(url) if text.contains("://") => {
            matches!(url.scheme(), "mqtt" | "mqtts" | "ws" | "wss")
                && url.host_str().is_some_and(|host| !host.is_empty())
        }
        _ => is_host_and_port(&text),
    };
    if usable && !text.contains(char::is_whitespace) {
        taken(Some(text))
    } else {
        Err(Refused)
    }
}

pub(super) fn model(value: &Value) -> Reading<Option<ModelSource>> {
    let text = one_line(value)?;
    match text.strip_prefix("builtin:") {
        Some("") => Err(Refused),
        Some(name) => taken(Some(ModelSource::Builtin(name.to_owned()))),
        None => taken(Some(ModelSource::File(text.into()))),
    }
}

pub(super) fn encoded_source(value: &Value) -> Reading<Option<SourceLine>> {
    match value {
        Value::String(line) => taken(Some(SourceLine::Encoded(line.trim().to_owned()))),
        _ => Err(Refused),
    }
}

/// The confidence, with a note where a person may have meant it differently.
pub(super) fn threshold(value: &Value) -> Reading<f64> {
    let fraction = names::parse_threshold(value).map_err(|_| Refused)?;
    let given = finite(value).unwrap_or(fraction);
    let note = (given >= 1.0).then(|| {
        let kind = if given > 1.0 { "percentage" } else { "fraction" };
        format!("`default_threshold` {given} is read as a {kind}: the confidence is compared with {fraction}")
    });
    Ok(Taken {
        value: fraction,
        corrected: false,
        note,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_come_typed_or_as_text_with_or_without_a_fraction_of_zero() {
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
    fn absence_has_three_spellings() {
        for value in [
            json!(null),
            json!(""),
            json!("  "),
            json!("__none__"),
            json!("__NONE__"),
        ] {
            assert!(is_absent(&value), "{value}");
        }
        assert!(!is_absent(&json!(0)) && !is_absent(&json!("none")) && !is_absent(&json!(false)));
    }

    #[test]
    fn a_broker_is_a_host_or_a_url_of_the_four_schemes() {
        for text in [
            "abc-ats.iot.eu-west-1.amazonaws.com",
            "mqtt://localhost:1883",
            "mqtts://u:p@h:8883",
            "wss://h/mqtt",
            "ws://h",
        ] {
            assert!(broker(&json!(text)).is_ok(), "{text}");
        }
        for text in [
            "https://h",
            "localhost:1883",
            "mqtt://",
            "two words",
            "host/path",
            "mqtt:h",
        ] {
            assert!(broker(&json!(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn groups_that_a_root_shell_could_trip_over_are_refused() {
        assert_eq!(
            groups(&json!(" video  audio ")).map(|g| g.value),
            Ok("video audio".to_owned())
        );
        for text in ["video;reboot", "$(id)", "-G root", "a`b`"] {
            assert!(groups(&json!(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_preview_host_may_be_an_ipv6_address_in_brackets() {
        assert_eq!(host(&json!("[::1]")).map(|h| h.value), Ok("::1".to_owned()));
        assert_eq!(host(&json!("0.0.0.0")).map(|h| h.value), Ok("0.0.0.0".to_owned()));
        assert!(host(&json!("a b")).is_err() && host(&json!("http://x")).is_err());
    }
}
