//! `send`: a command to the device, and its answer.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::device_link::{DeviceLink, block_on};
use super::{ConfigArgs, Exit, LogArgs, complain, say};
use crate::uplink::{AdHocClient, ReceivedMessage};

/// Arguments of `send`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ei-greengrass send get_model_info --config my.json\n  \
    ei-greengrass send set_threshold_filter_confidence 0.8 --mqtt mqtt://localhost:1883\n\n\
    Exit code: 0 when the device did it; 1 when it answered FAILED or an error, or did not answer.")]
pub struct SendArgs {
    /// The command, for example restart, get_model_info or enable_threshold_filter.
    #[arg(value_name = "CMD")]
    command: String,
    /// Its value: JSON where it is such, else text.
    value: Option<String>,
    /// Another device than this one, by its full name.
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// How long the answer is waited for, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn main(args: &SendArgs, log: &LogArgs) -> Exit {
    let link = match DeviceLink::open(&args.config, args.device.as_deref(), log) {
        Ok(link) => link,
        Err(exit) => return exit,
    };
    block_on(send(args, &link))
}

async fn send(args: &SendArgs, link: &DeviceLink) -> Exit {
    let mut visit = match link.visit(&[&link.topics.command_output]).await {
        Ok(visit) => visit,
        Err(exit) => return exit,
    };
    let payload = payload(&args.command, args.value.as_deref());
    let limit = Duration::from_secs(args.timeout);
    let exit = match timeout(limit, answer(&mut visit, link, &args.command, payload)).await {
        Ok(Ok(answer)) => {
            say(&format!("{answer:#}"));
            judge(&answer)
        }
        Ok(Err(reason)) => {
            complain(&format!("the connection ended before the answer came: {reason}"));
            Exit::Failure
        }
        Err(_) => {
            complain(&format!(
                "device {} did not answer within {} s; is it running, and is that its name? `ei-greengrass watch` shows what it publishes",
                link.device, args.timeout
            ));
            Exit::Failure
        }
    };
    visit.leave().await;
    exit
}

/// Sends the command and waits for its answer among what the device says.
async fn answer(
    visit: &mut AdHocClient,
    link: &DeviceLink,
    command: &str,
    payload: Bytes,
) -> Result<Value, crate::uplink::ConnectionError> {
    let mut seen = Vec::new();
    visit.publish(&link.topics.command_input, payload, &mut seen).await?;
    let mut seen = seen.into_iter();
    loop {
        let ReceivedMessage { payload, .. } = match seen.next() {
            Some(sighting) => sighting,
            None => visit.next().await?,
        };
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
/// (`status`) and the answers to other people's commands pass by.
fn is_answer(command: &str, result: &Value) -> bool {
    let key = match command {
        "restart" => "restart",
        "enable_threshold_filter" | "disable_threshold_filter" | "get_threshold_filter_config" => {
            "threshold_filter_config"
        }
        "set_threshold_filter_criteria" | "get_threshold_filter_criteria" => "criteria",
        "set_threshold_filter_confidence" | "get_threshold_filter_confidence" => "confidence_threshold",
        "get_model_info" => "model_info",
        "reset_metrics" => "metrics_reset",
        "clear_cache" => "clear_cache",
        "clear_cache_file" => "clear_cache_file",
        _ => "error",
    };
    let Some(fields) = result.as_object() else {
        return false;
    };
    fields.contains_key(key) || (fields.len() == 1 && fields.contains_key("error"))
}

/// `OK` or `FAILED`, wherever it stands in the answer.
fn judge(answer: &Value) -> Exit {
    fn fails(value: &Value) -> bool {
        match value {
            Value::String(word) => word == "FAILED",
            Value::Object(fields) => fields.values().any(fails),
            _ => false,
        }
    }
    // A model's own parameters are no outcome.
    let outcome = answer.get("model_info").is_none() && fails(answer);
    if outcome || answer.get("error").is_some() {
        Exit::Failure
    } else {
        Exit::Orderly
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_json_where_it_is_such_and_text_else() {
        assert_eq!(payload("a", None), r#"{"cmd":"a"}"#);
        assert_eq!(payload("a", Some("0.8")), r#"{"cmd":"a","value":0.8}"#);
        assert_eq!(payload("a", Some("ge")), r#"{"cmd":"a","value":"ge"}"#);
    }

    #[test]
    fn notices_and_answers_to_others_are_not_taken_for_the_answer() {
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
            assert_eq!(judge(&answer), exit, "{answer}");
        }
    }
}
