//! The key `event_clip`: whether events get a clip, and how long it is.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::error;
use super::json_text::parse_object_text;
use super::number::{finite, integer};
use super::spelling;

/// The names in the object.
const FIELDS: [&str; 3] = ["pre_s", "post_s", "max_mb"];
/// Longest time before and after an event, in seconds.
const MOST_SECONDS: f64 = 30.0;
/// Used for `pre_s` and `post_s` that are not given.
const DEFAULT_TIME: Duration = Duration::from_secs(5);
/// Used for `max_mb` that is not given, in MiB.
const DEFAULT_MAX_MIB: u64 = 512;
/// Largest `max_mb`, in MiB.
const MOST_MIB: u64 = 1 << 24;
/// Longest JSON text, in bytes.
const MAX_TEXT: usize = 1024;

/// The clips of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventClipConfig {
    /// Recorded before the start of an event.
    pub before: Duration,
    /// Recorded after its end.
    pub after: Duration,
    /// Most bytes of all clips on disk.
    pub max_bytes: u64,
}

/// Shows one line of JSON that [`parse`] accepts.
impl fmt::Display for EventClipConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Duration| match time.subsec_nanos() {
            0 => json!(time.as_secs()),
            _ => json!(time.as_secs_f64()),
        };
        json!({
            "pre_s": seconds(self.before), "post_s": seconds(self.after), "max_mb": self.max_bytes >> 20,
        })
        .fmt(f)
    }
}

/// Parses the object, or its JSON text, as Greengrass Lite passes it.
///
/// # Errors
/// Everything that is wrong with it, as one clause after "which".
pub(super) fn parse(value: &Value) -> Result<EventClipConfig, String> {
    let from_text;
    let value = match value {
        Value::String(text) => {
            from_text = parse_object_text(text, MAX_TEXT)?;
            &from_text
        }
        value => value,
    };
    let Value::Object(fields) = value else {
        return Err(format!("is {}, but not an object", error::shown(value)));
    };
    let mut problems: Vec<_> = fields.keys().filter_map(|name| unknown_name(name)).take(3).collect();
    let config = EventClipConfig {
        before: seconds(fields, "pre_s", &mut problems),
        after: seconds(fields, "post_s", &mut problems),
        max_bytes: max_mib(fields, &mut problems) << 20,
    };
    match &problems[..] {
        [] => Ok(config),
        problems => Err(problems.join("; ")),
    }
}

fn unknown_name(name: &str) -> Option<String> {
    if FIELDS.contains(&name) {
        return None;
    }
    let nearest = spelling::nearest(name, FIELDS, 2);
    let meant = nearest.map_or_else(String::new, |field| format!(" (did you mean `{field}`?)"));
    Some(format!(
        "has the unknown name `{}`{meant}, but accepted are {}",
        error::name(name),
        FIELDS.join(", ")
    ))
}

/// The value of a field; null counts as absent.
fn given<'v>(fields: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    fields.get(name).filter(|value| !value.is_null())
}

fn seconds(fields: &Map<String, Value>, name: &str, problems: &mut Vec<String>) -> Duration {
    let Some(value) = given(fields, name) else {
        return DEFAULT_TIME;
    };
    let time = finite(value)
        .filter(|seconds| (0.0..=MOST_SECONDS).contains(seconds))
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.unwrap_or_else(|| {
        problems.push(format!(
            "has {} as `{name}`, but accepted are 0 to {MOST_SECONDS} seconds",
            error::shown(value)
        ));
        DEFAULT_TIME
    })
}

fn max_mib(fields: &Map<String, Value>, problems: &mut Vec<String>) -> u64 {
    let Some(value) = given(fields, "max_mb") else {
        return DEFAULT_MAX_MIB;
    };
    let size = integer(value).and_then(|size| u64::try_from(size).ok());
    size.filter(|size| (1..=MOST_MIB).contains(size)).unwrap_or_else(|| {
        problems.push(format!(
            "has {} as `max_mb`, but accepted is an integer from 1 to {MOST_MIB}",
            error::shown(value)
        ));
        DEFAULT_MAX_MIB
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: Value) -> Result<String, String> {
        parse(&value).map(|config| config.to_string())
    }

    #[test]
    fn an_object_or_its_text_is_read_and_shown_with_every_default() {
        let complete =
            |pre: &str, post: &str, max: u32| Ok(format!(r#"{{"pre_s":{pre},"post_s":{post},"max_mb":{max}}}"#));
        for (given, expected) in [
            (json!({}), complete("5", "5", 512)),
            (json!("{}"), complete("5", "5", 512)),
            (
                json!({"pre_s": 2.5, "post_s": 0, "max_mb": 64}),
                complete("2.5", "0", 64),
            ),
            (
                json!({"pre_s": "3", "max_mb": "7", "post_s": null}),
                complete("3", "5", 7),
            ),
            (json!(r#" {"pre_s": 30, "post_s": 30} "#), complete("30", "30", 512)),
        ] {
            assert_eq!(shown(given.clone()), expected, "{given}");
        }
        let text = r#"{"pre_s":2.5,"post_s":0,"max_mb":64}"#;
        assert_eq!(shown(json!(text)), Ok(text.to_owned()), "what is shown is accepted");
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_accepted() {
        for (given, wanted) in [
            (
                json!({"pre": 5}),
                "the unknown name `pre` (did you mean `pre_s`?), but accepted are pre_s, post_s, max_mb",
            ),
            (json!({"Post-s": 5}), "did you mean `post_s`?"),
            (json!({"seconds": 5}), "the unknown name `seconds`, but"),
            (
                json!({"pre_s": -1}),
                "has -1 as `pre_s`, but accepted are 0 to 30 seconds",
            ),
            (json!({"post_s": 31}), "accepted are 0 to 30 seconds"),
            (json!({"post_s": [5]}), "as `post_s`"),
            (
                json!({"max_mb": 0}),
                "has 0 as `max_mb`, but accepted is an integer from 1 to 16777216",
            ),
            (json!({"max_mb": 1.5}), "as `max_mb`"),
            (json!({"max_mb": 1e300}), "as `max_mb`"),
            (json!([5, 5]), "not an object"),
            (json!(5), "is 5, but not an object"),
            (json!(true), "not an object"),
            (json!("5 s"), "is no JSON"),
            (json!("[1]"), "not an object"),
            (json!(r#"{"pre_s": 1} x"#), "is no JSON"),
            (
                json!(r#"{"pre_s": 1, "pre_s": 2}"#),
                "has the name `pre_s` more than once in one object",
            ),
            (json!("{".repeat(4000)), "has 4000 bytes"),
        ] {
            let problem = shown(given.clone()).unwrap_err();
            assert!(problem.contains(wanted), "{given}: {problem}");
        }
        let both = shown(json!({"pre_s": 99, "max_mb": -1})).unwrap_err();
        assert!(both.contains("pre_s") && both.contains("max_mb"), "{both}");
    }
}
