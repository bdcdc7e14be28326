//! Exact counts with a scripted model and a source of a known number of frames.

use serde_json::{Value, json};

use crate::support::daemon::Site;
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::scripts::{boxed, cycle, frames, nothing};

/// Runs `count` frames through a model that repeats `answers`. Returns all inference messages and the last metrics message.
fn run_through(answers: &[Value], count: u32, sets: &[&str]) -> (Vec<Value>, Value) {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let model = site.scripted_model(&cycle(answers));
    let source = frames(count);
    let mut arguments = vec![
        "--unthrottled",
        "--model",
        model.to_str().unwrap(),
        "--gst",
        &source,
        "--set",
        "ei_shutdown_behavior=wait_for_restart",
        "--set",
        "metrics_sleeptime_ms=200",
    ];
    for set in sets {
        arguments.extend(["--set", set]);
    }
    let daemon = site.run(&broker.url(), &arguments);
    observer.wait_for_status("paused", 1);
    let metrics = observer.wait_for("model/metrics", "all frames inferred", |metrics| {
        metrics["runner"]["inferences"] == json!(count)
            && metrics["runner"]["delivered"] == metrics["runner"]["published"]
    });
    daemon.stop();
    let messages = observer
        .all("inference/output")
        .iter()
        .map(|seen| seen.json())
        .collect();
    (messages, metrics)
}

#[test]
fn every_fifth_inference_is_published_by_default() {
    let (messages, metrics) = run_through(&[boxed(0.5), boxed(0.9)], 103, &[]);
    let totals: Vec<_> = messages
        .iter()
        .map(|m| m["total_inferences"].as_u64().unwrap())
        .collect();
    assert_eq!(totals, (1..=20).map(|n| n * 5).collect::<Vec<_>>());
    let runner = &metrics["runner"];
    assert_eq!((&runner["published"], &runner["gated"]), (&json!(20), &json!(83)));
    assert_eq!(runner["frames_captured"], 103);
    assert_eq!(metrics["details"]["n"], 103);
}

#[test]
fn filtered_and_empty_inferences_do_not_advance_the_gate() {
    // Of each round of four: one passes, one is too weak, one is empty, one passes.
    let answers = [boxed(0.9), boxed(0.2), nothing(), boxed(0.7)];
    let sets = [
        "enable_threshold_limit=yes",
        "default_threshold=0.7",
        "iotcore_backoff=3",
    ];
    let (messages, metrics) = run_through(&answers, 120, &sets);
    let runner = &metrics["runner"];
    assert_eq!((&runner["filtered"], &runner["empty"]), (&json!(30), &json!(30)));
    assert_eq!((&runner["published"], &runner["gated"]), (&json!(20), &json!(40)));
    assert_eq!(messages.len(), 20);
    assert!(messages.iter().all(|m| m["box"][0]["value"].as_f64().unwrap() >= 0.7));
    // Passing ones are the 1st and 4th of each round; every third of them: total counts one box each but the empty.
    assert_eq!(messages[0]["total_inferences"], 4);
}

#[test]
fn a_still_picture_is_inferred_frame_after_frame() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let still = "videotestsrc pattern=solid-color foreground-color=0xff336699 is-live=true ! video/x-raw,width=64,height=48,framerate=30/1";
    let model = site.scripted_model(&cycle(&[boxed(0.5)]));
    let daemon = site.run(
        &broker.url(),
        &[
            "--model",
            model.to_str().unwrap(),
            "--gst",
            still,
            "--set",
            "iotcore_backoff=1",
        ],
    );
    let messages = observer.wait_for_count("inference/output", 40);
    assert!(messages.windows(2).all(|pair| pair[0]["id"] != pair[1]["id"]));
    daemon.stop();
}
