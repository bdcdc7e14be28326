//! Parses a message of `command/input`.

use serde_json::Value;

use super::answer::shortened;
use super::table::{COMMANDS, CommandSpec, find};
use crate::uplink::{CommandRefusal, MAX_COMMAND_BYTES};

const ACCEPTED: &str =
    r#"accepted: an object like {"cmd":"get_model_info"} or {"cmd":"set_threshold_filter_confidence","value":0.7}"#;

/// A known verb with its value.
#[derive(Debug, Clone)]
pub(super) struct ParsedCommand {
    pub spec: &'static CommandSpec,
    /// The value as received; null if absent. The handler checks it.
    pub value: Value,
}

/// Why a message is not a command. The text is sent to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CommandError {
    #[error(transparent)]
    Refused(#[from] CommandRefusal),
    #[error("the command is not JSON ({0}); {ACCEPTED}")]
    NotJson(String),
    /// The message is JSON, but not an object with a `cmd`.
    #[error("the command is {0}; {ACCEPTED}")]
    WrongShape(&'static str),
    /// The command exists with another spelling.
    #[error("unknown command \"{given}\": commands are matched exactly; send \"{meant}\"")]
    Spelling { given: String, meant: &'static str },
    #[error("unknown command \"{given}\"; accepted: {}", names())]
    Unknown { given: String },
}

/// Parses one message.
///
/// # Errors
/// The message is too large, is not JSON, or has no known command.
pub(super) fn parse(payload: &[u8]) -> Result<ParsedCommand, CommandError> {
    if payload.len() > MAX_COMMAND_BYTES {
        return Err(CommandRefusal::TooLarge(payload.len()).into());
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
    let spec = find(&verb).ok_or_else(|| unknown(&verb))?;
    Ok(ParsedCommand { spec, value })
}

fn unknown(verb: &str) -> CommandError {
    let given = shortened(verb);
    let normalized = verb.trim().to_ascii_lowercase().replace([' ', '-'], "_");
    match find(&normalized) {
        Some(CommandSpec { name: meant, .. }) => CommandError::Spelling { given, meant },
        None => CommandError::Unknown { given },
    }
}

fn names() -> String {
    let names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::commands::answer::error_answer;

    fn parse_text(text: &str) -> Result<ParsedCommand, CommandError> {
        parse(text.as_bytes())
    }

    #[test]
    fn the_value_is_passed_on_as_sent() {
        for (text, name, value) in [
            (
                r#"{"cmd":"set_threshold_filter_confidence","value":"75.6"}"#,
                "set_threshold_filter_confidence",
                json!("75.6"),
            ),
            (
                r#" {"value":"GE","cmd":"set_threshold_filter_criteria","extra":1} "#,
                "set_threshold_filter_criteria",
                json!("GE"),
            ),
            (
                r#"{"cmd":"set_threshold_filter_criteria"}"#,
                "set_threshold_filter_criteria",
                Value::Null,
            ),
            (
                r#"{"cmd":"clear_cache_file","value":"../x"}"#,
                "clear_cache_file",
                json!("../x"),
            ),
            (r#"{"cmd":"clear_cache_file","value":7}"#, "clear_cache_file", json!(7)),
        ] {
            let command = parse_text(text).expect(text);
            assert_eq!((command.spec.name, command.value), (name, value), "{text}");
        }
    }

    #[test]
    fn a_command_with_another_spelling_is_refused_with_the_right_one() {
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
    fn the_answer_to_an_invalid_message_says_what_is_accepted() {
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
            let answer: Value = serde_json::from_slice(&error_answer(error)).expect("JSON");
            assert!(
                answer["result"]["error"]
                    .as_str()
                    .is_some_and(|text| text.contains("accepted:")),
                "{answer}"
            );
            assert_eq!(answer["result"].as_object().map(serde_json::Map::len), Some(1));
        }
    }

    #[test]
    fn a_command_over_64_kib_is_refused_unread() {
        let payload = vec![b' '; MAX_COMMAND_BYTES + 1];
        let error = parse(&payload).expect_err("too large");
        assert_eq!(error, CommandError::Refused(CommandRefusal::TooLarge(65537)));
    }

    #[test]
    fn an_error_does_not_repeat_a_long_verb_in_full() {
        let long = "x".repeat(60_000);
        let error = parse_text(&format!(r#"{{"cmd":"{long}"}}"#)).expect_err("unknown");
        assert!(error.to_string().len() < 600);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_command_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_verb_and_value_are_a_command_or_an_error(verb in "\\PC{0,40}", value in "\\PC{0,40}") {
            let payload = json!({"cmd": verb, "value": value}).to_string();
            prop_assert_eq!(parse(payload.as_bytes()).is_ok(), find(&verb).is_some());
        }
    }
}
