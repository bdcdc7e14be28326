//! Commands over a real broker: their answers and their effect on the messages.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Site};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::scripts::{boxed, cycle, frames, script};

const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=30/1";

/// A running component and a client that sends commands.
struct CommandFixture {
    site: Site,
    broker: Mosquitto,
    observer: Observer,
    arguments: Vec<String>,
    daemon: Daemon,
}

impl CommandFixture {
    /// Publishes every inference, and metrics five times a second. `more` are further arguments.
    fn start(model: &Value, source: &str, more: &[&str]) -> Self {
        let (site, broker) = (Site::new(), Mosquitto::start());
        let observer = Observer::connect(broker.port, site.device());
        let model = site.scripted_model(model).display().to_string();
        let mut arguments = vec!["--model", &model, "--gst", source];
        arguments.extend(["--set", "iotcore_backoff=1", "--set", "metrics_sleeptime_ms=200"]);
        arguments.extend(more);
        let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        let daemon = start(&site, &broker, &arguments);
        Self {
            site,
            broker,
            observer,
            arguments,
            daemon,
        }
    }

    /// A live source, and boxes of confidence 0.6.
    fn live(more: &[&str]) -> Self {
        let fixture = Self::start(&script(&[boxed(0.6)]), LIVE, more);
        fixture.observer.wait_for_status("started", 1);
        fixture
    }

    /// Sends a payload and returns the whole answer.
    #[track_caller]
    fn ask_raw(&self, payload: impl Into<Vec<u8>>) -> Value {
        let before = self.observer.answers().len();
        self.observer.send_raw(payload, false);
        self.observer.wait_for_answers(before + 1).remove(before)
    }

    /// Sends a command and returns the `result` of the answer.
    #[track_caller]
    fn ask(&self, command: &Value) -> Value {
        let mut answer = self.ask_raw(command.to_string());
        assert_eq!(answer.as_object().map(|object| object.len()), Some(1), "{answer}");
        answer["result"].take()
    }

    /// Waits for a metrics message that `wanted` accepts.
    #[track_caller]
    fn metrics(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let before = self.observer.all("model/metrics").len();
        self.observer.wait_for_nth("model/metrics", what, before, wanted)
    }
}

fn start(site: &Site, broker: &Mosquitto, arguments: &[String]) -> Daemon {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    site.run(&broker.url(), &arguments)
}

/// `{"cmd":...}` without a value.
fn cmd(verb: &str) -> Value {
    json!({ "cmd": verb })
}

fn set_confidence(value: Value) -> Value {
    json!({"cmd": "set_threshold_filter_confidence", "value": value})
}

fn set_criteria(value: Value) -> Value {
    json!({"cmd": "set_threshold_filter_criteria", "value": value})
}

fn filter_config(enabled: &str, threshold: f64, criteria: &str) -> Value {
    json!({"threshold_filter_config": {
        "enabled": enabled, "confidence_threshold": threshold, "threshold_criteria": criteria
    }})
}

/// The answer without its `error`, which must not be empty.
#[track_caller]
fn without_error(mut answer: Value) -> Value {
    let error = answer.as_object_mut().expect("an object").remove("error");
    let error = error.as_ref().and_then(Value::as_str).unwrap_or_default();
    assert!(
        error.len() > 10,
        "an error that says what is accepted: {answer}, {error:?}"
    );
    answer
}

fn totals(messages: &[Value]) -> Vec<u64> {
    messages
        .iter()
        .map(|message| message["total_inferences"].as_u64().expect("a count"))
        .collect()
}

