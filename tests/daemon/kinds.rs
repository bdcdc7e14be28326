//! Every kind of model, from its answer to the message.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::daemon::Site;
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::scripts::{boxed, frames, hello, recorded};

struct Outcome {
    messages: Vec<Value>,
    log: String,
    record: PathBuf,
    _site: Site,
}

/// Runs a source through a scripted model to its end.
fn run(mut script: Value, source: &str) -> Outcome {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let record = site.path().join("record");
    script["record"] = json!(record);
    let model = site.scripted_model(&script);
    let daemon = site.run(
        &broker.url(),
        &[
            "--unthrottled",
            "--model",
            model.to_str().unwrap(),
            "--gst",
            source,
            "--set",
            "iotcore_backoff=1",
            "--set",
            "ei_shutdown_behavior=wait_for_restart",
        ],
    );
    observer.wait_for_status("paused", 1);
    let log = daemon.stop();
    let messages = observer
        .all("inference/output")
        .iter()
        .map(|seen| seen.json())
        .collect();
    Outcome {
        messages,
        log,
        record,
        _site: site,
    }
}

/// The message of one answer of a model of that type.
fn message(model_type: &str, answer: Value, more: Value) -> Value {
    let mut greeting = hello(8, 8);
    greeting["model_parameters"]["model_type"] = json!(model_type);
    let mut script = json!({"hello": greeting, "answers": [answer]});
    for (key, value) in more.as_object().unwrap() {
        script[key] = value.clone();
    }
    let outcome = run(script, &frames(1));
    assert_eq!(outcome.messages.len(), 1, "{}", outcome.log);
    let message = outcome.messages[0].clone();
    let kinds = ["freeform", "grid", "box", "c"];
    assert_eq!(
        kinds.iter().filter(|kind| message.get(**kind).is_some()).count(),
        1,
        "{message}"
    );
    message
}

fn found(label: &str, value: f64, x: i64) -> Value {
    json!({"label": label, "value": value, "x": x, "y": 0, "width": 1, "height": 1})
}

#[test]
fn centroids_of_a_fomo_model_are_published_as_boxes() {
    let boxes = json!([found("face", 0.75, 1), found("face", 0.5, 4)]);
    let message = message(
        "constrained_object_detection",
        json!({"bounding_boxes": boxes}),
        json!({}),
    );
    assert_eq!(message["box"], boxes);
    assert_eq!(
        (&message["inference_count"], &message["time_ms"]),
        (&json!(2), &json!(3))
    );
}

#[test]
fn a_classification_is_published_with_its_anomaly() {
    let answer = json!({"classification": {"b": 0.25, "a": 0.75}, "anomaly": -0.5});
    let message = message("classification", answer, json!({}));
    assert_eq!(
        message["c"].to_string(),
        r#"{"b":0.25,"a":0.75}"#,
        "in the model's order"
    );
    assert_eq!(
        (&message["anomaly"], &message["inference_count"]),
        (&json!(-0.5), &json!(1))
    );
}

#[test]
fn visual_anomalies_are_published_as_a_grid_with_maximum_and_mean() {
    let grid = json!([found("anomaly", 4.5, 0), found("anomaly", 3.5, 2)]);
    let answer = json!({"visual_anomaly_grid": grid, "visual_anomaly_max": 4.5, "visual_anomaly_mean": 1.25,
        "classification": {"normal": 0.5}});
    let message = message("classification", answer, json!({}));
    assert_eq!(message["grid"], grid);
    assert_eq!(
        (&message["visual_anomaly_max"], &message["visual_anomaly_mean"]),
        (&json!(4.5), &json!(1.25))
    );
    assert_eq!(message["inference_count"], 2);
}

#[test]
fn a_model_that_answers_only_anomaly_is_published() {
    let script = json!({"hello": hello(8, 8), "answers": [{"anomaly": 2.5}]});
    let outcome = run(script, &frames(1));
    assert_eq!(outcome.messages.len(), 1, "{}", outcome.log);
    assert_eq!(outcome.messages[0]["anomaly"], 2.5);
}

#[test]
fn freeform_values_are_read_from_shared_memory() {
    let more = json!({"freeform_shm": [[0.5, -1.25], [3.0]]});
    let message = message("freeform", json!({"freeform": "shm"}), more);
    assert_eq!(message["freeform"], json!([[0.5, -1.25], [3.0]]));
    assert_eq!(message["inference_count"], 2);
}

#[test]
fn tracked_objects_replace_raw_boxes() {
    let mut tracked = found("car", 0.875, 3);
    tracked["object_id"] = json!(17);
    let answer = json!({"bounding_boxes": [found("car", 0.5, 1), found("car", 0.5, 2)], "object_tracking": [tracked]});
    let message = message("object_detection", answer, json!({}));
    assert_eq!(message["box"], json!([tracked]));
    assert_eq!(message["inference_count"], 1);
}

