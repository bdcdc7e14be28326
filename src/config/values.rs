//! Parses one value, typed or as text: both implementations of Greengrass and people write either.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::bucket::{self, S3Bucket};
use super::event_clip::{self, EventClipConfig};
use super::events::{EventsConfig, parse_events};
use super::frame_collection::{self, ValueBand};
use super::number::{as_fraction, finite, integer, parse_threshold};
use super::types::{MicrophoneChannel, ModelSource, Qos, SourceLine};
use crate::util::redact;
use crate::util::secret::{Redacted, Secret};

/// An accepted value.
#[derive(Debug)]
pub(super) struct Parsed<T> {
    pub(super) value: T,
    /// The value differs from the given one, which deserves a warning.
    pub(super) corrected: bool,
    /// How the value was read, where that is not obvious.
    pub(super) note: Option<String>,
}

/// The value has the wrong kind or is out of range.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct InvalidValue {
    /// What is wrong with it, as a clause after "which"; `None` where the accepted values say enough.
    pub(super) reason: Option<String>,
}

pub(super) type ParseResult<T> = Result<Parsed<T>, InvalidValue>;

/// Parses a value that is present.
pub(super) type Parser<T> = fn(&Value) -> ParseResult<T>;

fn parsed<T>(value: T) -> ParseResult<T> {
    Ok(Parsed {
        value,
        corrected: false,
        note: None,
    })
}

fn corrected<T>(value: T) -> ParseResult<T> {
    Ok(Parsed {
        value,
        corrected: true,
        note: None,
    })
}

/// Whether the value stands for none: `"__none__"`, `""` or null.
pub(super) fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty() || text.trim().eq_ignore_ascii_case("__none__"),
        _ => false,
    }
}

/// An integer in a range.
fn between(value: &Value, least: i64, most: i64) -> Result<i64, InvalidValue> {
    integer(value)
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(InvalidValue::default)
}

/// A text, or a number where a text is expected (`device_name: 42` in YAML).
fn plain(value: &Value) -> Result<String, InvalidValue> {
    match value {
        Value::String(text) => Ok(text.trim().to_owned()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(InvalidValue::default()),
    }
}

/// A text on one line, without control characters.
fn one_line(value: &Value) -> Result<String, InvalidValue> {
    plain(value)
        .ok()
        .filter(|text| !text.contains(char::is_control))
        .ok_or_else(InvalidValue::default)
}

/// A boolean, or `yes`, `no`, `on`, `off`, `true`, `false` in any case.
pub(super) fn switch(value: &Value) -> ParseResult<bool> {
    match value {
        Value::Bool(on) => parsed(*on),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" => parsed(true),
            "no" | "off" | "false" => parsed(false),
            _ => Err(InvalidValue::default()),
        },
        _ => Err(InvalidValue::default()),
    }
}

pub(super) fn any_text(value: &Value) -> ParseResult<String> {
    parsed(plain(value)?)
}

pub(super) fn text(value: &Value) -> ParseResult<String> {
    parsed(one_line(value)?)
}

pub(super) fn path(value: &Value) -> ParseResult<PathBuf> {
    parsed(one_line(value)?.into())
}

pub(super) fn some_path(value: &Value) -> ParseResult<Option<PathBuf>> {
    let text = one_line(value)?;
    // The content of a key file instead of its path.
    if redact::credentials(&text) != text {
        return Err(InvalidValue::default());
    }
    parsed(Some(text.into()))
}

/// Absolute paths: a list of texts, or a text with colons between them.
pub(super) fn paths(value: &Value) -> ParseResult<Vec<PathBuf>> {
    let texts = match value {
        Value::Array(items) => items.iter().map(one_line).collect::<Result<_, _>>()?,
        _ => one_line(value)?
            .split(':')
            .map(|text| text.trim().to_owned())
            .collect::<Vec<_>>(),
    };
    let paths: Vec<PathBuf> = texts
        .into_iter()
        .filter(|text| !text.is_empty())
        .map(PathBuf::from)
        .collect();
    match paths.iter().find(|path| !path.is_absolute()) {
        None => parsed(paths),
        Some(path) => Err(InvalidValue {
            reason: Some(format!(
                "has a path that is not absolute, {:?}",
                path.display().to_string()
            )),
        }),
    }
}

