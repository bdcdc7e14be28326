//! Results that are large, or whose scores are no probabilities, and messages that wait for their picture at the end.

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Site};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::scripts::{hello, recorded};

/// The most bytes that AWS IoT Core takes.
const LIMIT: usize = 131_072;
/// A source that delivers pictures until the daemon is stopped.
const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=20/1";

struct Bench {
    site: Site,
    _broker: Mosquitto,
    observer: Observer,
    daemon: Daemon,
}

impl Bench {
    /// A daemon on a live source, with a model of these parameters that always gives this answer.
    fn start(parameters: Value, answer: Value, settings: &[&str]) -> Self {
        let (site, broker) = (Site::new(), Mosquitto::start());
        let observer = Observer::connect(broker.port, site.device());
        let model = scripted(&site, parameters, answer);
        let mut arguments = vec!["--model", &model, "--gst", LIVE];
        for setting in ["iotcore_backoff=1", "metrics_sleeptime_ms=200"].iter().chain(settings) {
            arguments.extend(["--set", setting]);
        }
        let daemon = site.run(&broker.url(), &arguments);
        Self {
            site,
            _broker: broker,
            observer,
            daemon,
        }
    }

    /// The answer to a command.
    fn ask(&self, name: &str, value: Value) -> Value {
        let count = self.observer.answers().len() + 1;
        let command = json!({"cmd": name, "value": value});
        self.observer.send_raw(command.to_string(), false);
        self.observer.wait_for_answers(count).remove(count - 1)["result"].clone()
    }

    /// Waits until the filter has rejected, or passed, everything for some inferences.
    fn wait_for(&self, decision: &str) {
        let count = |metrics: &Value| metrics["runner"][decision].as_u64().unwrap_or(0);
        let now = self
            .observer
            .all("model/metrics")
            .last()
            .map_or(0, |seen| count(&seen.json()));
        self.observer
            .wait_for("model/metrics", decision, |metrics| count(metrics) > now + 2);
    }
}

fn scripted(site: &Site, parameters: Value, answer: Value) -> String {
    let mut greeting = hello(8, 8);
    for (key, value) in parameters.as_object().unwrap() {
        greeting["model_parameters"][key] = value.clone();
    }
    let model = site.scripted_model(&json!({"hello": greeting, "answers": [answer], "repeat": "last"}));
    model.to_str().unwrap().to_owned()
}

#[test]
fn more_boxes_than_a_message_takes_are_cut_logged_once_and_named_as_a_problem() {
    let value = |i: u32| f64::from(i) / 4_000.0;
    let boxes: Vec<_> = (0..4_000)
        .map(|i| json!({"label": "ball", "value": value(i), "x": i, "y": 0, "width": 1, "height": 1}))
        .collect();
    let bench = Bench::start(
        json!({}),
        json!({"bounding_boxes": boxes}),
        &["publish_inference_base64_image=yes"],
    );
    bench.observer.wait_for_count("inference/output", 4);
    let message = &bench.observer.all("inference/output")[0];
    assert!(
        (LIMIT - 200..=LIMIT).contains(&message.payload.len()),
        "{}",
        message.payload.len()
    );
    let message = message.json();
    let published = message["box"].as_array().unwrap();
    assert_eq!(published[0]["value"], value(3_999));
    assert_eq!(message["box_omitted"], 4_000 - published.len());
    assert_eq!(
        (&message["inference_count"], &message["image_omitted"]),
        (&json!(4_000), &json!(true))
    );
    let metrics = bench.observer.wait_for("model/metrics", "the problem", |metrics| {
        metrics["runner"]["problems"] != json!([])
    });
    let problem = metrics["runner"]["problems"][0].as_str().unwrap();
    assert!(
        problem.starts_with("model: its last result is published without "),
        "{problem}"
    );
    assert_eq!(metrics["runner"]["health"]["model"], "running");
    assert!(metrics["runner"]["results_cut"].as_u64() > Some(0) && metrics["runner"]["oversized"] == 0);
    let log = bench.daemon.stop();
    assert_eq!(
        log.matches("A result is published without all its values").count(),
        1,
        "{log}"
    );
}

#[test]
fn any_number_is_a_threshold_for_anomaly_scores() {
    let bench = Bench::start(
        json!({"has_anomaly": 1, "labels": [], "model_type": "classification"}),
        json!({"anomaly": -0.5}),
        &["default_threshold=250", "enable_threshold_limit=yes"],
    );
    let line = bench
        .daemon
        .wait_for_line("The threshold of the confidence filter is interpreted");
    assert!(
        line.contains("reading=\"score\"") && line.contains("threshold=250"),
        "{line}"
    );
    bench.wait_for("filtered");
    assert_eq!(
        bench.ask("set_threshold_filter_confidence", json!("-0.75")),
        json!({"confidence_threshold": -0.75})
    );
    let message = bench.observer.wait_for_count("inference/output", 2).remove(0);
    assert_eq!(message["anomaly"], -0.5);
    assert_eq!(
        bench.ask("set_threshold_filter_confidence", json!(0)),
        json!({"confidence_threshold": 0.0})
    );
    bench.wait_for("filtered");
    let refused = bench.ask("set_threshold_filter_confidence", json!("high"));
    assert_eq!(refused["confidence_threshold"], 0.0);
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .contains("any number for a regression or anomaly model")
    );
    assert_eq!(
        bench.ask("get_threshold_filter_config", Value::Null)["threshold_filter_config"],
        json!({"enabled": "yes", "confidence_threshold": 0.0, "threshold_criteria": "ge", "threshold_reading": "score"})
    );
    let log = bench.daemon.stop();
    assert!(!log.contains(" WARN "), "{log}");
}

