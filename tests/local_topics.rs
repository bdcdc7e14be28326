//! Local topics of Greengrass, with the real binary, a broker and a stand-in for the nucleus.

mod connection;
mod flood;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Site};
use crate::support::mosquitto::Mosquitto;
use crate::support::nucleus::Nucleus;
use crate::support::observer::Observer;
use crate::support::ports::free_port;
use crate::support::scripts::{boxed, frames, script};

const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=20/1";
/// Pictures that cannot be compressed well.
const SNOW: &str = "videotestsrc pattern=snow is-live=true ! video/x-raw,width=320,height=240,framerate=10/1";
const NOT_WORKING: &str = "Local topics do not work";

/// A device with a nucleus and a broker.
struct Place {
    site: Site,
    nucleus: Nucleus,
    broker: Mosquitto,
    observer: Observer,
}

impl Place {
    fn new() -> Self {
        let (site, broker) = (Site::new(), Mosquitto::start());
        Self {
            nucleus: Nucleus::start(json!({})),
            observer: Observer::connect(broker.port, site.device()),
            site,
            broker,
        }
    }

    /// Starts a component with local topics that publishes every inference.
    fn run(&self, broker: &str, answer: Value, source: &str, sets: &[&str]) -> Daemon {
        let model = self.site.scripted_model(&script(&[answer]));
        let mut command = self.site.command("run");
        command
            .args(["--mqtt", broker, "--unthrottled", "--gst", source, "--model"])
            .arg(model)
            // The configuration does not come from the nucleus, which may hang.
            .env("CONFIG_PARAMETERS", "{}");
        let always = ["local_topics=yes", "iotcore_backoff=1", "metrics_sleeptime_ms=300"];
        for set in always.iter().chain(sets) {
            command.args(["--set", set]);
        }
        self.nucleus.environment(&mut command);
        Daemon::start(command)
    }

    fn run_live(&self, sets: &[&str]) -> Daemon {
        self.run(&self.broker.url(), boxed(0.9), LIVE, sets)
    }

    /// Waits for the first local inference; returns the local topic of commands.
    fn wait_for_local_inference(&self) -> String {
        let (topic, _) = self
            .nucleus
            .wait_for_local("/inference/output", "an inference", |_| true);
        topic.replace("/inference/output", "/command/input")
    }

    /// Waits until the component says so in its metrics, at the broker.
    fn wait_for_figures(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let metrics = self
            .observer
            .wait_for("model/metrics", what, |metrics| wanted(&metrics["runner"]));
        metrics["runner"].clone()
    }

    fn wait_for_local_answer(&self, key: &str) -> Value {
        let (_, answer) = self
            .nucleus
            .wait_for_local("/command/output", key, |answer| answer["result"].get(key).is_some());
        answer["result"][key].clone()
    }
}

#[test]
fn inferences_metrics_notices_and_answers_are_local_while_the_broker_is_away() {
    let place = Place::new();
    let nobody = format!("mqtt://127.0.0.1:{}", free_port());
    let daemon = place.run(&nobody, boxed(0.9), LIVE, &[]);
    let commands = place.wait_for_local_inference();
    let (_, inference) = place.nucleus.wait_for_local("/inference/output", "a box", |_| true);
    assert_eq!(inference["box"][0]["label"], "thing");
    place.nucleus.wait_for_local("/command/output", "started", |notice| {
        notice["result"]["status"] == "started"
    });
    place
        .nucleus
        .publish(&commands, &json!({"cmd": "get_threshold_filter_criteria"}));
    assert_eq!(place.wait_for_local_answer("criteria"), "ge");
    let (_, metrics) = place.nucleus.wait_for_local("/model/metrics", "figures", |metrics| {
        metrics["runner"]["local_published"].as_u64() > Some(3)
    });
    assert_eq!(metrics["runner"]["health"]["local_topics"], "online");
    assert_eq!(metrics["runner"]["health"]["mqtt"], "offline");
    let log = daemon.stop();
    assert!(
        !log.contains(NOT_WORKING) && !log.contains(&place.nucleus.token()),
        "{log}"
    );
    place.nucleus.wait_for_local("/command/output", "stopped", |notice| {
        notice["result"]["status"] == "stopped"
    });
}

