//! Events of zones, lines and rules, from a scripted model to the broker.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::broker::{Behaviour, MockBroker};
use crate::support::daemon::{LIMIT, Site};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::scripts::hello;

/// Pixels of the model's input.
const SIDE: f64 = 160.0;
/// Frames of a ball from one side to the other and back.
const SWING: u32 = 48;

/// The answer with a ball of 16 pixels here.
fn ball_at(x: f64) -> Value {
    let left = (x * SIDE - 8.0).round();
    json!({"bounding_boxes": [{"label": "thing", "value": 0.9, "x": left as i64, "y": 60, "width": 16, "height": 16}]})
}

fn no_ball() -> Value {
    json!({"bounding_boxes": []})
}

/// Where the ball is, from 0.1 to 0.9.
fn pendulum(frame: u32) -> f64 {
    let phase = f64::from(frame % SWING) / f64::from(SWING);
    0.5 - 0.4 * (phase * std::f64::consts::TAU).cos()
}

fn model(answers: &[Value]) -> Value {
    json!({"hello": hello(SIDE as u32, SIDE as u32), "answers": answers, "repeat": "last"})
}

/// A source of so many frames in real time.
fn frames(count: u32) -> String {
    format!("videotestsrc num-buffers={count} ! video/x-raw,format=I420,width=64,height=48,framerate=30/1")
}

const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=30/1";

fn gate_and_bay() -> Value {
    json!({
        "zones": {"bay": {"polygon": [[0.3, 0], [0.7, 0], [0.7, 1], [0.3, 1]]}},
        "lines": {"gate": {"from": [0.5, 0], "to": [0.5, 1], "directions": {"left_to_right": "in", "right_to_left": "out"}}},
        "rules": {"occupied": {"zone": "bay", "enter_after_ms": 0, "leave_after_ms": 100}},
    })
}

fn everything() -> Value {
    json!({
        "zones": {"all": {"polygon": [[0, 0], [1, 0], [1, 1], [0, 1]]}},
        "rules": {"there": {"zone": "all", "enter_after_ms": 0, "leave_after_ms": 200, "update_every_s": 1}},
    })
}

fn story(events: &[Value]) -> Vec<String> {
    let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let tell = |event: &Value| {
        format!(
            "{} {}",
            word(event, "event"),
            word(event, "rule") + &word(event, "direction")
        )
    };
    events.iter().map(tell).collect()
}

#[test]
fn a_ball_that_swings_is_counted_in_both_directions_and_only_events_are_published() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    // Two missed frames in each swing, one of them on the line.
    let answer = |frame: u32| {
        if frame % 12 == 11 {
            no_ball()
        } else {
            ball_at(pendulum(frame))
        }
    };
    let answers: Vec<_> = (0..3 * SWING).map(answer).collect();
    let model = site.scripted_model(&model(&answers));
    let events = format!("events={}", gate_and_bay());
    let daemon = site.run(
        &broker.url(),
        &[
            "--model",
            model.to_str().unwrap(),
            "--gst",
            // A busy machine skips frames of a file in real time: the model gives its last answers to the spare ones.
            &frames(5 * SWING),
            "--set",
            &events,
            "--set",
            "publish_inferences=no",
            "--set",
            "iotcore_backoff=1",
            "--set",
            "publish_inference_base64_image=yes",
            "--set",
            "ei_shutdown_behavior=wait_for_restart",
            "--set",
            "metrics_sleeptime_ms=200",
        ],
    );
    observer.wait_for_status("paused", 1);
    // Six passes: each enters the zone, crosses the line and leaves.
    let events = observer.wait_for_count("/events", 18);
    let crossings: Vec<_> = events.iter().filter(|event| event["event"] == "cross").collect();
    let directions: Vec<_> = crossings
        .iter()
        .map(|event| event["direction"].as_str().unwrap())
        .collect();
    assert_eq!(directions, ["in", "out", "in", "out", "in", "out"]);
    assert_eq!(crossings[5]["totals"], json!({"in": {"thing": 3}, "out": {"thing": 3}}));
    let of_rule: Vec<_> = events
        .iter()
        .filter(|event| event["rule"] == "occupied")
        .cloned()
        .collect();
    assert_eq!(story(&of_rule), ["start occupied", "end occupied"].repeat(6));
    for pair in of_rule.chunks(2) {
        assert_eq!((&pair[0]["id"], &pair[0]["zone"]), (&pair[1]["id"], &json!("bay")));
        assert!(pair[0]["image"].is_string(), "{}", pair[0]);
        // Eight frames of the pendulum are inside, seven intervals; the rule waits 100 ms before it ends the event.
        let dwell = pair[1]["dwell_ms"].as_u64().unwrap();
        let open = pair[1]["ts"].as_u64().unwrap() - pair[1]["start_ts"].as_u64().unwrap();
        assert!((130..=open - 90).contains(&dwell), "{dwell} of {open}");
    }
    assert!(events.iter().all(|event| event["object_id"] == 1), "{events:?}");
    let metrics = observer.wait_for("model/metrics", "all events delivered", |metrics| {
        metrics["runner"]["events_delivered"] == 18
    });
    let runner = &metrics["runner"];
    assert_eq!(
        runner["event_counts"]["lines"],
        json!({"gate": {"in": {"thing": 3}, "out": {"thing": 3}}})
    );
    assert_eq!(
        runner["event_counts"]["rules"]["occupied"],
        json!({"started": 6, "open": 0})
    );
    assert_eq!((&runner["published"], &runner["delivered"]), (&json!(0), &json!(0)));
    assert!(observer.all("inference/output").is_empty());

    let counts = observer.command(&json!({"cmd": "reset_counts"}), |answer| answer.get("counts").is_some());
    assert_eq!(counts["counts"]["lines"]["gate"]["in"]["thing"], 3);
    let counts = observer.command(&json!({"cmd": "get_counts"}), |answer| answer.get("counts").is_some());
    assert_eq!(counts["counts"]["lines"], json!({"gate": {}}));
    daemon.stop();
}