#[test]
fn the_value_of_a_regression_model_is_compared_with_the_threshold_itself() {
    let bench = Bench::start(
        json!({"labels": ["value"], "model_type": "classification"}),
        json!({"classification": {"value": 37.5}}),
        &["default_threshold=30", "enable_threshold_limit=yes"],
    );
    let message = bench.observer.wait_for_count("inference/output", 1).remove(0);
    assert_eq!(message["c"], json!({"value": 37.5}));
    bench.ask("set_threshold_filter_confidence", json!(40));
    bench.wait_for("filtered");
    bench.daemon.stop();
}

#[test]
fn a_threshold_that_is_no_probability_is_one_warning_with_a_model_of_probabilities() {
    let warning = "`default_threshold` is 250; accepted: a number above 0: up to 1 it is a fraction, up to 100 a percentage; \
        any number for a regression or anomaly model, whose scores are no probabilities; used instead: 0.7";
    let bench = Bench::start(
        json!({"labels": ["a", "b"], "model_type": "classification"}),
        json!({"classification": {"a": 0.75, "b": 0.25}}),
        &["default_threshold=250", "enable_threshold_limit=yes"],
    );
    bench.observer.wait_for_count("inference/output", 2);
    assert_eq!(
        bench.ask("get_threshold_filter_config", Value::Null)["threshold_filter_config"],
        json!({"enabled": "yes", "confidence_threshold": 0.7, "threshold_criteria": "ge"})
    );
    for value in [json!(250), json!(0), json!(-1)] {
        let refused = bench.ask("set_threshold_filter_confidence", value);
        assert!(
            refused["confidence_threshold"] == 0.7 && refused["error"].is_string(),
            "{refused}"
        );
    }
    let check = |parameters: Value| {
        let model = scripted(&bench.site, parameters, json!({}));
        let mut command = bench.site.command("check");
        command.args(["--model", &model, "--gst", LIVE, "--set", "default_threshold=250"]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let shown = |report: &str| {
        let line = report
            .lines()
            .find(|line| line.trim_start().starts_with("default_threshold "));
        line.unwrap_or_default().to_owned()
    };
    let report = check(json!({"labels": ["a", "b"], "model_type": "classification"}));
    assert!(report.contains(&format!("Warnings\n  {warning}")), "{report}");
    assert!(shown(&report).contains("= 0.7  (--set"), "{report}");
    let report = check(json!({"labels": ["value"], "model_type": "classification"}));
    assert!(
        report.contains("reads its threshold 250 as a score: scores are compared with 250"),
        "{report}"
    );
    assert!(
        shown(&report).contains("= 250  (--set") && !report.contains("Warnings\n  `"),
        "{report}"
    );
    let log = bench.daemon.stop();
    assert_eq!(log.matches(warning).count(), 1, "{log}");
}

#[test]
fn messages_that_wait_for_their_picture_survive_a_stop_during_and_after_a_restart() {
    // Each picture takes the encoder much longer than the model, and a busy machine encodes the first one in time.
    const SIDE: u32 = 2_000;
    let source = format!(
        "videotestsrc pattern=snow num-buffers=6 ! video/x-raw,format=RGB,width={SIDE},height={SIDE},framerate=30/1"
    );
    for is_during in [true, false] {
        let (site, broker) = (Site::new(), Mosquitto::start());
        let observer = Observer::connect(broker.port, site.device());
        let record = site.path().join("record");
        let script = json!({"hello": hello(SIDE, SIDE), "answers": [{"classification": {"a": 0.5}}],
            "repeat": "last", "record": record, "record_at_most": 1});
        let model = site.scripted_model(&script);
        let settings = [
            "iotcore_backoff=1",
            "publish_inference_base64_image=yes",
            "ei_shutdown_behavior=wait_for_restart",
        ];
        let mut arguments = vec!["--unthrottled", "--model", model.to_str().unwrap(), "--gst", &source];
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        let mut daemon = site.run(&broker.url(), &arguments);
        let inferred = || {
            let lines = recorded(&record);
            lines.iter().filter(|line| line.get("classify_shm").is_some()).count()
        };
        observer.wait_for_count("inference/output", 1);
        let before = inferred();
        assert!(before > 1, "the others wait for their picture");
        observer.send_raw(json!({"cmd": "restart"}).to_string(), false);
        if is_during {
            observer.wait_for_answers(1);
        } else {
            daemon.wait_for_line("Restarting on command");
        }
        daemon.signal(rustix::process::Signal::TERM);
        daemon.wait_for_end(std::time::Duration::from_secs(20));
        let messages = observer.all("inference/output");
        assert!(
            messages.len() >= before,
            "{} messages of {before} inferences: {}",
            messages.len(),
            daemon.log()
        );
        for message in messages {
            let message = message.json();
            assert!(message.get("image").is_some() || message["image_omitted"] == true);
        }
    }
}