/// The name or ARN of a secret, which has only these characters. Not its content (JSON, an API key).
pub(super) fn secret_id(value: &Value) -> ParseResult<String> {
    let text = one_line(value)?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-:".contains(c);
    if !text.chars().all(is_part) || redact::credentials(&text) != text || is_foreign_arn(&text) {
        return Err(InvalidValue::default());
    }
    parsed(text)
}

/// Whether the text is an ARN, but not of a secret: `arn:<partition>:secretsmanager:<region>:<account>:secret:<name>`.
fn is_foreign_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(7, ':').collect();
    match parts.as_slice() {
        ["arn", _, "secretsmanager", region, account, "secret", name] => {
            region.is_empty() || account.is_empty() || name.is_empty()
        }
        ["arn", ..] => true,
        _ => false,
    }
}

/// The name of a key inside a secret, not the API key itself.
pub(super) fn secret_name(value: &Value) -> ParseResult<String> {
    let text = one_line(value)?;
    // A short name that looks like an API key is only hidden.
    let is_api_key = text.len() >= 20 && redact::credentials(&text) != text;
    if text.starts_with(['{', '[', '"']) || is_api_key {
        return Err(InvalidValue::default());
    }
    parsed(text)
}

pub(super) fn bucket(value: &Value) -> ParseResult<Option<S3Bucket>> {
    match bucket::parse(&one_line(value)?) {
        Ok(bucket) => parsed(Some(bucket)),
        Err(reason) => Err(InvalidValue { reason: Some(reason) }),
    }
}

pub(super) fn some_events(value: &Value) -> ParseResult<Option<EventsConfig>> {
    match parse_events(value) {
        Ok(events) => parsed(Some(events)),
        Err(reason) => Err(InvalidValue { reason: Some(reason) }),
    }
}

pub(super) fn some_event_clip(value: &Value) -> ParseResult<Option<EventClipConfig>> {
    match event_clip::parse(value) {
        Ok(clip) => parsed(Some(clip)),
        Err(reason) => Err(InvalidValue { reason: Some(reason) }),
    }
}

pub(super) fn some_secret(value: &Value) -> ParseResult<Option<Secret>> {
    parsed(Some(Secret::new(one_line(value)?)))
}

