//! `send`: sends a command to the device and prints its answer.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::device_link::{DeviceLink, block_on};
use super::{ConfigArgs, Exit, LogArgs, complain, say_data};
use crate::commands::{self, COMMANDS};
use crate::uplink::{AdHocClient, Message, ReceivedMessage};

/// Arguments of `send`.
#[derive(Debug, Args)]
#[command(after_help = after_help())]
pub struct SendArgs {
    /// The command, for example restart, get_model_info or enable_threshold_filter.
    #[arg(value_name = "CMD")]
    command: String,
    /// The value: JSON if it is valid JSON, else text.
    #[arg(allow_negative_numbers = true)]
    value: Option<String>,
    /// Full name of another device than this one.
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    #[command(flatten)]
    config: ConfigArgs,
}

fn after_help() -> String {
    let mut help = String::from(
        "Example:\n  ei-greengrass send get_model_info --config my.json\n  \
         ei-greengrass send set_threshold_filter_confidence 0.8 --mqtt mqtt://localhost:1883\n\n\
         Exit code: 0 when the device executed the command; 1 when it answered FAILED or an error, or did not answer.\n\nCommands:",
    );
    for command in &COMMANDS {
        let value = command
            .value
            .map(|value| format!(" (value: {value})"))
            .unwrap_or_default();
        let _ = write!(help, "\n  {}{value}: {}", command.name, command.summary);
    }
    help
}

pub(super) fn main(args: &SendArgs, log: &LogArgs) -> Exit {
    let link = match DeviceLink::open(&args.config, args.device.as_deref(), log) {
        Ok(link) => link,
        Err(exit) => return exit,
    };
    block_on(send(args, &link))
}

async fn send(args: &SendArgs, link: &DeviceLink) -> Exit {
    if commands::find(&args.command).is_none() {
        complain("this version does not know the command (see --help); it is sent anyway, and the device answers");
    }
    let mut client = match link.connect(&[&link.topics.command_output]).await {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let payload = payload(&args.command, args.value.as_deref());
    let limit = Duration::from_secs(args.timeout);
    let exit = match timeout(limit, answer(&mut client, link, &args.command, payload)).await {
        Ok(Ok(answer)) => {
            say_data(&format!("{answer:#}"));
            exit_code(&answer)
        }
        Ok(Err(reason)) => {
            complain(&format!("the connection ended before the answer came: {reason}"));
            Exit::Failure
        }
        Err(_) => {
            complain(&format!(
                "device {} did not answer within {} s; is it running, and is this its name? `ei-greengrass watch` shows what it publishes",
                link.device, args.timeout
            ));
            Exit::Failure
        }
    };
    client.disconnect().await;
    exit
}

/// Sends the command and waits for its answer.
async fn answer(
    client: &mut AdHocClient,
    link: &DeviceLink,
    command: &str,
    payload: Bytes,
) -> Result<Value, crate::uplink::ConnectionError> {
    client.publish(Message::command(&link.topics, payload)).await?;
    loop {
        let ReceivedMessage { payload, .. } = client.next().await?;
        let result = serde_json::from_slice::<Value>(&payload).ok().and_then(|mut message| {
            let result = message.get_mut("result")?;
            Some(result.take())
        });
        if let Some(result) = result.filter(|result| is_answer(command, result)) {
            return Ok(result);
        }
    }
}

fn payload(command: &str, value: Option<&str>) -> Bytes {
    let mut message = json!({"cmd": command});
    if let Some(text) = value {
        message["value"] = serde_json::from_str(text).unwrap_or_else(|_| json!(text));
    }
    message.to_string().into()
}

/// Whether a `result` answers this command: it has the command's own key, or nothing but an error. State notices
/// (`status`) and answers to the commands of other clients do not.
fn is_answer(command: &str, result: &Value) -> bool {
    let Some(fields) = result.as_object() else {
        return false;
    };
    let has_own_key = commands::find(command).is_some_and(|command| fields.contains_key(command.answer_key));
    has_own_key || (fields.len() == 1 && fields.contains_key("error"))
}

/// A failure when the answer has an error, or FAILED anywhere.
fn exit_code(answer: &Value) -> Exit {
    fn fails(value: &Value) -> bool {
        match value {
            Value::String(text) => text == "FAILED",
            Value::Object(fields) => fields.values().any(fails),
            _ => false,
        }
    }
    // The parameters of a model are not a result of the command.
    let failed = answer.get("model_info").is_none() && fails(answer);
    if failed || answer.get("error").is_some() {
        Exit::Failure
    } else {
        Exit::Orderly
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    #[test]
    fn a_value_is_json_if_it_is_valid_json_else_text() {
        assert_eq!(payload("a", None), r#"{"cmd":"a"}"#);
        assert_eq!(payload("a", Some("0.8")), r#"{"cmd":"a","value":0.8}"#);
        assert_eq!(payload("a", Some("ge")), r#"{"cmd":"a","value":"ge"}"#);
    }

    #[test]
    fn a_negative_number_is_a_value_and_no_option() {
        let command = SendArgs::augment_args(clap::Command::new("send"));
        let matches = command.try_get_matches_from(["send", "set_threshold_filter_confidence", "-3.5"]);
        let args = SendArgs::from_arg_matches(&matches.unwrap()).unwrap();
        assert_eq!(args.value.as_deref(), Some("-3.5"));
    }

    #[test]
    fn notices_and_answers_to_other_clients_are_not_the_answer() {
        assert!(!is_answer("restart", &json!({"status": "started", "ts": 1})));
        assert!(!is_answer("restart", &json!({"criteria": "ge"})));
        assert!(!is_answer(
            "restart",
            &json!({"criteria": "ge", "error": "accepted: gt"})
        ));
        assert!(is_answer("restart", &json!({"restart": "OK"})));
        assert!(is_answer("restart", &json!({"error": "the component is stopping"})));
        assert!(is_answer("no_such", &json!({"error": "unknown command"})));
    }

    #[test]
    fn the_exit_code_follows_the_outcome() {
        for (answer, exit) in [
            (json!({"restart": "OK"}), Exit::Orderly),
            (json!({"clear_cache": {"local": "OK", "s3": "FAILED"}}), Exit::Failure),
            (json!({"criteria": "ge", "error": "accepted: gt"}), Exit::Failure),
            (
                json!({"model_info": {"model_params": {"labels": "FAILED"}}}),
                Exit::Orderly,
            ),
        ] {
            assert_eq!(exit_code(&answer), exit, "{answer}");
        }
    }
}
