//! Commands and their answers: pure functions between JSON and types. Values of settings stay JSON here; whoever holds
//! the setting reads them, and answers with what is now in force.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::config::{Criteria, FilterConfig};

/// A command larger than this is refused unread.
pub const MAX_COMMAND_BYTES: usize = 64 * 1024;

/// Text of a sender is repeated in an answer up to this many characters.
const ECHO_CHARS: usize = 64;

/// Every verb, as matched.
const VERBS: [&str; 12] = [
    "restart",
    "enable_threshold_filter",
    "disable_threshold_filter",
    "get_threshold_filter_config",
    "set_threshold_filter_criteria",
    "get_threshold_filter_criteria",
    "set_threshold_filter_confidence",
    "get_threshold_filter_confidence",
    "get_model_info",
    "reset_metrics",
    "clear_cache",
    "clear_cache_file",
];

/// A command.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Everything starts again as in a new process.
    Restart,
    /// The confidence filter is switched on.
    EnableFilter,
    /// The confidence filter is switched off.
    DisableFilter,
    /// Asks for the filter's settings.
    GetFilterConfig,
    /// New criteria, as sent (null when absent).
    SetCriteria(Value),
    /// Asks for the criteria.
    GetCriteria,
    /// New threshold, as sent (null when absent).
    SetConfidence(Value),
    /// Asks for the threshold.
    GetConfidence,
    /// Asks for the model's description.
    GetModelInfo,
    /// Metrics start again.
    ResetMetrics,
    /// All cached pairs are removed.
    ClearCache,
    /// One cached pair is removed: the id as sent, not yet checked to be a uuid (empty when absent).
    ClearCacheFile(String),
}

/// Why a message on `command/input` is not a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Refused unread.
    #[error("the command has {0} bytes; at most {MAX_COMMAND_BYTES} are read")]
    TooLarge(usize),
    /// Too many commands wait to be handled.
    #[error("too many commands wait to be carried out; send this one again later")]
    Busy,
    /// Nobody takes commands any more.
    #[error("the component is stopping and takes no more commands")]
    Stopping,
    /// Asked about the model before it said hello.
    #[error("no model is loaded yet; ask again after the notice \"started\"")]
    NoModel,
    /// Not JSON.
    #[error("the command is not JSON ({0}); {SHAPE}")]
    NotJson(String),
    /// JSON, but not an object with a `cmd`.
    #[error("the command is {0}; {SHAPE}")]
    WrongShape(&'static str),
    /// A verb that exists in another spelling.
    #[error("unknown command \"{given}\": commands are matched exactly; send \"{meant}\"")]
    Spelling {
        /// As sent, shortened.
        given: String,
        /// The verb that differs only in case, spaces or dashes.
        meant: &'static str,
    },
    /// No such verb.
    #[error("unknown command \"{given}\"; accepted: {}", VERBS.join(", "))]
    Unknown {
        /// As sent, shortened.
        given: String,
    },
}

const SHAPE: &str =
    r#"accepted: an object like {"cmd":"get_model_info"} or {"cmd":"set_threshold_filter_confidence","value":0.7}"#;

/// Reads one message of `command/input`.
///
/// # Errors
/// [`CommandError`], whose text is meant for the sender.
pub fn parse(payload: &[u8]) -> Result<Command, CommandError> {
    if payload.len() > MAX_COMMAND_BYTES {
        return Err(CommandError::TooLarge(payload.len()));
    }
    let text = std::str::from_utf8(payload).map_err(|error| CommandError::NotJson(format!("not UTF-8: {error}")))?;
    let json: Value = serde_json::from_str(text).map_err(|error| CommandError::NotJson(error.to_string()))?;
    let Value::Object(mut object) = json else {
        return Err(CommandError::WrongShape("not an object"));
    };
    let verb = match object.remove("cmd") {
        Some(Value::String(verb)) => verb,
        Some(_) => return Err(CommandError::WrongShape("an object whose \"cmd\" is not text")),
        None => return Err(CommandError::WrongShape("an object without \"cmd\"")),
    };
    let value = object.remove("value").unwrap_or(Value::Null);
    command(&verb, value).ok_or_else(|| unknown(&verb))
}

fn command(verb: &str, value: Value) -> Option<Command> {
    Some(match verb {
        "restart" => Command::Restart,
        "enable_threshold_filter" => Command::EnableFilter,
        "disable_threshold_filter" => Command::DisableFilter,
        "get_threshold_filter_config" => Command::GetFilterConfig,
        "set_threshold_filter_criteria" => Command::SetCriteria(value),
        "get_threshold_filter_criteria" => Command::GetCriteria,
        "set_threshold_filter_confidence" => Command::SetConfidence(value),
        "get_threshold_filter_confidence" => Command::GetConfidence,
        "get_model_info" => Command::GetModelInfo,
        "reset_metrics" => Command::ResetMetrics,
        "clear_cache" => Command::ClearCache,
        "clear_cache_file" => Command::ClearCacheFile(match value {
            Value::String(id) => id,
            Value::Null => String::new(),
            other => other.to_string(),
        }),
        _ => return None,
    })
}