#[test]
fn each_command_has_the_documented_answer() {
    let fixture = CommandFixture::live(&[]);
    for (command, answer) in [
        (cmd("get_threshold_filter_config"), filter_config("no", 0.7, "ge")),
        (cmd("enable_threshold_filter"), filter_config("yes", 0.7, "ge")),
        (cmd("get_threshold_filter_config"), filter_config("yes", 0.7, "ge")),
        (cmd("disable_threshold_filter"), filter_config("no", 0.7, "ge")),
        (cmd("get_threshold_filter_criteria"), json!({"criteria": "ge"})),
        (set_criteria(json!("gt")), json!({"criteria": "gt"})),
        (set_criteria(json!("LT")), json!({"criteria": "lt"})),
        (set_criteria(json!("Eq")), json!({"criteria": "eq"})),
        (set_criteria(json!("le")), json!({"criteria": "le"})),
        (cmd("get_threshold_filter_criteria"), json!({"criteria": "le"})),
        (
            cmd("get_threshold_filter_confidence"),
            json!({"confidence_threshold": 0.7}),
        ),
        (set_confidence(json!(0.756)), json!({"confidence_threshold": 0.756})),
        (set_confidence(json!("0.25")), json!({"confidence_threshold": 0.25})),
        (set_confidence(json!(75.6)), json!({"confidence_threshold": 0.756})),
        (set_confidence(json!("33.3")), json!({"confidence_threshold": 0.333})),
        (set_confidence(json!(100)), json!({"confidence_threshold": 1.0})),
        (
            set_confidence(json!("50.000000000000000")),
            json!({"confidence_threshold": 0.5}),
        ),
        (
            cmd("get_threshold_filter_confidence"),
            json!({"confidence_threshold": 0.5}),
        ),
        (cmd("get_threshold_filter_config"), filter_config("no", 0.5, "le")),
        (cmd("reset_metrics"), json!({"metrics_reset": "OK"})),
        (cmd("clear_cache"), json!({"clear_cache": {"local": "OK", "s3": "OK"}})),
        (
            json!({"cmd": "clear_cache_file", "value": "0b0e6f3c-6f4f-4b57-9d0e-1d2b3c4d5e6f"}),
            json!({"clear_cache_file": {"local": "OK", "s3": "OK", "uuid": "0b0e6f3c-6f4f-4b57-9d0e-1d2b3c4d5e6f"}}),
        ),
        // The answer comes first, then the session restarts.
        (cmd("restart"), json!({"restart": "OK"})),
    ] {
        assert_eq!(fixture.ask(&command), answer, "{command}");
    }
    fixture.observer.wait_for_status("started", 2);
    fixture.daemon.stop();
}

#[test]
fn get_model_info_returns_the_description_of_the_model() {
    let mut model = script(&[boxed(0.6)]);
    let parameters = &mut model["hello"]["model_parameters"];
    parameters["a_field_of_the_future"] = json!({"nested": [1, 2.5, null, "x"]});
    let mut described = parameters.clone();
    described["sensorType"] = json!("camera");
    let fixture = CommandFixture::start(&model, LIVE, &[]);
    fixture.observer.wait_for_status("started", 1);
    let answer = fixture.ask(&cmd("get_model_info"));
    assert_eq!(
        answer,
        json!({"model_info": {"model_name": "Scripted", "model_version": "v7", "model_params": described}})
    );
    fixture.daemon.stop();
}

#[test]
fn a_bad_value_changes_nothing_and_the_answer_says_what_is_accepted() {
    let fixture = CommandFixture::live(&["--set", "default_threshold=0.4", "--set", "threshold_criteria=gt"]);
    let deep = (0..100).fold(json!(0.5), |inner, _| json!([inner]));
    for value in [
        json!(0),
        json!(-0.5),
        json!(100.5),
        json!("abc"),
        json!(""),
        json!("NaN"),
        json!("inf"),
        json!(true),
        json!(null),
        json!([0.5]),
        json!({"value": 0.5}),
        deep,
    ] {
        let answer = fixture.ask(&set_confidence(value.clone()));
        assert_eq!(without_error(answer), json!({"confidence_threshold": 0.4}), "{value}");
    }
    let answer = fixture.ask(&cmd("set_threshold_filter_confidence"));
    assert_eq!(without_error(answer), json!({"confidence_threshold": 0.4}), "no value");
    for value in [
        json!("between"),
        json!(""),
        json!(">="),
        json!(5),
        json!(null),
        json!(["ge"]),
    ] {
        let answer = fixture.ask(&set_criteria(value.clone()));
        assert_eq!(without_error(answer), json!({"criteria": "gt"}), "{value}");
    }
    for id in ["../../etc/passwd", "", "*", "0b0e6f3c"] {
        let answer = fixture.ask(&json!({"cmd": "clear_cache_file", "value": id}));
        assert_eq!(answer["clear_cache_file"]["local"], "FAILED", "{answer}");
        assert_eq!(without_error(answer)["clear_cache_file"]["uuid"], id);
    }
    assert_eq!(
        fixture.ask(&cmd("get_threshold_filter_config")),
        filter_config("no", 0.4, "gt")
    );
    fixture.daemon.stop();
}