#[test]
fn a_model_that_needs_several_pictures_is_refused_once_and_the_daemon_stays_up() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let mut greeting = hello(8, 8);
    greeting["model_parameters"]["image_input_frames"] = json!(4);
    let model = site.scripted_model(&json!({"hello": greeting}));
    let daemon = site.run(
        &broker.url(),
        &[
            "--model",
            model.to_str().unwrap(),
            "--gst",
            &frames(9),
            "--set",
            "metrics_sleeptime_ms=200",
        ],
    );
    let reason = "the model takes 4 pictures at a time (image_input_frames)";
    let line = daemon.wait_for_line(reason);
    assert!(line.contains(" ERROR "), "{line}");
    let metrics = observer.wait_for("model/metrics", "the state of the model", |metrics| {
        metrics["runner"]["health"]["model"] == "unsupported-model"
    });
    assert!(metrics["runner"]["problems"].to_string().contains(reason), "{metrics}");
    assert_eq!(metrics["runner"]["model_restarts"], 0);
    let log = daemon.stop();
    assert_eq!(log.matches("The model is not supported").count(), 1, "{log}");
}

#[test]
fn check_describes_the_model_and_refuses_one_for_another_sensor() {
    let site = Site::new();
    let check = |hello: Value| {
        let model = site.scripted_model(&json!({"hello": hello}));
        let mut command = site.command("check");
        command.args(["--model", model.to_str().unwrap(), "--gst", &frames(1)]);
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (code, report) = check(hello(8, 6));
    assert_eq!(code, Some(0), "{report}");
    assert!(
        report.contains("Scripted v7, object_detection; takes pictures of 8 x 6, RGB, resize mode squash"),
        "{report}"
    );

    let mut of_motion = hello(8, 8);
    of_motion["model_parameters"]["sensor"] = json!(2);
    let (code, report) = check(of_motion);
    assert_eq!(code, Some(2), "{report}");
    assert!(
        report.contains("`run` starts and stays idle: the model works on sensor \"accelerometer\""),
        "{report}"
    );

    let mut of_video = hello(8, 8);
    of_video["model_parameters"]["image_input_frames"] = json!(4);
    let (code, report) = check(of_video);
    assert_eq!(code, Some(2), "{report}");
    assert!(
        report.contains("`run` starts and stays idle: the model takes 4 pictures at a time"),
        "{report}"
    );
}

#[test]
fn a_threshold_above_one_is_the_score_itself_for_an_anomaly_model() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let mut greeting = hello(8, 8);
    greeting["model_parameters"]["has_anomaly"] = json!(3);
    let model = site.scripted_model(&json!({"hello": greeting}));
    let line = frames(1);
    let arguments = [
        "--model",
        model.to_str().unwrap(),
        "--gst",
        &line,
        "--set",
        "default_threshold=3",
    ];
    let output = site.command("check").args(arguments).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(
        report.contains("the confidence filter reads its threshold 3 as a score: scores are compared with 3"),
        "{report}"
    );
    let daemon = site.run(&broker.url(), &arguments);
    let line = daemon.wait_for_line("The threshold of the confidence filter is interpreted");
    assert!(line.contains("reading=\"score\""), "{line}");
    observer.send_raw(json!({"cmd": "get_threshold_filter_config"}).to_string(), false);
    let answer = observer.wait_for_answers(1).remove(0);
    let config = &answer["result"]["threshold_filter_config"];
    assert_eq!(
        (&config["confidence_threshold"], &config["threshold_reading"]),
        (&json!(3.0), &json!("score"))
    );
    daemon.stop();
}

#[test]
fn get_model_info_has_the_thresholds_in_force() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let mut greeting = hello(8, 8);
    greeting["model_parameters"]["thresholds"] = json!([{"id": 18, "type": "object_detection", "min_score": 0.5}]);
    let model = site.scripted_model(&json!({"hello": greeting}));
    let line = "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=30/1";
    let eiparams = "eiparams=--thresholds 18.min_score=0.25";
    let arguments = ["--model", model.to_str().unwrap(), "--gst", line, "--set", eiparams];
    let daemon = site.run(&broker.url(), &arguments);
    observer.wait_for_status("started", 1);
    observer.send_raw(json!({"cmd": "get_model_info"}).to_string(), false);
    let answer = observer.wait_for_answers(1).remove(0);
    let thresholds = &answer["result"]["model_info"]["model_params"]["thresholds"];
    assert_eq!(
        thresholds,
        &json!([{"id": 18, "type": "object_detection", "min_score": 0.25}])
    );
    daemon.stop();
}

