//! `watch`: prints what the device publishes, one readable line per message.

pub(super) mod fuzzing;

use std::fmt::Write;
use std::io::{IsTerminal, stdout};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::device_link::{DeviceLink, block_on};
use super::{ConfigArgs, Exit, LogArgs, complain, say_data, say_painted};
use crate::uplink::ReceivedMessage;
use crate::util::text::{clean, visible};

/// Wait before reconnecting.
const RECONNECT_WAIT: Duration = Duration::from_secs(2);
/// Items of one result that are printed; the rest is counted.
const MAX_ITEMS: usize = 6;
/// Problems of one message that are printed: more than the component has parts.
const MAX_PROBLEMS: usize = 8;

/// Arguments of `watch`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ei-greengrass watch --config my.json\n  ei-greengrass watch --mqtt mqtt://localhost:1883 --device cam_a1b2c3d4e5f6"
)]
pub struct WatchArgs {
    /// Full name of another device than this one.
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Print each message unchanged: topic, then payload.
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn main(args: &WatchArgs, log: &LogArgs) -> Exit {
    let link = match DeviceLink::open(&args.config, args.device.as_deref(), log) {
        Ok(link) => link,
        Err(exit) => return exit,
    };
    let paint = Paint(stdout().is_terminal());
    block_on(watch(&link, args.raw, paint))
}

/// Ends only when the first connection fails; a connection lost later is made again.
async fn watch(link: &DeviceLink, raw: bool, paint: Paint) -> Exit {
    let topics = &link.topics;
    let subscriptions: [&str; 5] = [
        &topics.inference_output,
        &topics.metrics,
        &topics.events,
        &topics.command_output,
        &topics.command_input,
    ];
    let mut client = match link.connect(&subscriptions).await {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    complain(&format!("watching {}; Ctrl-C ends it", link.device));
    loop {
        match client.next().await {
            Ok(message) if raw => say_data(&format!(
                "{} {}",
                message.topic,
                String::from_utf8_lossy(&message.payload)
            )),
            Ok(message) => {
                for line in lines(&message, paint) {
                    say_painted(&line);
                }
            }
            Err(error) => {
                complain(&format!("the connection was lost: {error}"));
                client = loop {
                    tokio::time::sleep(RECONNECT_WAIT).await;
                    if let Ok(client) = link.connect(&subscriptions).await {
                        complain("connected again");
                        break client;
                    }
                };
            }
        }
    }
}

/// Colours, on a terminal.
#[derive(Debug, Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn quiet(self, text: &str) -> String {
        self.with("2", text)
    }

    fn strong(self, text: &str) -> String {
        self.with("1", text)
    }
}

/// The lines for one message: one, and one more for each problem in a metrics message and each warning of a configuration; none for the empty message that
/// clears a retained command.
fn lines(received: &ReceivedMessage, paint: Paint) -> Vec<String> {
    if received.payload.is_empty() {
        return Vec::new();
    }
    let kind = received.topic.rsplit('/').take(2).collect::<Vec<_>>();
    let message: Value = serde_json::from_slice(&received.payload).unwrap_or(Value::Null);
    let text = match (kind.as_slice(), &message) {
        (_, Value::Null) => format!(
            "{} {}",
            shown(&received.topic),
            shown(&String::from_utf8_lossy(&received.payload))
        ),
        (["output", "inference"], message) => inference(message, paint),
        (["events", _], message) => event(message, paint),
        (["metrics", "model"], message) => {
            let mut lines = vec![metrics(message, paint)];
            lines.extend(problems(message, paint));
            return lines;
        }
        (["input", "command"], message) => format!("{} {}", paint.with("35", "command"), shown(&message.to_string())),
        (["output", "command"], message) => return answer(&message["result"], paint),
        (_, message) => format!("{} {}", shown(&received.topic), shown(&message.to_string())),
    };
    vec![text]
}

