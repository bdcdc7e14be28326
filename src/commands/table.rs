//! The table of commands, and their handlers. A new command is a new entry here, and a row in `recipes/README.md`, which a
//! test in `tests/documents.rs` prints.

use std::fmt::Write;
use std::pin::Pin;

use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::{Reply, shortened};
use super::context::CommandContext;
use crate::config::{Criteria, parse_threshold};
use crate::model::ModelInfo;
use crate::status::StatusSource;

/// One command.
#[derive(Debug)]
pub struct CommandSpec {
    /// The verb, matched exactly.
    pub name: &'static str,
    /// Description of the accepted values; `None`: it takes no value.
    pub value: Option<&'static str>,
    /// Description of the effect.
    pub summary: &'static str,
    /// Key of the answer in `result`. An answer with only `error` can also belong to the command.
    pub answer_key: &'static str,
    pub(super) handler: Handler,
}

/// Checks the value (null if absent), executes the command, and returns the reply.
type Handler = fn(&CommandContext<'_>, Value) -> CommandOutcome;

/// The outcome of a handler.
pub(super) enum CommandOutcome {
    Done(Reply),
    /// The session ends and a new one begins.
    Restart(Reply),
    /// The work takes time; the future returns the reply.
    Later(Pin<Box<dyn Future<Output = Reply> + Send>>),
}

impl From<Reply> for CommandOutcome {
    fn from(reply: Reply) -> Self {
        Self::Done(reply)
    }
}

/// Every command.
pub static COMMANDS: [CommandSpec; 17] = [
    CommandSpec {
        name: "restart",
        value: None,
        summary: "start model, source and caches again, with the configured settings",
        answer_key: "restart",
        handler: |_, _| CommandOutcome::Restart(Reply::value("OK")),
    },
    CommandSpec {
        name: "enable_threshold_filter",
        value: None,
        summary: "switch the confidence filter on",
        answer_key: "threshold_filter_config",
        handler: |context, _| set_filter_enabled(context, true),
    },
    CommandSpec {
        name: "disable_threshold_filter",
        value: None,
        summary: "switch the confidence filter off",
        answer_key: "threshold_filter_config",
        handler: |context, _| set_filter_enabled(context, false),
    },
    CommandSpec {
        name: "get_threshold_filter_config",
        value: None,
        summary: "answer with the settings of the confidence filter",
        answer_key: "threshold_filter_config",
        handler: |context, _| Reply::value(context.report.lock().filter().to_json()).into(),
    },
    CommandSpec {
        name: "set_threshold_filter_criteria",
        value: Some("gt, ge, eq, le or lt"),
        summary: "set how the confidence is compared with the threshold",
        answer_key: "criteria",
        handler: set_criteria,
    },
    CommandSpec {
        name: "get_threshold_filter_criteria",
        value: None,
        summary: "answer with the current comparison",
        answer_key: "criteria",
        handler: |context, _| Reply::value(criteria(context)).into(),
    },
    CommandSpec {
        name: "set_threshold_filter_confidence",
        value: Some("as `default_threshold`"),
        summary: "set the threshold",
        answer_key: "confidence_threshold",
        handler: set_confidence,
    },
    CommandSpec {
        name: "get_threshold_filter_confidence",
        value: None,
        summary: "answer with the threshold with which the scores are compared",
        answer_key: "confidence_threshold",
        handler: |context, _| Reply::value(confidence(context)).into(),
    },
    CommandSpec {
        name: "get_model_info",
        value: None,
        summary: "answer with name, version and parameters of the model",
        answer_key: "model_info",
        handler: get_model_info,
    },
    CommandSpec {
        name: "update_model",
        value: Some("none, or the number of a deployment version"),
        summary: "replace the model by the newest version in Studio (or by this one, even if it failed before) after a trial, and answer with the version that was found and the one that runs",
        answer_key: "update_model",
        handler: update_model,
    },
    CommandSpec {
        name: "reset_metrics",
        value: None,
        summary: "reset the confidence metrics",
        answer_key: "metrics_reset",
        handler: |context, _| {
            context.report.lock().reset_metrics();
            Reply::value("OK").into()
        },
    },
    CommandSpec {
        name: "get_events_config",
        value: None,
        summary: "answer with the zones, lines and rules in force",
        answer_key: "events_config",
        handler: |context, _| Reply::value(context.events.config()).into(),
    },
    CommandSpec {
        name: "set_events_config",
        value: Some("as `events`; `none` or `deployed`"),
        summary: "set zones, lines and rules until a deployment changes them; none, or those of the deployment again",
        answer_key: "events_config",
        handler: set_events_config,
    },
    CommandSpec {
        name: "get_counts",
        value: None,
        summary: "answer with the numbers of events and crossings, and the objects in each zone",
        answer_key: "counts",
        handler: |context, _| Reply::value(counts(context)).into(),
    },
    CommandSpec {
        name: "reset_counts",
        value: None,
        summary: "set the numbers of events and crossings to zero, and answer with the last ones",
        answer_key: "counts",
        handler: |context, _| {
            let last = counts(context);
            context.events.reset_counts();
            Reply::value(last).into()
        },
    },
    CommandSpec {
        name: "clear_cache",
        value: None,
        summary: "remove all cached pairs of picture and message, and all clips",
        answer_key: "clear_cache",
        handler: clear_cache,
    },
    CommandSpec {
        name: "clear_cache_file",
        value: Some("the id of a message or event"),
        summary: "remove one cached pair of picture and message, or one clip",
        answer_key: "clear_cache_file",
        handler: clear_cache_file,
    },
];

/// The command with this name.
pub fn find(name: &str) -> Option<&'static CommandSpec> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// The commands as a Markdown table, as it stands in `recipes/README.md`.
pub fn markdown_table() -> String {
    let mut table = String::from("| command | value | effect |\n| --- | --- | --- |\n");
    for CommandSpec {
        name, value, summary, ..
    } in &COMMANDS
    {
        let value = value.unwrap_or_default();
        let _ = writeln!(table, "| `{name}` | {value} | {summary} |");
    }
    table
}

fn set_filter_enabled(context: &CommandContext<'_>, enabled: bool) -> CommandOutcome {
    let mut report = context.report.lock();
    report.set_filter_enabled(enabled);
    Reply::value(report.filter().to_json()).into()
}

fn set_criteria(context: &CommandContext<'_>, value: Value) -> CommandOutcome {
    match value.as_str().and_then(|text| text.trim().parse::<Criteria>().ok()) {
        Some(new) => {
            context.report.lock().set_criteria(new);
            Reply::value(criteria(context))
        }
        None => Reply::refused(criteria(context), format!("accepted: {}", Criteria::ACCEPTED)),
    }
    .into()
}

fn criteria(context: &CommandContext<'_>) -> &'static str {
    context.report.lock().filter().criteria.into()
}

fn set_confidence(context: &CommandContext<'_>, value: Value) -> CommandOutcome {
    let set = parse_threshold(&value).and_then(|threshold| context.report.lock().set_threshold(threshold));
    match set {
        Ok(()) => Reply::value(confidence(context)),
        Err(error) => Reply::refused(confidence(context), error.to_string()),
    }
    .into()
}

fn confidence(context: &CommandContext<'_>) -> f64 {
    context.report.lock().filter().threshold()
}

fn get_model_info(context: &CommandContext<'_>, _: Value) -> CommandOutcome {
    match context.model {
        Some(info) => {
            let mut info = ModelInfo::clone(info);
            info.apply_thresholds(&context.changed_thresholds);
            Reply::value(json!({
                "model_name": info.name,
                "model_version": format!("v{}", info.deploy_version),
                "model_params": info.parameters_with_sensor_type(),
            }))
        }
        None => Reply::error("no model is loaded yet; ask again after the notice \"started\""),
    }
    .into()
}

/// The answer comes when the update is complete or has failed.
fn update_model(context: &CommandContext<'_>, value: Value) -> CommandOutcome {
    let running = context.model.map(|info| info.deploy_version);
    let Ok(version) = parse_version(&value) else {
        let error = "accepted: no value, or the number of a deployment version, as 8 or \"v8\"";
        return Reply::refused(update_result(None, running), error).into();
    };
    let Some(updates) = context.model_updates.clone() else {
        return Reply::refused(update_result(None, running), "the model cannot be updated here").into();
    };
    CommandOutcome::Later(Box::pin(async move {
        let outcome = updates.request(version).await;
        let running = outcome.running.map(|info| info.deploy_version);
        let result = update_result(
            outcome.found,
            running.or(outcome.found.filter(|_| outcome.error.is_none())),
        );
        match outcome.error {
            None => Reply::value(result),
            Some(error) => Reply::refused(result, error),
        }
    }))
}

/// `None`: the newest version.
fn parse_version(value: &Value) -> Result<Option<u64>, ()> {
    let number = match value {
        Value::Null => return Ok(None),
        Value::String(text) if text.trim().is_empty() => return Ok(None),
        Value::String(text) => text.trim().trim_start_matches(['v', 'V']).parse().ok(),
        Value::Number(number) => number.as_u64(),
        _ => None,
    };
    number.map(Some).ok_or(())
}

fn update_result(found: Option<u64>, running: Option<u64>) -> Value {
    let shown = |version: Option<u64>| version.map(|version| format!("v{version}"));
    json!({"found": shown(found), "running": shown(running)})
}

fn set_events_config(context: &CommandContext<'_>, value: Value) -> CommandOutcome {
    match context.events.set_given(&value) {
        Ok(()) => Reply::value(context.events.config()).into(),
        Err(error) => Reply::refused(context.events.config(), error).into(),
    }
}

fn counts(context: &CommandContext<'_>) -> Value {
    context.events.status().map_or(Value::Null, |status| status.to_json())
}

/// Each cache executes it after the earlier writes, so those pairs are removed too.
fn clear_cache(context: &CommandContext<'_>, _: Value) -> CommandOutcome {
    let caches = context.caches.clone();
    if caches.files.is_none() && caches.s3.is_none() {
        return Reply::value(cleared(true, true)).into();
    }
    CommandOutcome::Later(Box::pin(async move {
        let local = async {
            // Both are cleared, also if one fails.
            let pairs = match &caches.files {
                Some(files) => files.clear().await.is_ok(),
                None => true,
            };
            let clips = match &caches.clips {
                Some(clips) => clips.clear().await.is_ok(),
                None => true,
            };
            Some(pairs && clips)
        };
        let s3 = async { Some(caches.s3.as_ref()?.clear().await.is_ok()) };
        let (local, s3) = tokio::join!(local, s3);
        Reply::value(cleared(local.unwrap_or(true), s3.unwrap_or(true)))
    }))
}

fn clear_cache_file(context: &CommandContext<'_>, value: Value) -> CommandOutcome {
    let id = match value {
        Value::String(id) => id,
        Value::Null => String::new(),
        other => other.to_string(),
    };
    if Uuid::try_parse(&id).is_err() {
        let error = "accepted: the id of a cached pair, a uuid";
        return Reply::refused(file_cleared(false, false, &id), error).into();
    }
    let caches = context.caches.clone();
    CommandOutcome::Later(Box::pin(async move {
        let local = async {
            let pair = caches.files.as_ref()?.clear_one(&id).await.is_ok();
            let clip = match &caches.clips {
                Some(clips) => clips.clear_one(&id).await.is_ok(),
                None => false,
            };
            Some(pair || clip)
        };
        let s3 = async { Some(caches.s3.as_ref()?.clear_one(&id).await.is_ok()) };
        let (local, s3) = tokio::join!(local, s3);
        Reply::value(file_cleared(local.unwrap_or(true), s3.unwrap_or(true), &id))
    }))
}

/// The outcome of each cache. A disabled cache counts as cleared.
fn cleared(local: bool, s3: bool) -> Value {
    let outcome = |ok| if ok { "OK" } else { "FAILED" };
    json!({"local": outcome(local), "s3": outcome(s3)})
}

fn file_cleared(local: bool, s3: bool, id: &str) -> Value {
    let mut outcome = cleared(local, s3);
    outcome["uuid"] = json!(shortened(id));
    outcome
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::cache::Caches;
    use crate::commands::context::AnswerPublisher;
    use crate::commands::execute::{Action, execute};
    use crate::config::{FilterConfig, Qos};
    use crate::device::Topics;
    use crate::events::{EventRecorder, EventSettings};
    use crate::report::{Report, ReportSettings};
    use crate::status::stats::Stats;
    use crate::uplink::ReceivedCommand;
    use crate::uplink::outbox::{Outbox, OutboxBounds};

    /// Executes commands one after the other, without model and caches. Returns the actions and the answers.
    fn execute_all(commands: &[Value]) -> Vec<(Action, String)> {
        let stats = Arc::new(Stats::default());
        let filter = FilterConfig {
            enabled: false,
            given: 0.7,
            scores_are_probabilities: None,
            criteria: Criteria::GreaterOrEqual,
        };
        let settings = ReportSettings {
            filter,
            publish_every: 1,
        };
        let outbox = Arc::new(Outbox::new(OutboxBounds::default(), stats.clone()));
        let directory = tempfile::tempdir().expect("a directory");
        let topics = Arc::new(Topics::new("d"));
        let events = EventRecorder::start(
            directory.path(),
            topics.clone(),
            outbox.clone(),
            stats.clone(),
            EventSettings::default(),
        );
        let context = CommandContext {
            report: &Mutex::new(Report::new(settings, stats)),
            events: &events,
            model: None,
            changed_thresholds: Vec::new(),
            caches: &Caches::default(),
            model_updates: None,
            answers: AnswerPublisher {
                outbox: outbox.clone(),
                topics,
                qos: Qos::AtLeastOnce,
            },
        };
        let mut outcomes = Vec::new();
        for command in commands {
            let payload = command.to_string().into();
            let action = execute(&ReceivedCommand { payload }, &context);
            let (_, message) = outbox.next_to_send().expect("an answer");
            outcomes.push((action, String::from_utf8(message.payload.to_vec()).expect("UTF-8")));
        }
        outcomes
    }

    #[test]
    fn every_command_is_in_the_table_once() {
        let names: HashSet<_> = COMMANDS.iter().map(|command| command.name).collect();
        assert_eq!(names.len(), COMMANDS.len());
    }

    #[test]
    fn answers_have_the_documented_shapes() {
        for (command, answer) in [
            (json!({"cmd": "restart"}), r#"{"restart":"OK"}"#),
            (
                json!({"cmd": "enable_threshold_filter"}),
                r#"{"threshold_filter_config":{"enabled":"yes","confidence_threshold":0.7,"threshold_criteria":"ge"}}"#,
            ),
            (
                json!({"cmd": "get_threshold_filter_config"}),
                r#"{"threshold_filter_config":{"enabled":"no","confidence_threshold":0.7,"threshold_criteria":"ge"}}"#,
            ),
            (
                json!({"cmd": "set_threshold_filter_criteria", "value": "LT"}),
                r#"{"criteria":"lt"}"#,
            ),
            (
                json!({"cmd": "set_threshold_filter_criteria", "value": 1}),
                r#"{"criteria":"ge","error":"accepted: gt, ge, eq, le, lt"}"#,
            ),
            (
                json!({"cmd": "set_threshold_filter_confidence", "value": "75.6"}),
                r#"{"confidence_threshold":0.756}"#,
            ),
            (
                json!({"cmd": "get_model_info"}),
                r#"{"error":"no model is loaded yet; ask again after the notice \"started\""}"#,
            ),
            (
                json!({"cmd": "update_model", "value": [8]}),
                concat!(
                    r#"{"update_model":{"found":null,"running":null},"#,
                    r#""error":"accepted: no value, or the number of a deployment version, as 8 or \"v8\""}"#
                ),
            ),
            (json!({"cmd": "reset_metrics"}), r#"{"metrics_reset":"OK"}"#),
            (
                json!({"cmd": "clear_cache"}),
                r#"{"clear_cache":{"local":"OK","s3":"OK"}}"#,
            ),
            (
                json!({"cmd": "clear_cache_file", "value": 7}),
                concat!(
                    r#"{"clear_cache_file":{"local":"FAILED","s3":"FAILED","uuid":"7"},"#,
                    r#""error":"accepted: the id of a cached pair, a uuid"}"#
                ),
            ),
        ] {
            let (action, got) = execute_all(std::slice::from_ref(&command)).remove(0);
            assert_eq!(got, format!(r#"{{"result":{answer}}}"#), "{command}");
            assert_eq!(action == Action::Restart, command["cmd"] == "restart");
        }
        assert_eq!(cleared(true, false).to_string(), r#"{"local":"OK","s3":"FAILED"}"#);
    }

    #[test]
    fn a_version_is_a_number_or_none() {
        for (value, version) in [
            (Value::Null, Ok(None)),
            (json!(""), Ok(None)),
            (json!(8), Ok(Some(8))),
            (json!("8"), Ok(Some(8))),
            (json!(" v8 "), Ok(Some(8))),
            (json!(-1), Err(())),
            (json!(1.5), Err(())),
            (json!("latest"), Err(())),
            (json!({}), Err(())),
        ] {
            assert_eq!(parse_version(&value), version, "{value}");
        }
    }

    #[test]
    fn a_value_that_was_set_is_in_later_answers() {
        let answers = execute_all(&[
            json!({"cmd": "set_threshold_filter_criteria", "value": "eq"}),
            json!({"cmd": "get_threshold_filter_criteria"}),
            json!({"cmd": "set_threshold_filter_confidence", "value": 50}),
            json!({"cmd": "get_threshold_filter_confidence"}),
        ]);
        assert_eq!(answers[1].1, r#"{"result":{"criteria":"eq"}}"#);
        assert_eq!(answers[3].1, r#"{"result":{"confidence_threshold":0.5}}"#);
    }

    #[test]
    fn every_answer_has_the_key_of_its_command() {
        for command in COMMANDS.iter().filter(|command| command.name != "get_model_info") {
            let answer = execute_all(&[json!({"cmd": command.name})]).remove(0).1;
            let answer: Value = serde_json::from_str(&answer).expect("JSON");
            assert!(answer["result"].get(command.answer_key).is_some(), "{answer}");
        }
    }

    #[test]
    fn an_answer_does_not_repeat_a_long_value_in_full() {
        let answer = execute_all(&[json!({"cmd": "clear_cache_file", "value": "x".repeat(60_000)})]);
        assert!(answer[0].1.len() < 250);
    }
}