#[test]
fn model_info_escapes_labels_and_names_the_anomaly_detection() {
    let site = Site::new();
    let info = |anomaly: u64, label: &str| {
        let mut greeting = hello(8, 8);
        let parameters = &mut greeting["model_parameters"];
        parameters["has_anomaly"] = json!(anomaly);
        parameters["model_type"] = json!("classification");
        parameters["labels"] = json!([label, "b"]);
        let model = site.scripted_model(&json!({"hello": greeting}));
        let output = site
            .bare_command()
            .args(["model", "info"])
            .arg(&model)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shown = info(1, "a\u{1b}[2J\n\u{202e}");
    assert!(shown.contains("\nlabels     a\\u{1b}[2J\\n\\u{202e}, b\n"), "{shown}");
    assert!(
        shown.contains("\ntype       classification\nanomaly    K-means (1)\n"),
        "{shown}"
    );
    let shown = info(3, "a");
    assert!(
        shown.contains("\ntype       visual anomaly detection (model_type classification)\n"),
        "{shown}"
    );
    assert!(shown.contains("\nanomaly    visual GMM (3)\n"), "{shown}");
    assert!(info(0, "a").contains("\nanomaly    none\n"));
}

#[test]
fn an_executable_script_starts_a_model() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let model = site.scripted_model(&json!({"hello": hello(8, 8), "answers": [boxed(0.5)]}));
    let script = site.write("start.sh", format!("#!/bin/sh\nexec '{}' \"$1\"\n", model.display()));
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let line = "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=30/1";
    let daemon = site.run(&broker.url(), &["--model", script.to_str().unwrap(), "--gst", line]);
    observer.wait_for_status("started", 1);
    daemon.stop();
}

#[test]
fn check_reports_a_missing_model_and_a_broken_source_as_run_does() {
    let site = Site::new();
    let check = |code: i32, arguments: &[&str]| {
        let output = site.command("check").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let report = check(0, &["--model", "/nonexistent.eim", "--gst", &frames(1)]);
    assert!(
        report.contains("Warnings\n  the model file /nonexistent.eim (ei_local_model_file) is missing"),
        "{report}"
    );
    for (model, line, expected) in [
        (
            "builtin:ball",
            "audiotestsrc ! audioconvert",
            "the pipeline ends in audio/x-raw",
        ),
        (
            "builtin:ball",
            "videotestsrc ! pngenc",
            "the pipeline ends in image/png",
        ),
        ("builtin:audio", "videotestsrc ! videoconvert", "could not link"),
    ] {
        let report = check(2, &["--model", model, "--gst", line]);
        assert!(
            report.contains(expected) && report.contains("infers nothing until its source works: see Source"),
            "{report}"
        );
    }
    let arguments = [
        "--model",
        "builtin:audio",
        "--gst",
        "filesrc location=/x.wav ! decodebin",
    ];
    let report = check(0, &arguments);
    assert!(
        report.contains("it infers nothing while /x.wav is not there"),
        "{report}"
    );
    assert!(
        report.contains("decodebin ! audioconvert") && report.contains("rate=16000"),
        "{report}"
    );
    let report = check(0, &["--model", "builtin:ball", "--gst", "nosuchsrc ! videoconvert"]);
    assert!(
        report.contains("infers nothing until its source works: see Source"),
        "{report}"
    );
}

/// Three frames of 8 x 4, then three of 6 x 6.
const TWO_SIZES: &str = "videotestsrc num-buffers=3 ! video/x-raw,format=RGB,width=8,height=4,framerate=30/1 ! c. \
    videotestsrc num-buffers=3 ! video/x-raw,format=RGB,width=6,height=6,framerate=30/1 ! c. concat name=c";

fn of_any_size(takes_sizes: bool) -> Outcome {
    let mut greeting = hello(8, 8);
    greeting["model_parameters"]["image_resize_mode"] = json!("none");
    let script = json!({"hello": greeting, "answers": [boxed(0.5)], "parameters": {"ok": takes_sizes}});
    run(script, TWO_SIZES)
}

/// What the model received after the hello: sizes, and the number of values.
fn received(outcome: &Outcome) -> Vec<Value> {
    let lines = recorded(&outcome.record);
    let line = |line: &Value| {
        line.get("set_parameter")
            .or_else(|| line.get("classify_shm")?.get("count"))
            .cloned()
    };
    lines.iter().filter_map(line).collect()
}

#[test]
fn a_model_of_any_size_receives_each_new_size_of_the_camera() {
    let outcome = of_any_size(true);
    let size = |width: u32, height: u32| json!({"image_width": width, "image_height": height, "image_channels": 3});
    let expected = json!([size(8, 4), 32, 32, 32, size(6, 6), 36, 36, 36]);
    assert_eq!(Value::Array(received(&outcome)), expected);
    assert_eq!(outcome.messages.len(), 6);
}

#[test]
fn a_model_that_refuses_sizes_gets_pictures_of_its_own_size() {
    let outcome = of_any_size(false);
    let size = json!({"image_width": 8, "image_height": 4, "image_channels": 3});
    assert_eq!(
        Value::Array(received(&outcome)),
        json!([size, 64, 64, 64, 64, 64]),
        "the frame in hand is dropped"
    );
    let line = outcome.log.lines().find(|line| line.contains("pictures are squashed"));
    assert!(
        line.is_some_and(|line| line.contains("model_width=8 model_height=8")),
        "{}",
        outcome.log
    );
}