#[test]
fn local_commands_are_answered_locally_and_at_the_broker() {
    let place = Place::new();
    let daemon = place.run_live(&[]);
    let commands = place.wait_for_local_inference();
    place.observer.wait_for_count("inference/output", 1);
    let command = json!({"cmd": "set_threshold_filter_confidence", "value": 0.7});
    place.nucleus.publish(&commands, &command);
    assert_eq!(place.wait_for_local_answer("confidence_threshold"), 0.7);
    place.observer.wait_for("command/output", "the answer", |answer| {
        answer["result"]["confidence_threshold"] == 0.7
    });

    // As bytes, and as a JSON text.
    place.nucleus.publish_bytes(&commands, br#"{"cmd": "get_model_info"}"#);
    place.wait_for_local_answer("model_info");
    place
        .nucleus
        .publish(&commands, &json!(r#"{"cmd": "enable_threshold_filter"}"#));
    place.nucleus.wait_for_local("/command/output", "the filter", |answer| {
        answer["result"]["threshold_filter_config"]["enabled"] == "yes"
    });
    place.nucleus.publish_bytes(&commands, b"{");
    place.wait_for_local_answer("error");

    // A command of the broker is answered on the local topic too.
    place.observer.command(
        &json!({"cmd": "set_threshold_filter_confidence", "value": 0.3}),
        |answer| answer["confidence_threshold"] == 0.3,
    );
    place
        .nucleus
        .wait_for_local("/command/output", "the answer to the broker", |answer| {
            answer["result"]["confidence_threshold"] == 0.3
        });
    // Nothing of the broker's handling of commands shows.
    assert_eq!(place.nucleus.local_messages("/command/input"), Vec::<Value>::new());

    // A restart keeps the local topics.
    place.nucleus.publish(&commands, &json!({"cmd": "restart"}));
    place.observer.wait_for_status("started", 2);
    let before = place.nucleus.local_messages("/inference/output").len();
    place.observer.wait_for_count("inference/output", before + 5);
    place.nucleus.publish(
        &commands,
        &json!({"cmd": "set_threshold_filter_confidence", "value": 0.9}),
    );
    place
        .nucleus
        .wait_for_local("/command/output", "an answer after the restart", |answer| {
            answer["result"]["confidence_threshold"] == 0.9
        });
    daemon.stop();
}

#[test]
fn a_nucleus_that_hangs_slows_nothing_and_loses_nothing_for_the_broker() {
    const COUNT: usize = 1000;
    let place = Place::new();
    place.nucleus.hang(true);
    let daemon = place.run(
        &place.broker.url(),
        boxed(0.9),
        &frames(COUNT as u32),
        &["ei_shutdown_behavior=wait_for_restart", "spool_max_mb=64"],
    );
    let paused = place.observer.wait_for_status("paused", 1);
    assert_eq!(place.observer.wait_for_count("inference/output", COUNT).len(), COUNT);
    let figures = place.wait_for_figures("every inference", |runner| runner["published"] == COUNT);
    assert_eq!(
        (&figures["outbox_dropped"], &figures["local_published"]),
        (&json!(0), &json!(0))
    );
    // At most 256 messages wait for the nucleus.
    assert!(
        figures["local_dropped"].as_u64() >= Some(COUNT as u64 - 256),
        "{figures}"
    );
    // The nucleus is given up after 10 s: the frames did not wait for that.
    assert_eq!(figures["health"]["local_topics"], "online", "{paused}");

    let failing = place.wait_for_figures("a failing part", |runner| runner["health"]["local_topics"] == "failing");
    let problem = failing["problems"].to_string();
    assert!(
        problem.contains("local_topics: ") && problem.contains("did not answer"),
        "{problem}"
    );
    place.nucleus.hang(false);
    daemon.wait_for_line("Local topics work again");

    // A stop does not wait for it either.
    place.nucleus.hang(true);
    let before = place.observer.all("model/metrics").len();
    place
        .observer
        .wait_for_nth("model/metrics", "another message", before, |_| true);
    let begun = Instant::now();
    daemon.stop();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    place.observer.wait_for_status("stopped", 1);
}

#[test]
fn pictures_and_then_the_weakest_results_are_left_out_of_large_messages() {
    let place = Place::new();
    let boxes: Vec<_> = (0..200)
        .map(|n| {
            let value = f64::from(n) / 200.0;
            json!({"label": "thing", "value": value, "x": 1, "y": 2, "width": 3, "height": 4})
        })
        .collect();
    let sets = ["publish_inference_base64_image=yes"];
    let daemon = place.run(&place.broker.url(), json!({"bounding_boxes": boxes}), SNOW, &sets);
    let (_, local) = place
        .nucleus
        .wait_for_local("/inference/output", "without a picture", |_| true);
    let kept = local["box"].as_array().unwrap().len();
    assert!(kept > 20 && kept < 200, "{kept}");
    assert_eq!(local["box_omitted"], 200 - kept);
    assert_eq!((&local["image_omitted"], &local["image"]), (&json!(true), &Value::Null));
    assert_eq!(local["box"][0]["value"], 0.995);
    let whole = place
        .observer
        .wait_for("inference/output", "the same inference", |message| {
            message["id"] == local["id"]
        });
    assert!(whole["image"].is_string() && whole["box_omitted"].is_null());
    assert_eq!(whole["box"].as_array().unwrap().len(), 200);
    daemon.wait_for_line("A result is published locally without all its values");
    place.wait_for_figures("shortened messages", |runner| {
        runner["local_shortened"].as_u64() > Some(2)
    });
    let log = daemon.stop();
    // The stand-in closes the connection after a packet that is too large, as Greengrass Lite does.
    assert!(!log.contains(NOT_WORKING), "{log}");

    let nucleus = Nucleus::start(json!({}));
    let mut command = place.site.command("run");
    command.args(["--mqtt", &place.broker.url(), "--model", "builtin:ball", "--gst", SNOW]);
    for set in [
        "local_topics=yes",
        "iotcore_backoff=1",
        "publish_inference_base64_image=yes",
    ] {
        command.args(["--set", set]);
    }
    nucleus.environment(&mut command);
    let daemon = Daemon::start(command);
    daemon.wait_for_line("Messages are published locally without their pictures");
    let log = daemon.stop();
    assert!(!log.contains("without all its values"), "{log}");
}

#[test]
fn a_missing_access_control_is_a_problem_that_says_what_to_add() {
    let place = Place::new();
    place.nucleus.refuse(&["PublishToTopic"]);
    let daemon = place.run_live(&[]);
    let runner = place.wait_for_figures("a problem", |runner| runner["health"]["local_topics"] == "failing");
    let problem = runner["problems"].to_string();
    assert!(
        problem.contains("add to accessControl under aws.greengrass.ipc.pubsub: aws.greengrass#PublishToTopic on /edgeimpulse/device/"),
        "{problem}"
    );
    let line = daemon.wait_for_line(NOT_WORKING);
    for part in [
        r#"{"accessControl": {"aws.greengrass.ipc.pubsub": {"#,
        r#""operations": ["aws.greengrass#PublishToTopic", "aws.greengrass#SubscribeToTopic"]"#,
        "retry_in=60s",
    ] {
        assert!(line.contains(part), "{line} lacks {part}");
    }
    daemon.stop();
}

#[test]
fn without_the_permission_for_commands_messages_are_still_published() {
    let place = Place::new();
    place.nucleus.refuse(&["SubscribeToTopic"]);
    let daemon = place.run_live(&[]);
    place.wait_for_local_inference();
    let runner = place.wait_for_figures("a problem", |runner| runner["local_published"].as_u64() > Some(3));
    assert_eq!(runner["health"]["local_topics"], "failing");
    assert!(
        runner["problems"]
            .to_string()
            .contains("aws.greengrass#SubscribeToTopic on /edgeimpulse/device/")
    );
    daemon.stop();
}

#[test]
fn the_connection_is_made_again_after_the_nucleus_was_restarted() {
    let place = Place::new();
    let daemon = place.run_live(&[]);
    let commands = place.wait_for_local_inference();
    place.nucleus.stop();
    daemon.wait_for_line(NOT_WORKING);
    let away = place.wait_for_figures("dropped messages", |runner| runner["local_dropped"].as_u64() > Some(2));
    assert_eq!(away["health"]["local_topics"], "failing");
    place.nucleus.resume();
    daemon.wait_for_line("Local topics work again");
    place.nucleus.publish(
        &commands,
        &json!({"cmd": "set_threshold_filter_confidence", "value": 0.2}),
    );
    assert_eq!(place.wait_for_local_answer("confidence_threshold"), 0.2);
    daemon.stop();
}

#[test]
fn by_hand_the_key_has_no_effect_and_run_and_check_say_so() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let sets = ["--set", "local_topics=yes", "--set", "metrics_sleeptime_ms=300"];
    let mut arguments = vec!["--model", "builtin:ball", "--gst", LIVE];
    arguments.extend(sets);
    let daemon = site.run(&broker.url(), &arguments);
    let metrics = observer.wait_for("model/metrics", "figures", |_| true);
    assert_eq!(metrics["runner"]["health"]["local_topics"], "off");
    let log = daemon.stop();
    assert_eq!(log.matches("local_topics has no effect").count(), 1, "{log}");

    let mut check = site.command("check");
    check.args(["--mqtt", &broker.url()]).args(arguments);
    let text = String::from_utf8(check.output().unwrap().stdout).unwrap();
    assert!(text.contains("local_topics has no effect here"), "{text}");
}

#[test]
fn events_are_published_on_the_local_topic_too() {
    let place = Place::new();
    let rules = r#"events={"rules":{"seen":{"label":"thing","value_at_least":0.5}}}"#;
    let daemon = place.run_live(&[rules, "publish_inferences=no"]);
    let (topic, local) = place
        .nucleus
        .wait_for_local("/events", "a start", |event| event["event"] == "start");
    assert!(topic.starts_with("/edgeimpulse/device/"), "{topic}");
    let at_broker = place
        .observer
        .wait_for("/events", "the same event", |event| event["event"] == "start");
    assert_eq!(local, at_broker);
    daemon.stop();
}