#[test]
fn an_invalid_command_is_answered_with_an_error_and_the_component_continues() {
    let fixture = CommandFixture::live(&[]);
    let padded = |bytes: usize| {
        let padding = " ".repeat(bytes);
        format!(r#"{{"cmd":"restart"{padding}}}"#).into_bytes()
    };
    let forged = "no_such\n2026-01-01T00:00:00Z ERROR forged\u{1b}[31m";
    for (what, payload) in [
        ("an unknown verb", br#"{"cmd":"reboot"}"#.to_vec()),
        ("another spelling", br#"{"cmd":"Restart"}"#.to_vec()),
        (
            "a verb with a line break",
            json!({"cmd": forged}).to_string().into_bytes(),
        ),
        ("a verb that is none", br#"{"cmd":5}"#.to_vec()),
        ("no verb", br#"{"value":5}"#.to_vec()),
        ("bad JSON", br#"{"cmd":"restart""#.to_vec()),
        (
            "a number too large",
            br#"{"cmd":"set_threshold_filter_confidence","value":1e999}"#.to_vec(),
        ),
        ("plain text", b"restart".to_vec()),
        ("an array", br#"[{"cmd":"restart"}]"#.to_vec()),
        ("a NUL", b"\0".to_vec()),
        ("no UTF-8", b"{\"cmd\":\"\xff\xfe\"}".to_vec()),
        ("deep JSON", "[".repeat(60_000).into_bytes()),
        ("deep objects", r#"{"cmd":"#.repeat(9_000).into_bytes()),
        ("70 KB", padded(70_000)),
        ("1 MB", padded(1_000_000)),
    ] {
        let answer = fixture.ask_raw(payload);
        let result = answer["result"].as_object().expect(what);
        let error = result["error"].as_str().expect(what);
        assert_eq!(result.len(), 1, "{what}: {answer}");
        assert!(!error.is_empty() && error.len() < 1000, "{what}: {error}");
    }
    assert_eq!(
        fixture.ask(&cmd("get_threshold_filter_config")),
        filter_config("no", 0.7, "ge")
    );
    let before = fixture.observer.all("inference/output").len();
    fixture.observer.wait_for_count("inference/output", before + 10);
    let log = fixture.daemon.stop();
    assert!(!log.contains("Restarting on command"), "{log}");
    assert!(
        log.lines().all(|line| !line.starts_with("2026-01-01T00:00:00Z")),
        "a sender cannot write lines into the log:\n{log}"
    );
}

#[test]
fn several_commands_are_all_answered_in_order() {
    let fixture = CommandFixture::live(&[]);
    fixture.observer.send_raw(set_confidence(json!(0.1)).to_string(), false);
    // The old component checked for commands every 2.5 s and lost the first of two.
    std::thread::sleep(Duration::from_millis(100));
    fixture.observer.send_raw(set_confidence(json!(0.2)).to_string(), false);
    let threshold = |value: f64| json!({"result": {"confidence_threshold": value}});
    assert_eq!(fixture.observer.wait_for_answers(2), [threshold(0.1), threshold(0.2)]);

    // All at once, and some of them twice.
    for value in [0.3, 0.3, 0.4, 0.3, 0.3] {
        fixture
            .observer
            .send_raw(set_confidence(json!(value)).to_string(), false);
    }
    let answers = fixture.observer.wait_for_answers(7);
    assert_eq!(answers[2..], [0.3, 0.3, 0.4, 0.3, 0.3].map(threshold));

    // Slow commands are answered in order too.
    for command in [cmd("clear_cache"), cmd("get_threshold_filter_criteria")] {
        fixture.observer.send_raw(command.to_string(), false);
    }
    let answers = fixture.observer.wait_for_answers(9);
    assert!(answers[7]["result"].get("clear_cache").is_some(), "{answers:?}");
    fixture.daemon.stop();
}

#[test]
fn the_filter_set_by_commands_decides_what_is_published() {
    let fixture = CommandFixture::live(&[]);
    let published_after = |commands: &[Value]| {
        for command in commands {
            fixture.ask(command);
        }
        // These numbers include inferences in progress when the answer came.
        let first = fixture.metrics("the next", |_| true)["runner"].clone();
        let seen = |key: &str| first[key].as_u64().expect("a count");
        let later = fixture.metrics("20 inferences later", |metrics| {
            metrics["runner"]["inferences"].as_u64() >= Some(seen("inferences") + 20)
        });
        let grown = |key: &str| later["runner"][key].as_u64().expect("a count") - seen(key);
        (grown("published"), grown("filtered"))
    };
    // The model's confidence is 0.6.
    let (published, filtered) = published_after(&[cmd("enable_threshold_filter"), set_confidence(json!(0.65))]);
    assert!(published == 0 && filtered >= 20, "above: {published} {filtered}");
    let (published, filtered) = published_after(&[set_confidence(json!("55"))]);
    assert!(published >= 20 && filtered == 0, "below: {published} {filtered}");
    let (published, filtered) = published_after(&[set_criteria(json!("lt"))]);
    assert!(published == 0 && filtered >= 20, "less than: {published} {filtered}");
    let (published, filtered) = published_after(&[set_confidence(json!(0.6)), set_criteria(json!("eq"))]);
    assert!(published >= 20 && filtered == 0, "equal: {published} {filtered}");
    let (published, filtered) = published_after(&[set_criteria(json!("gt"))]);
    assert!(published == 0 && filtered >= 20, "greater: {published} {filtered}");
    let (published, filtered) = published_after(&[cmd("disable_threshold_filter")]);
    assert!(published >= 20 && filtered == 0, "off: {published} {filtered}");
    fixture.daemon.stop();
}

#[test]
fn reset_metrics_resets_only_the_confidences() {
    let fixture = CommandFixture::start(
        &cycle(&[boxed(0.5), boxed(0.9)]),
        &frames(20),
        &["--unthrottled", "--set", "ei_shutdown_behavior=wait_for_restart"],
    );
    fixture.observer.wait_for_status("paused", 1);
    let before = fixture.metrics("the next", |_| true);
    assert_eq!(
        (&before["details"]["n"], &before["mean_confidence"]),
        (&json!(20), &json!(0.7))
    );
    assert_eq!(fixture.ask(&cmd("reset_metrics")), json!({"metrics_reset": "OK"}));
    let after = fixture.metrics("forgotten", |metrics| metrics["details"]["n"] == 0);
    assert_eq!(
        after["details"],
        json!({"n": 0, "sum_confidences": 0.0, "sum_confidences_squared": 0.0})
    );
    for (key, value) in [("mean_confidence", 0.0), ("standard_deviation", 0.0)] {
        assert_eq!(after[key], value);
    }
    assert_eq!(after["confidence_trend"], "flat");
    assert_eq!(after["runner"]["inferences"], 20);
    fixture.daemon.stop();
}

#[test]
fn restart_starts_a_session_with_the_configured_settings() {
    let fixture = CommandFixture::live(&["--set", "default_threshold=0.3", "--set", "threshold_criteria=gt"]);
    for command in [
        cmd("enable_threshold_filter"),
        set_confidence(json!(0.9)),
        set_criteria(json!("lt")),
    ] {
        fixture.ask(&command);
    }
    fixture.metrics("some inferences", |metrics| {
        metrics["details"]["n"].as_u64() >= Some(10)
    });
    let (published, told) = (
        fixture.observer.all("inference/output").len(),
        fixture.observer.all("model/metrics").len(),
    );
    assert_eq!(fixture.ask(&cmd("restart")), json!({"restart": "OK"}));
    fixture.observer.wait_for_status("started", 2);
    let states: Vec<_> = fixture
        .observer
        .all("command/output")
        .iter()
        .map(|seen| seen.json()["result"].clone())
        .collect();
    let restart = states
        .iter()
        .position(|result| result["restart"] == "OK")
        .expect("the answer");
    assert_eq!(states.last().expect("a notice")["status"], "started");
    assert_eq!(restart, states.len() - 2, "the answer, then started: {states:?}");

    let restarted = fixture
        .observer
        .wait_for_nth("model/metrics", "metrics begin restarted", told, |metrics| {
            metrics["details"]["n"] == 0
        });
    assert_eq!(
        (&restarted["runner"]["inferences"], &restarted["runner"]["filtered"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(
        fixture.ask(&cmd("get_threshold_filter_config")),
        filter_config("no", 0.3, "gt")
    );
    let messages = fixture.observer.wait_for_count("inference/output", published + 30);
    let totals = totals(&messages);
    let begins: Vec<_> = (1..totals.len()).filter(|at| totals[*at] <= totals[at - 1]).collect();
    assert_eq!(begins.len(), 1, "{totals:?}");
    assert_eq!(totals[begins[0]], 1, "{totals:?}");
    fixture.daemon.stop();
}

#[test]
fn settings_made_by_commands_stay_when_the_model_restarts() {
    let mut answers = vec![boxed(0.6); 60];
    answers.push(json!({"exit": 3}));
    let fixture = CommandFixture::start(&script(&answers), LIVE, &[]);
    fixture.observer.wait_for_status("started", 1);
    for command in [
        set_confidence(json!(0.55)),
        cmd("enable_threshold_filter"),
        set_criteria(json!("gt")),
    ] {
        fixture.ask(&command);
    }
    fixture.observer.wait_for_status("started", 2);
    assert_eq!(
        fixture.ask(&cmd("get_threshold_filter_config")),
        filter_config("yes", 0.55, "gt")
    );
    let messages = fixture.observer.wait_for_count("inference/output", 80);
    // The inferences of the first process still count.
    assert_eq!(totals(&messages), (1..=messages.len() as u64).collect::<Vec<_>>());
    let metrics = fixture.metrics("the next", |_| true);
    assert_eq!(metrics["runner"]["model_restarts"], 1);
    assert!(metrics["details"]["n"].as_u64() > Some(60), "{metrics}");
    fixture.daemon.stop();
}

#[test]
fn a_retained_restart_restarts_once_and_is_removed_from_the_broker() {
    let CommandFixture {
        site,
        broker,
        observer,
        arguments,
        daemon,
    } = CommandFixture::live(&[]);
    observer.send_raw(cmd("restart").to_string(), true);
    observer.wait_for_status("started", 2);
    // A new subscriber receives retained messages first.
    let late = Observer::connect(broker.port, site.device());
    late.wait_for_count("model/metrics", 3);
    assert!(late.all("").iter().all(|seen| !seen.retain), "{:?}", late.all("input"));
    let log = daemon.stop();
    assert_eq!(log.matches("Restarting on command").count(), 1, "{log}");

    let daemon = start(&site, &broker, &arguments);
    observer.wait_for_status("started", 3);
    observer.send_raw(cmd("get_threshold_filter_criteria").to_string(), false);
    assert_eq!(
        observer.wait_for_answers(2),
        [
            json!({"result": {"restart": "OK"}}),
            json!({"result": {"criteria": "ge"}})
        ]
    );
    let log = daemon.stop();
    assert!(!log.contains("Restarting on command"), "{log}");
}

#[test]
fn commands_sent_while_the_component_is_stopped_are_executed_after_its_start() {
    let CommandFixture {
        site,
        broker,
        observer,
        arguments,
        daemon,
    } = CommandFixture::live(&[]);
    daemon.stop();
    for value in ["0.31", "0.32"] {
        observer.send_raw(set_confidence(json!(value)).to_string(), false);
    }
    observer.send_raw(cmd("enable_threshold_filter").to_string(), true);
    assert!(observer.answers().is_empty());
    let daemon = start(&site, &broker, &arguments);
    let answers = observer.wait_for_answers(3);
    assert_eq!(
        answers,
        [
            json!({"result": {"confidence_threshold": 0.31}}),
            json!({"result": {"confidence_threshold": 0.32}}),
            json!({"result": filter_config("yes", 0.32, "ge")}),
        ]
    );
    observer.wait_for_status("started", 2);
    let log = daemon.stop();
    assert!(!log.contains("ERROR"), "{log}");
    assert_eq!(observer.answers().len(), 3);
}
