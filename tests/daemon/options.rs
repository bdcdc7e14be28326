//! Options of the existing runner, with the real binary.

use serde_json::{Value, json};

use crate::support::daemon::Site;
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::scripts::{boxed, hello, recorded};

/// A white picture twice as wide as it is high.
const WHITE: &str = "videotestsrc pattern=white num-buffers=3 ! video/x-raw,format=RGB,width=64,height=32";

/// Runs white frames through a 4 x 4 model with these `eiparams`. Returns the recorded requests and the log.
fn run(eiparams: &str) -> (Vec<Value>, String) {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let record = site.path().join("record");
    let model = site.scripted_model(&json!({"hello": hello(4, 4), "answers": [boxed(0.5)], "record": record}));
    let set = format!("eiparams={eiparams}");
    let daemon = site.run(
        &broker.url(),
        &[
            "--unthrottled",
            "--model",
            model.to_str().unwrap(),
            "--gst",
            WHITE,
            "--set",
            &set,
            "--set",
            "ei_shutdown_behavior=wait_for_restart",
        ],
    );
    observer.wait_for_status("paused", 1);
    let log = daemon.stop();
    (recorded(&record), log)
}

fn of_kind<'a>(requests: &'a [Value], kind: &str) -> Vec<&'a Value> {
    requests.iter().filter_map(|request| request.get(kind)).collect()
}

#[test]
fn thresholds_are_set_at_the_model_before_the_first_picture() {
    let (requests, _) = run("--greengrass --thresholds 4.min_score=0.25,18.min_anomaly_score=35");
    assert_eq!(requests[1]["set_threshold"], json!({"id": 4, "min_score": 0.25}));
    assert_eq!(requests[2]["set_threshold"], json!({"id": 18, "min_anomaly_score": 35}));
    assert_eq!(of_kind(&requests, "classify_shm").len(), 3);
}

#[test]
fn a_refused_threshold_is_logged_with_those_the_model_has() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let mut greeting = hello(4, 4);
    greeting["model_parameters"]["thresholds"] = json!([{"id": 18, "type": "object_detection", "min_score": 0.5}]);
    let refusal = json!({"ok": false});
    let model = site.scripted_model(&json!({"hello": greeting, "answers": [boxed(0.5)], "thresholds": refusal}));
    let set = "eiparams=--thresholds 99.min_score=0.3";
    let daemon = site.run(
        &broker.url(),
        &["--model", model.to_str().unwrap(), "--gst", WHITE, "--set", set],
    );
    let line = daemon.wait_for_line(r#"The model refused a threshold threshold="99.min_score""#);
    assert!(
        line.contains("Failed to handle message")
            && line.ends_with(r#"accepted="18.min_score=0.5 (object_detection)""#),
        "{line}"
    );
    daemon.stop();
}

#[test]
fn a_forced_resize_mode_replaces_that_of_the_model() {
    let white = 16_777_215.0;
    let rows = |mode: &str| {
        let (requests, _) = run(mode);
        let features = of_kind(&requests, "classify_shm")[0]["features"]
            .as_array()
            .unwrap()
            .clone();
        features.chunks(4).map(|row| row[1] == json!(white)).collect::<Vec<_>>()
    };
    assert_eq!(rows("--greengrass"), [true; 4], "the model says squash");
    assert_eq!(rows("--force-resize-mode fit-longest"), [false, true, true, false]);
}

#[test]
fn features_are_sent_as_json_without_shared_memory() {
    let (requests, _) = run("--shm-behavior never");
    assert_eq!(of_kind(&requests, "classify").len(), 3);
    assert_eq!(of_kind(&requests, "classify_shm").len(), 0);
}

#[test]
fn predictions_are_logged_sometimes_unless_disabled() {
    let (_, log) = run("--greengrass");
    let logged: Vec<_> = log
        .lines()
        .filter(|line| line.contains(" Inference wall_ms="))
        .collect();
    assert_eq!(logged.len(), 1, "three inferences within ten seconds: {log}");
    assert!(logged[0].ends_with(r#"found="thing 0.50 at 1,2 3x4""#), "{logged:?}");
    let (_, log) = run("--dont-print-predictions");
    assert!(!log.contains(" Inference wall_ms="), "{log}");
}

#[test]
fn silent_leaves_warnings_and_verbose_adds_details() {
    let (_, log) = run("--silent --no-such-option");
    assert!(log.contains("--no-such-option") && !log.contains(" INFO "), "{log}");
    let (_, log) = run("--verbose --thresholds 4.min_score=0.25");
    let line = r#"Threshold set threshold="4.min_score" value=0.25"#;
    assert!(log.lines().any(|l| l.contains("DEBUG ") && l.contains(line)), "{log}");
}

#[test]
fn check_shows_the_meaning_of_every_option() {
    let site = Site::new();
    let options = [
        ("--greengrass", ""),
        ("--silent", ""),
        ("--verbose", ""),
        ("--model-file", "/a.eim"),
        ("--force-target", "runner-linux-aarch64"),
        ("--force-engine", "tflite"),
        ("--force-variant", "int8"),
        ("--quantized", ""),
        ("--impulse-id", "2"),
        ("--thresholds", "4.min_anomaly_score=35"),
        ("--force-resize-mode", "squash"),
        ("--force-camera-resolution", "1280,720"),
        ("--camera", "C920"),
        ("--microphone", "hw:1"),
        ("--gst-launch-args", "videotestsrc"),
        ("--preview-port", "4913"),
        ("--preview-host", "127.0.0.1"),
        ("--preview-original-resolution", ""),
        ("--dont-print-predictions", ""),
        ("--shm-behavior", "always"),
        ("--run-http-server", "1338"),
        ("--mode", "http-server"),
        ("--gst-source", "videotestsrc"),
        ("--camera-color-format", "YUY2"),
        ("--enable-camera", ""),
        ("--api-key", "ei_0123456789"),
    ];
    let text = options.map(|(option, value)| format!("{option} {value}")).join(" ");
    let mut command = site.command("check");
    let output = command.arg("--set").arg(format!("eiparams={text}")).output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    let section = report.split("\neiparams\n").nth(1).expect("a section for eiparams");
    let lines: Vec<_> = section
        .lines()
        .take_while(|line| line.starts_with("  "))
        .map(str::trim)
        .collect();
    for (option, _) in options {
        let line = lines.iter().find(|line| line.split([' ', ':']).next() == Some(option));
        assert!(line.is_some_and(|line| line.contains(": ")), "{option}: {lines:#?}");
    }
    assert!(!report.contains("ei_0123456789"));
}