#[test]
fn an_event_that_a_kill_interrupts_ends_with_the_next_start() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let model = site.scripted_model(&model(&[ball_at(0.5)]));
    let events = format!("events={}", everything());
    let arguments = ["--model", model.to_str().unwrap(), "--gst", LIVE, "--set", &events];
    let mut daemon = site.run(&broker.url(), &arguments);
    let started = observer.wait_for("/events", "a start", |event| event["event"] == "start");
    daemon.signal(Signal::KILL);
    daemon.wait_for_end(LIMIT);

    let daemon = site.run(&broker.url(), &arguments);
    let ended = observer.wait_for("/events", "an end", |event| event["event"] == "end");
    assert_eq!((&ended["id"], &ended["reason"]), (&started["id"], &json!("restart")));
    let again = observer.wait_for("/events", "another start", |event| {
        event["event"] == "start" && event["id"] != started["id"]
    });
    assert_ne!(again["start_id"], started["start_id"]);
    daemon.stop();
    let ended = observer.wait_for("/events", "an end by the stop", |event| event["reason"] == "stop");
    assert_eq!(ended["id"], again["id"]);
    let order: Vec<_> = observer
        .all("/events")
        .iter()
        .map(|seen| seen.json()["event"].clone())
        .collect();
    assert_eq!(order.iter().filter(|event| *event == "end").count(), 2, "{order:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_keep_their_order_while_the_broker_is_away() {
    let mut broker = MockBroker::start(Behaviour::default()).await;
    let site = Site::new();
    // The ball is there for three seconds, away for one, and there for two.
    let answers = [
        vec![ball_at(0.5); 90],
        vec![no_ball(); 30],
        vec![ball_at(0.5); 60],
        vec![no_ball(); 30],
    ]
    .concat();
    let model = site.scripted_model(&model(&answers));
    let events = format!("events={}", everything());
    let daemon = site.run(
        &broker.url(),
        &["--model", model.to_str().unwrap(), "--gst", LIVE, "--set", &events],
    );
    let is_event = |topic: &str| topic.ends_with("/events");
    broker
        .wait_for("the first start", LIMIT, |log| {
            log.iter()
                .filter_map(|entry| entry.published())
                .any(|publish| is_event(&publish.topic))
        })
        .await;
    broker.down().await;
    daemon.wait_for_line("the broker closed the connection");
    // While the ball leaves and comes again.
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    broker.up().await;
    let is_second_end = |payload: &[u8]| {
        let event: Value = serde_json::from_slice(payload).unwrap_or_default();
        event["event"] == "end" && event["object_id"] == 2
    };
    broker
        .wait_for("the second end", LIMIT, |log| {
            let published = log.iter().filter_map(|entry| entry.published());
            published
                .into_iter()
                .any(|publish| is_event(&publish.topic) && is_second_end(&publish.payload))
        })
        .await;
    let mut events: Vec<Value> = Vec::new();
    for entry in broker.log() {
        let Some(publish) = entry.published().filter(|publish| is_event(&publish.topic)) else {
            continue;
        };
        let event: Value = serde_json::from_slice(&publish.payload).unwrap();
        // What was not acknowledged comes again.
        if !events.contains(&event) {
            events.push(event);
        }
    }
    let without_updates: Vec<_> = events
        .iter()
        .filter(|event| event["event"] != "update")
        .cloned()
        .collect();
    assert_eq!(
        story(&without_updates),
        ["start there", "end there", "start there", "end there"]
    );
    assert!(events.len() >= 6, "updates too: {:?}", story(&events));
    assert!(
        events
            .windows(2)
            .all(|pair| pair[0]["ts"].as_u64() <= pair[1]["ts"].as_u64())
    );
    daemon.stop();
}

#[test]
fn a_command_sets_zones_that_stay_over_a_restart() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let model = site.scripted_model(&model(&[ball_at(0.5)]));
    let arguments = ["--model", model.to_str().unwrap(), "--gst", LIVE];
    let daemon = site.run(&broker.url(), &arguments);
    observer.wait_for_status("started", 1);
    let set = |value: Value| {
        let command = json!({"cmd": "set_events_config", "value": value});
        observer.command(&command, |answer| answer.get("events_config").is_some())
    };
    let mut wrong = everything();
    wrong["rules"]["there"]["zone"] = json!("al");
    let refused = set(wrong);
    assert!(
        refused["error"].as_str().unwrap().contains("did you mean `all`?"),
        "{refused}"
    );
    assert_eq!(refused["events_config"], Value::Null);
    let accepted = set(everything());
    assert_eq!(accepted["events_config"]["rules"]["there"]["leave_after_ms"], 200);
    let started = observer.wait_for("/events", "a start", |event| event["event"] == "start");
    daemon.stop();

    let daemon = site.run(&broker.url(), &arguments);
    observer.wait_for("/events", "a start of the next process", |event| {
        event["event"] == "start" && event["id"] != started["id"]
    });
    let none = set(json!("none"));
    assert_eq!(none["events_config"], Value::Null);
    observer.wait_for("/events", "an end", |event| event["reason"] == "configuration");
    daemon.stop();
}