/// Group names separated by blanks. The install step passes them to `usermod` as root, so nothing else is accepted.
pub(super) fn groups(value: &Value) -> ParseResult<String> {
    let text = one_line(value)?;
    let is_name = |word: &str| {
        !word.starts_with('-')
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
    };
    if !text.split_whitespace().all(is_name) {
        return Err(InvalidValue::default());
    }
    parsed(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// One of the names of an enum, in any case.
pub(super) fn choice<T: FromStr>(value: &Value) -> ParseResult<T> {
    one_line(value)?.parse().map_or(Err(InvalidValue::default()), parsed)
}

/// Seconds, from 0.1 to 86400.
pub(super) fn seconds(value: &Value) -> ParseResult<Duration> {
    let seconds = finite(value)
        .filter(|s| (0.1..=86_400.0).contains(s))
        .ok_or_else(InvalidValue::default)?;
    Duration::try_from_secs_f64(seconds).map_or(Err(InvalidValue::default()), parsed)
}

/// The interval of the metrics: 100 ms and below become a minute, as in the old component.
pub(super) fn metrics_interval(value: &Value) -> ParseResult<Duration> {
    /// The longest interval of the old component's timer (2^31 - 1 ms, 25 days).
    const MOST: f64 = 2_147_483_647.0;
    let millis = finite(value)
        .filter(|ms| *ms <= MOST)
        .ok_or_else(InvalidValue::default)?;
    if millis <= 100.0 {
        return corrected(Duration::from_secs(60));
    }
    Duration::try_from_secs_f64(millis / 1000.0).map_or(Err(InvalidValue::default()), parsed)
}

/// The interval of still pictures: at least 10 ms, at most a day.
pub(super) fn still_interval(value: &Value) -> ParseResult<Duration> {
    millis_from(10, value)
}

/// Milliseconds, from a minute (as in the program of Edge Impulse) to a day.
pub(super) fn summary_interval(value: &Value) -> ParseResult<Duration> {
    millis_from(60_000, value)
}

/// Milliseconds, at most a day.
fn millis_from(least: i64, value: &Value) -> ParseResult<Duration> {
    let millis = between(value, least, 86_400_000)?;
    u64::try_from(millis).map_or(Err(InvalidValue::default()), |millis| {
        parsed(Duration::from_millis(millis))
    })
}

/// `auto`, `mix`, or the number of a channel.
pub(super) fn microphone_channel(value: &Value) -> ParseResult<MicrophoneChannel> {
    match plain(value)?.to_ascii_lowercase().as_str() {
        "auto" => return parsed(MicrophoneChannel::Auto),
        "mix" => return parsed(MicrophoneChannel::Mix),
        _ => {}
    }
    let number = between(value, 1, i64::from(MicrophoneChannel::LAST))?;
    u8::try_from(number).map_or(Err(InvalidValue::default()), |number| {
        parsed(MicrophoneChannel::Number(number))
    })
}

/// An integer; everything below 1 means 1 (`iotcore_backoff`: publish every inference).
pub(super) fn count(value: &Value) -> ParseResult<u32> {
    let count = integer(value).ok_or_else(InvalidValue::default)?.max(1);
    u32::try_from(count).map_or(Err(InvalidValue::default()), parsed)
}

pub(super) fn qos(value: &Value) -> ParseResult<Qos> {
    match integer(value) {
        Some(0) => parsed(Qos::AtMostOnce),
        Some(1) => parsed(Qos::AtLeastOnce),
        Some(2 | 3) => corrected(Qos::AtLeastOnce),
        _ => Err(InvalidValue::default()),
    }
}

/// A size in MiB, as bytes; at most 16 TiB.
pub(super) fn mebibytes(value: &Value) -> ParseResult<u64> {
    let size = between(value, 1, 1 << 24)?;
    u64::try_from(size).map_or(Err(InvalidValue::default()), |size| parsed(size << 20))
}

/// Minutes, at most a week; 0 is allowed.
pub(super) fn minutes(value: &Value) -> ParseResult<Duration> {
    let minutes = between(value, 0, 7 * 24 * 60)?;
    u64::try_from(minutes).map_or(Err(InvalidValue::default()), |minutes| {
        parsed(Duration::from_secs(minutes * 60))
    })
}

/// `no`, or a band of values.
pub(super) fn band(value: &Value) -> ParseResult<Option<ValueBand>> {
    let text = match value {
        Value::Bool(is_on) => is_on.to_string(),
        _ => one_line(value)?,
    };
    match frame_collection::parse_band(&text) {
        Ok(band) => parsed(band),
        Err(reason) => Err(InvalidValue { reason }),
    }
}

/// At most one in a second.
pub(super) fn per_hour(value: &Value) -> ParseResult<u32> {
    u32::try_from(between(value, 0, 3600)?).map_or(Err(InvalidValue::default()), parsed)
}

/// The inputs of a trial: at least one.
pub(super) fn trial_inferences(value: &Value) -> ParseResult<u32> {
    u32::try_from(between(value, 1, 100_000)?).map_or(Err(InvalidValue::default()), parsed)
}

/// 64 hexadecimal digits, in lower case. Another text is kept, with a warning: no file has it, and without it every file
/// would be accepted.
pub(super) fn some_sha256(value: &Value) -> ParseResult<Option<String>> {
    const DIGITS: usize = 64;
    let text = one_line(value)?.to_ascii_lowercase();
    if text.len() == DIGITS && text.chars().all(|c| c.is_ascii_hexdigit()) {
        return parsed(Some(text));
    }
    corrected(Some(text.chars().take(DIGITS - 1).collect()))
}

pub(super) fn port(value: &Value) -> ParseResult<u16> {
    u16::try_from(between(value, 0, 65_535)?).map_or(Err(InvalidValue::default()), parsed)
}

/// An IP address (IPv6 also in brackets) or a host name.
pub(super) fn host(value: &Value) -> ParseResult<String> {
    let text = one_line(value)?;
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(&text);
    if bare.parse::<std::net::IpAddr>().is_ok() || is_host_name(bare) {
        return parsed(bare.to_owned());
    }
    Err(InvalidValue::default())
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

/// `host`, or `host:port`. IoT Core has no port 1883; a value with it means `mqtt://host:1883`.
fn is_host_and_port(text: &str) -> bool {
    match text.split_once(':') {
        Some((host, port)) => is_host_name(host) && port.parse::<u16>().is_ok_and(|port| port > 0 && port != 1883),
        None => is_host_name(text),
    }
}

/// The host of IoT Core, or the URL of another broker.
pub(super) fn broker(value: &Value) -> ParseResult<Option<Redacted>> {
    let given = one_line(value)?;
    let (text, note) = match other_scheme(&given) {
        Some((text, note)) => (text, Some(note)),
        None => (given, None),
    };
    let usable = match Url::parse(&text) {
        Ok(url) if text.contains("://") => {
            matches!(url.scheme(), "mqtt" | "mqtts" | "ws" | "wss")
                && url.host_str().is_some_and(|host| !host.is_empty())
        }
        _ => is_host_and_port(&text),
    };
    if usable && !text.contains(char::is_whitespace) {
        Ok(Parsed {
            value: Some(text.into()),
            corrected: false,
            note,
        })
    } else {
        Err(InvalidValue::default())
    }
}

/// The URL with the scheme of this program for one with `tcp://` or `ssl://`, as other MQTT clients write them, and a
/// note.
fn other_scheme(text: &str) -> Option<(String, String)> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let used = match scheme.as_str() {
        "tcp" => "mqtt",
        "ssl" => "mqtts",
        _ => return None,
    };
    let note = format!("the broker address with {scheme}:// is read as {used}://");
    Some((format!("{used}://{rest}"), note))
}

pub(super) fn model(value: &Value) -> ParseResult<Option<ModelSource>> {
    let text = one_line(value)?;
    match text.strip_prefix("builtin:") {
        Some("") => Err(InvalidValue::default()),
        Some(name) => parsed(Some(ModelSource::Builtin(name.to_owned()))),
        None => parsed(Some(ModelSource::File(text.into()))),
    }
}

pub(super) fn encoded_source(value: &Value) -> ParseResult<Option<SourceLine>> {
    match value {
        Value::String(line) => parsed(Some(SourceLine(line.trim().to_owned()))),
        _ => Err(InvalidValue::default()),
    }
}

/// The confidence, with a note where the value can be misread. The model, which is not known yet, decides whether a
/// number outside the range of probabilities is used.
pub(super) fn threshold(value: &Value) -> ParseResult<f64> {
    let given = parse_threshold(value).map_err(|_| InvalidValue::default())?;
    let note = match as_fraction(given) {
        None => Some(format!(
            "`default_threshold` {given} is used for a regression or anomaly model only, whose scores are no probabilities"
        )),
        Some(fraction) if given > 1.0 => Some(format!(
            "for a model whose scores are probabilities (not regression, not anomaly), \
             `default_threshold` {given} is read as a percentage: the confidence is compared with {fraction}"
        )),
        Some(fraction) if given == 1.0 => Some(format!(
            "`default_threshold` {given} is read as a fraction: the confidence is compared with {fraction}"
        )),
        Some(_) => None,
    };
    Ok(Parsed {
        value: given,
        corrected: false,
        note,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn null_empty_text_and_the_none_marker_mean_absent() {
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
    fn the_schemes_of_other_clients_are_read_with_a_note() {
        for (text, url) in [
            ("tcp://me:hush@h:1884", "mqtt://me:hush@h:1884"),
            ("SSL://h", "mqtts://h"),
        ] {
            let broker = broker(&json!(text)).unwrap();
            assert_eq!(broker.value.as_deref(), Some(url));
            let note = broker.note.unwrap();
            assert!(note.contains("is read as mqtt") && !note.contains("hush"), "{note}");
        }
        assert_eq!(broker(&json!("mqtt://h")).unwrap().note, None);
    }

    #[test]
    fn groups_with_shell_syntax_are_refused() {
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