fn inference(message: &Value, paint: Paint) -> String {
    let mut line = paint.with("32", "inference");
    if let Some(ms) = message["time_ms"].as_u64() {
        let _ = write!(line, " {}", paint.quiet(&format!("{ms} ms")));
    }
    let value = |item: &Value| {
        item.as_f64()
            .map_or_else(|| "?".to_owned(), |value| shown(&format!("{value:.2}")))
    };
    for key in ["box", "grid"] {
        let Some(items) = message[key].as_array() else {
            continue;
        };
        for item in items.iter().take(MAX_ITEMS) {
            let label = shown(item["label"].as_str().unwrap_or("?"));
            let number = item["object_id"]
                .as_i64()
                .map(|id| format!(" #{id}"))
                .unwrap_or_default();
            let [x, y, width, height] = ["x", "y", "width", "height"].map(|side| item[side].as_i64().unwrap_or(0));
            let _ = write!(
                line,
                "  {} {} {}",
                paint.strong(&format!("{label}{number}")),
                value(&item["value"]),
                paint.quiet(&format!("at {x},{y} {width}x{height}"))
            );
        }
        if items.len() > MAX_ITEMS {
            let _ = write!(line, "  and {} more", items.len() - MAX_ITEMS);
        }
    }
    if let Some(classes) = message["c"].as_object() {
        let mut classes: Vec<_> = classes.iter().collect();
        classes.sort_by(|a, b| b.1.as_f64().unwrap_or(0.0).total_cmp(&a.1.as_f64().unwrap_or(0.0)));
        for (label, confidence) in classes.into_iter().take(MAX_ITEMS) {
            let _ = write!(line, "  {} {}", paint.strong(&shown(label)), value(confidence));
        }
    }
    if let Some(arrays) = message["freeform"].as_array() {
        let sizes: Vec<_> = arrays
            .iter()
            .map(|array| array.as_array().map_or(0, Vec::len).to_string())
            .collect();
        let _ = write!(line, "  freeform of {} values", sizes.join(", "));
    }
    for key in ["anomaly", "visual_anomaly_max", "visual_anomaly_mean"] {
        if message[key].is_number() {
            let _ = write!(line, "  {} {}", key.replace('_', " "), value(&message[key]));
        }
    }
    if let Some(image) = message["image"].as_str() {
        let _ = write!(
            line,
            "  {}",
            paint.quiet(&format!("picture of {} kB", image.len() * 3 / 4 / 1000))
        );
    }
    if let Some(id) = message["id"].as_str() {
        let _ = write!(line, "  {}", paint.quiet(&shown(id)));
    }
    line
}

/// `start occupied  person #17 0.91  in bay  after 41.2 s`, `cross gate in  car #3`
fn event(message: &Value, paint: Paint) -> String {
    let text = |key: &str| shown(message[key].as_str().unwrap_or_default());
    let name = if message["rule"].is_string() { "rule" } else { "line" };
    let mut line = format!("{} {}", paint.with("33", &text("event")), paint.strong(&text(name)));
    for key in ["direction", "label"] {
        if message[key].is_string() {
            let _ = write!(line, " {}", text(key));
        }
    }
    if let Some(id) = message["object_id"].as_i64() {
        let _ = write!(line, " #{id}");
    }
    if let Some(value) = message["value"].as_f64() {
        let _ = write!(line, " {}", shown(&format!("{value:.2}")));
    }
    if message["zone"].is_string() {
        let _ = write!(line, "  in {}", text("zone"));
    }
    if let Some(count) = message["count"].as_u64() {
        let _ = write!(line, "  {count} there");
    }
    if let Some(dwell) = message["dwell_ms"].as_f64() {
        let _ = write!(line, "  after {} s", shown(&format!("{:.1}", dwell / 1e3)));
    }
    if message["reason"].is_string() {
        let _ = write!(line, "  because of {}", text("reason"));
    }
    let _ = write!(line, "  {}", paint.quiet(&text("id")));
    line
}