fn unknown(verb: &str) -> CommandError {
    let given = shortened(verb);
    let plain = verb.trim().to_ascii_lowercase().replace([' ', '-'], "_");
    match VERBS.into_iter().find(|known| *known == plain) {
        Some(meant) => CommandError::Spelling { given, meant },
        None => CommandError::Unknown { given },
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(ECHO_CHARS).collect()
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// `restart` was accepted.
    Restart,
    /// The filter's settings now in force.
    FilterConfig(FilterConfig),
    /// The criteria now in force, and why a new value was refused.
    Criteria {
        /// In force.
        current: Criteria,
        /// What would have been accepted.
        error: Option<String>,
    },
    /// The threshold now in force (a fraction), and why a new value was refused.
    Confidence {
        /// In force.
        current: f64,
        /// What would have been accepted.
        error: Option<String>,
    },
    /// The model's description.
    ModelInfo {
        /// Name of the project.
        name: String,
        /// Deploy version as shown, like `v25`.
        version: String,
        /// Parameters as the model sent them, plus `sensorType`.
        params: Value,
    },
    /// The metrics were reset.
    MetricsReset,
    /// `clear_cache`, per store; a store that is off counts as cleared.
    CacheCleared {
        /// Local files.
        local: bool,
        /// S3 objects.
        s3: bool,
    },
    /// `clear_cache_file`, per store.
    CacheFileCleared {
        /// Local files.
        local: bool,
        /// S3 objects.
        s3: bool,
        /// The id as sent.
        id: String,
        /// What would have been accepted.
        error: Option<String>,
    },
    /// The command was not understood or not taken; nothing changed.
    Error(CommandError),
}

impl Answer {
    /// `{"result":{...}}`
    pub fn to_json(&self) -> Bytes {
        let mut result = Map::new();
        let mut put = |key: &str, value: Value| result.insert(key.to_owned(), value);
        let error = match self {
            Self::Restart => {
                put("restart", json!("OK"));
                None
            }
            Self::FilterConfig(filter) => {
                put("threshold_filter_config", filter.to_json());
                None
            }
            Self::Criteria { current, error } => {
                put("criteria", json!(current.as_str()));
                error.clone()
            }
            Self::Confidence { current, error } => {
                put("confidence_threshold", json!(current));
                error.clone()
            }
            Self::ModelInfo { name, version, params } => {
                put(
                    "model_info",
                    json!({"model_name": name, "model_version": version, "model_params": params}),
                );
                None
            }
            Self::MetricsReset => {
                put("metrics_reset", json!("OK"));
                None
            }
            Self::CacheCleared { local, s3 } => {
                put("clear_cache", json!({"local": outcome(*local), "s3": outcome(*s3)}));
                None
            }
            Self::CacheFileCleared { local, s3, id, error } => {
                put(
                    "clear_cache_file",
                    json!({"local": outcome(*local), "s3": outcome(*s3), "uuid": shortened(id)}),
                );
                error.clone()
            }
            Self::Error(error) => Some(error.to_string()),
        };
        if let Some(error) = error {
            put("error", Value::String(error));
        }
        json!({ "result": result }).to_string().into()
    }
}

fn outcome(ok: bool) -> &'static str {
    if ok { "OK" } else { "FAILED" }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse_text(text: &str) -> Result<Command, CommandError> {
        parse(text.as_bytes())
    }

    #[test]
    fn every_verb_is_a_command_of_its_own() {
        let mut seen = Vec::new();
        for verb in VERBS {
            let command = parse_text(&format!(r#"{{"cmd":"{verb}"}}"#)).expect(verb);
            assert!(!seen.contains(&command), "{verb}");
            seen.push(command);
        }
    }

    #[test]
    fn values_are_handed_on_as_sent() {
        assert_eq!(
            parse_text(r#"{"cmd":"set_threshold_filter_confidence","value":"75.6"}"#),
            Ok(Command::SetConfidence(json!("75.6")))
        );
        assert_eq!(
            parse_text(r#" {"value":"GE","cmd":"set_threshold_filter_criteria","extra":1} "#),
            Ok(Command::SetCriteria(json!("GE")))
        );
        assert_eq!(
            parse_text(r#"{"cmd":"set_threshold_filter_criteria"}"#),
            Ok(Command::SetCriteria(Value::Null))
        );
        assert_eq!(
            parse_text(r#"{"cmd":"clear_cache_file","value":"../x"}"#),
            Ok(Command::ClearCacheFile("../x".into()))
        );
        assert_eq!(
            parse_text(r#"{"cmd":"clear_cache_file","value":7}"#),
            Ok(Command::ClearCacheFile("7".into()))
        );
    }

    #[test]
    fn a_verb_in_another_spelling_is_refused_with_the_right_one() {
        for verb in ["Restart", " restart ", "RESTART"] {
            let error = parse_text(&format!(r#"{{"cmd":"{verb}"}}"#))
                .expect_err(verb)
                .to_string();
            assert!(
                error.contains("matched exactly") && error.contains("\"restart\""),
                "{error}"
            );
        }
        let error = parse_text(r#"{"cmd":"reboot"}"#).expect_err("unknown").to_string();
        assert!(
            error.contains("\"reboot\"") && error.contains("clear_cache_file"),
            "{error}"
        );
    }

    #[test]
    fn what_is_not_a_command_is_answered_with_what_is_accepted() {
        let deep = "[".repeat(5000);
        for payload in [
            &b"restart"[..],
            b"{\"cmd\":",
            b"[]",
            b"\"restart\"",
            b"{}",
            b"{\"cmd\":5}",
            b"\xff\xfe",
            deep.as_bytes(),
        ] {
            let error = parse(payload).expect_err("not a command");
            let answer: Value = serde_json::from_slice(&Answer::Error(error).to_json()).expect("JSON");
            assert!(
                answer["result"]["error"]
                    .as_str()
                    .is_some_and(|text| text.contains("accepted:")),
                "{answer}"
            );
            assert_eq!(answer["result"].as_object().map(Map::len), Some(1));
        }
    }

    #[test]
    fn a_command_over_64_kib_is_refused_unread() {
        let payload = vec![b' '; MAX_COMMAND_BYTES + 1];
        assert_eq!(parse(&payload), Err(CommandError::TooLarge(65537)));
    }

    #[test]
    fn answers_have_the_shapes_of_the_table() {
        let filter = FilterConfig {
            enabled: true,
            threshold: 0.7,
            criteria: Criteria::GreaterOrEqual,
        };
        for (answer, json) in [
            (Answer::Restart, r#"{"restart":"OK"}"#),
            (
                Answer::FilterConfig(filter),
                r#"{"threshold_filter_config":{"enabled":"yes","confidence_threshold":0.7,"threshold_criteria":"ge"}}"#,
            ),
            (
                Answer::Criteria {
                    current: Criteria::Less,
                    error: Some("no".into()),
                },
                r#"{"criteria":"lt","error":"no"}"#,
            ),
            (
                Answer::Confidence {
                    current: 0.756,
                    error: None,
                },
                r#"{"confidence_threshold":0.756}"#,
            ),
            (
                Answer::ModelInfo {
                    name: "m".into(),
                    version: "v25".into(),
                    params: json!({"sensorType": "camera"}),
                },
                r#"{"model_info":{"model_name":"m","model_version":"v25","model_params":{"sensorType":"camera"}}}"#,
            ),
            (Answer::MetricsReset, r#"{"metrics_reset":"OK"}"#),
            (
                Answer::CacheCleared { local: true, s3: false },
                r#"{"clear_cache":{"local":"OK","s3":"FAILED"}}"#,
            ),
            (
                Answer::CacheFileCleared {
                    local: true,
                    s3: true,
                    id: "u".into(),
                    error: None,
                },
                r#"{"clear_cache_file":{"local":"OK","s3":"OK","uuid":"u"}}"#,
            ),
        ] {
            assert_eq!(answer.to_json(), format!(r#"{{"result":{json}}}"#), "{answer:?}");
        }
    }

    #[test]
    fn a_long_text_is_not_repeated_in_full() {
        let long = "x".repeat(60_000);
        let error = parse_text(&format!(r#"{{"cmd":"{long}"}}"#)).expect_err("unknown");
        assert!(error.to_string().len() < 600);
        let answer = Answer::CacheFileCleared {
            local: false,
            s3: false,
            id: long,
            error: None,
        };
        assert!(answer.to_json().len() < 200);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_command_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_verb_and_value_are_a_command_or_an_error(verb in "\\PC{0,40}", value in "\\PC{0,40}") {
            let payload = json!({"cmd": verb, "value": value}).to_string();
            prop_assert_eq!(parse(payload.as_bytes()).is_ok(), VERBS.contains(&verb.as_str()));
        }
    }
}