fn metrics(message: &Value, paint: Paint) -> String {
    let runner = &message["runner"];
    let number = |value: &Value| {
        value
            .as_f64()
            .map_or_else(|| "?".to_owned(), |n| shown(&format!("{n}")))
    };
    format!(
        "{} mean confidence {} ± {} over {}, {}  {}",
        paint.with("36", "metrics"),
        number(&message["mean_confidence"]),
        number(&message["standard_deviation"]),
        number(&message["details"]["n"]),
        shown(message["confidence_trend"].as_str().unwrap_or("?")),
        paint.quiet(&format!(
            "{} inferences, {} published, {} ms, up {} s{}",
            number(&runner["inferences"]),
            number(&runner["published"]),
            number(&runner["inference_ms_p50"]),
            number(&runner["uptime_s"]),
            nonzero_counters(runner)
        ))
    )
}

/// The counters of restarts and losses that are not zero.
fn nonzero_counters(runner: &Value) -> String {
    let counts: [(&str, &[&str]); 5] = [
        ("source restarts", &["capture_restarts"]),
        ("model restarts", &["model_restarts"]),
        ("lost", &["outbox_dropped", "spool_dropped", "oversized"]),
        ("waiting", &["waiting"]),
        ("not cached", &["cache_failures"]),
    ];
    let counted = counts.map(|(what, keys)| {
        (
            what,
            keys.iter()
                .filter_map(|key| runner[key].as_u64())
                .fold(0, u64::saturating_add),
        )
    });
    let nonzero = counted.into_iter().filter(|(_, count)| *count > 0);
    nonzero.map(|(what, count)| format!(", {what}: {count}")).collect()
}

/// The current problems.
fn problems(message: &Value, paint: Paint) -> Vec<String> {
    let problems = message["runner"]["problems"].as_array().into_iter().flatten();
    problems
        .filter_map(Value::as_str)
        .take(MAX_PROBLEMS)
        .map(|problem| format!("{} {}", paint.with("31", "problem"), shown(problem)))
        .collect()
}

/// An answer to a command, or a notice. Notices of updates and configurations are told in words.
fn answer(result: &Value, paint: Paint) -> Vec<String> {
    let Some(status) = result["status"].as_str() else {
        let colour = if result.get("error").is_some() { "31" } else { "34" };
        return vec![format!(
            "{} {}",
            paint.with(colour, "answer"),
            shown(&result.to_string())
        )];
    };
    if let Some(told) = update_notice(status, result) {
        return vec![format!("{} {told}", paint.with("33", "model"))];
    }
    if let Some(told) = configuration_notice(status, result) {
        let mut lines = vec![format!("{} {told}", paint.with("33", "configuration"))];
        let warnings = texts(&result["warnings"]).take(MAX_PROBLEMS);
        lines.extend(warnings.map(|warning| format!("{} {warning}", paint.with("31", "warning"))));
        return lines;
    }
    let version = result["model_version"].as_str();
    let version = version.map_or_else(String::new, |version| format!("  model {}", shown(version)));
    vec![format!(
        "{} {}{version}",
        paint.with("33", "state"),
        paint.strong(&shown(status))
    )]
}

/// What a notice of an update says. `None`: it is another notice.
fn update_notice(status: &str, result: &Value) -> Option<String> {
    let text = |key: &str| result[key].as_str().map(shown);
    let of = |key: &str| text(key).unwrap_or_else(|| "the model".to_owned());
    let told = match (status, text("model_version")) {
        ("model_updated", _) => match text("previous_version") {
            Some(before) => format!("{} has taken over from {before}", of("model_version")),
            None => format!("{} has taken over", of("model_version")),
        },
        ("model_update_failed", Some(running)) => format!("{} is not used, {running} goes on", of("failed_version")),
        ("model_update_failed", None) => format!("{} is not used", of("failed_version")),
        ("model_restored", Some(restored)) => format!("{} failed, {restored} is back", of("failed_version")),
        ("model_restored", None) => {
            format!(
                "{} failed, and no earlier version is on the device",
                of("failed_version")
            )
        }
        _ => return None,
    };
    Some(with_reason(told, result))
}

/// What a notice of a deployed configuration says. `None`: it is another notice.
fn configuration_notice(status: &str, result: &Value) -> Option<String> {
    let told = match status {
        "reconfigured" => {
            let keys: Vec<_> = texts(&result["changed"]).collect();
            let keys = if keys.is_empty() {
                "no value".to_owned()
            } else {
                shown(&keys.join(", "))
            };
            let applied = match result["applied"].as_str().unwrap_or_default() {
                "at_once" => "applied at once".to_owned(),
                "new_session" => "applied with a restart of model and source".to_owned(),
                "new_process" => "applied with a restart of the component".to_owned(),
                other => format!("applied: {}", shown(other)),
            };
            format!("changed: {keys}; {applied}")
        }
        "configuration_refused" => "refused, the one before stays in force".to_owned(),
        _ => return None,
    };
    Some(with_reason(told, result))
}

fn with_reason(told: String, result: &Value) -> String {
    match result["error"].as_str() {
        Some(reason) => format!("{told}: {}", shown(reason)),
        None => told,
    }
}

fn texts(list: &Value) -> impl Iterator<Item = String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(shown)
}

/// Text from outside, shortened and without control characters, which could control the terminal. Long numbers are cut.
pub(super) fn shown(text: &str) -> String {
    const MAX_CHARS: usize = 400;
    let mut shown = visible(&clean(text, MAX_CHARS), MAX_CHARS);
    if text.chars().count() > MAX_CHARS {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn shown_lines(ending: &str, payload: &Value) -> Vec<String> {
        let received = ReceivedMessage {
            topic: format!("/edgeimpulse/device/d/{ending}"),
            payload: payload.to_string().into(),
        };
        lines(&received, Paint(false))
    }

    fn shown_line(ending: &str, payload: &Value) -> String {
        shown_lines(ending, payload).remove(0)
    }

    #[test]
    fn metrics_show_nonzero_counters_and_each_problem_on_a_line() {
        let smooth = json!({"inferences": 5, "capture_restarts": 0, "waiting": 0, "problems": []});
        let lines = shown_lines("model/metrics", &json!({"runner": smooth}));
        assert!(lines.len() == 1 && lines[0].ends_with("up ? s"), "{lines:?}");
        let runner = json!({
            "uptime_s": 9, "capture_restarts": 3, "outbox_dropped": 2, "spool_dropped": 1, "waiting": 4, "cache_failures": 5,
            "problems": ["source: no camera was found", "model: \u{1b}[2Jthe secret is refused"],
        });
        let lines = shown_lines("model/metrics", &json!({"runner": runner}));
        assert!(
            lines[0].ends_with("up 9 s, source restarts: 3, lost: 3, waiting: 4, not cached: 5"),
            "{lines:?}"
        );
        assert_eq!(
            lines[1..],
            [
                "problem source: no camera was found",
                "problem model: [2Jthe secret is refused"
            ]
        );
    }

    #[test]
    fn an_inference_is_one_line() {
        let found = json!({"label": "cat", "value": 0.914, "x": 1, "y": 2, "width": 3, "height": 4, "object_id": 7});
        let message = json!({"time_ms": 3, "box": [found], "id": "u", "image": "AAAA".repeat(1000)});
        assert_eq!(
            shown_line("inference/output", &message),
            "inference 3 ms  cat #7 0.91 at 1,2 3x4  picture of 3 kB  u"
        );
        let classes = json!({"time_ms": 3, "c": {"a": 0.1, "b": 0.9}});
        assert_eq!(
            shown_line("inference/output", &classes),
            "inference 3 ms  b 0.90  a 0.10"
        );
    }

    #[test]
    fn an_event_is_one_line() {
        let ended = json!({"event": "end", "rule": "occupied", "zone": "bay", "label": "person", "object_id": 17, "value": 0.914,
            "count": 2, "dwell_ms": 41_240, "reason": "stop", "id": "u"});
        assert_eq!(
            shown_line("events", &ended),
            "end occupied person #17 0.91  in bay  2 there  after 41.2 s  because of stop  u"
        );
        let crossed =
            json!({"event": "cross", "line": "gate", "direction": "in", "label": "car", "object_id": 3, "id": "u"});
        assert_eq!(shown_line("events", &crossed), "cross gate in car #3  u");
    }

    #[test]
    fn states_answers_and_commands_look_different() {
        assert_eq!(
            shown_line("command/output", &json!({"result": {"status": "online", "ts": 1}})),
            "state online"
        );
        let started = json!({"result": {"status": "started", "model_version": "v3", "ts": 1}});
        assert_eq!(shown_line("command/output", &started), "state started  model v3");
        assert_eq!(
            shown_line("command/output", &json!({"result": {"restart": "OK"}})),
            r#"answer {"restart":"OK"}"#
        );
        assert_eq!(
            shown_line("command/input", &json!({"cmd": "restart"})),
            r#"command {"cmd":"restart"}"#
        );
    }

    #[test]
    fn notices_of_updates_are_told_in_words() {
        for (notice, expected) in [
            (
                json!({"status": "model_updated", "model_version": "v4", "previous_version": "v3"}),
                "model v4 has taken over from v3",
            ),
            (
                json!({"status": "model_updated", "model_version": "v4", "previous_version": null}),
                "model v4 has taken over",
            ),
            (
                json!({"status": "model_update_failed", "model_version": "v3", "failed_version": "v4", "error": "it is\u{7} too slow"}),
                "model v4 is not used, v3 goes on: it is too slow",
            ),
            (
                json!({"status": "model_update_failed", "model_version": null, "failed_version": "v4", "error": "no"}),
                "model v4 is not used: no",
            ),
            (
                json!({"status": "model_restored", "model_version": "v3", "failed_version": "v4", "error": "it crashes"}),
                "model v4 failed, v3 is back: it crashes",
            ),
            (
                json!({"status": "model_restored", "model_version": null, "failed_version": "v4", "error": "it crashes"}),
                "model v4 failed, and no earlier version is on the device: it crashes",
            ),
        ] {
            assert_eq!(shown_line("command/output", &json!({"result": notice})), expected);
        }
    }

    #[test]
    fn notices_of_configurations_are_told_in_words() {
        let changed = json!({
            "status": "reconfigured", "changed": ["gst_args", "collect"], "applied": "new_session",
            "warnings": ["iotcore_backoff has\n no effect"],
        });
        assert_eq!(
            shown_lines("command/output", &json!({"result": changed})),
            [
                "configuration changed: gst_args, collect; applied with a restart of model and source",
                "warning iotcore_backoff has no effect"
            ]
        );
        let changed = json!({"status": "reconfigured", "changed": [], "applied": "at_once"});
        assert_eq!(
            shown_line("command/output", &json!({"result": changed})),
            "configuration changed: no value; applied at once"
        );
        let refused = json!({"status": "configuration_refused", "error": "there is no broker"});
        assert_eq!(
            shown_line("command/output", &json!({"result": refused})),
            "configuration refused, the one before stays in force: there is no broker"
        );
    }

    #[test]
    fn a_label_cannot_control_the_terminal() {
        let found = json!({"label": "\u{1b}[2Jcat\n", "value": 0.5, "x": 1, "y": 2, "width": 3, "height": 4});
        let line = shown_line("inference/output", &json!({"box": [found]}));
        assert!(
            line.contains("[2Jcat 0.50") && !line.contains('\u{1b}') && !line.contains('\n'),
            "{line:?}"
        );
    }

    proptest! {
        #[test]
        fn no_message_prints_control_characters(
            topic in "(inference|command|model)/(output|input|metrics)",
            key in "(box|grid|c|freeform|anomaly|image|result|runner|time_ms|mean_confidence|id)",
            problem in "(?s).{0,20}",
            value in prop_oneof![
                "(?s).{0,20}".prop_map(Value::from),
                any::<f64>().prop_map(Value::from),
                "(?s).{0,9}".prop_map(|text| json!([text, [text], {"label": text, "value": text}, {(text.clone()): 1}])),
                "(?s).{0,9}".prop_map(|text| json!({"a": text, (text.clone()): {"status": text}, "status": text})),
            ],
        ) {
            let printed = shown_lines(&topic, &json!({"runner": {"problems": [problem]}, (key): value}));
            prop_assert!(!printed.iter().any(|line| line.contains(char::is_control)), "{printed:?}");
        }
    }
}
