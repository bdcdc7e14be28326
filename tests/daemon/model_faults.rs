//! Models that end, do not answer, or send invalid answers.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::stage::{CAMERA, Stage, lines};
use crate::support::daemon::{Daemon, Site};
use crate::support::leftovers::{children_of, model_of, wait_until};
use crate::support::scripts::{boxed, cycle, frames, hello, script};

/// One colour, exactly.
fn plain(argb: u32) -> String {
    format!(
        "videotestsrc is-live=true pattern=solid-color foreground-color={argb:#x} \
         ! video/x-raw,format=RGB,width=64,height=48,framerate=30/1"
    )
}

/// A model of this size that records its requests, and the file of the recording.
fn recording(site: &Site, width: u32, height: u32, change: impl FnOnce(&mut Value)) -> (PathBuf, PathBuf) {
    let record = site.path().join(format!("record-{}", uuid::Uuid::new_v4().simple()));
    let mut script = script(&[boxed(0.5)]);
    script["hello"] = hello(width, height);
    script["record"] = json!(record);
    change(&mut script);
    (site.scripted_model(&script), record)
}

fn recorded(record: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(record).unwrap_or_default();
    // The last line may be incomplete.
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The values of the first request of this kind.
fn features(record: &Path, kind: &str) -> Vec<u32> {
    let mut found = None;
    wait_until("the model was asked", || {
        found = recorded(record).into_iter().find(|request| request.get(kind).is_some());
        found.is_some()
    });
    let features = found.unwrap()[kind]["features"].clone();
    let values = features.as_array().expect("at most 64 values");
    values.iter().map(|value| value.as_f64().unwrap() as u32).collect()
}

#[test]
fn a_model_that_is_killed_is_started_again_and_counting_continues() {
    let stage = Stage::new();
    let model = stage.site.scripted_model(&script(&[boxed(0.5)]));
    let daemon = stage.run(model, CAMERA, &[]);
    let before = stage.observer.wait_for_count("inference/output", 5).len();
    let pid = model_of(daemon.pid());
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    stage.observer.wait_for_status("started", 2);
    assert_ne!(model_of(daemon.pid()), pid);
    let figures = stage.wait_for_figures("a restart", |runner| runner["model_restarts"] == 1);
    assert_eq!(figures["capture_restarts"], 0);
    let messages = stage.observer.wait_for_count("inference/output", before + 20);
    let totals: Vec<_> = messages
        .iter()
        .map(|m| m["total_inferences"].as_u64().unwrap())
        .collect();
    assert!(totals.windows(2).all(|pair| pair[0] < pair[1]), "{totals:?}");
    let log = daemon.stop();
    assert_eq!(lines(&log, "WARN", "SIGKILL").len(), 1);
}

#[test]
fn a_model_that_crashes_repeatedly_is_restarted_each_time_and_logged_once() {
    let stage = Stage::new();
    let daemon = stage.run("builtin:crash=5", CAMERA, &[]);
    stage.observer.wait_for_status("started", 3);
    stage.wait_for_figures("two restarts", |runner| runner["model_restarts"].as_u64() >= Some(2));
    // The ball is not in the picture: answers are empty, and counted nevertheless.
    stage.wait_for_figures("three lives", |runner| runner["inferences"].as_u64() > Some(10));
    let log = daemon.stop();
    let logged = lines(&log, "WARN", "The model failed and restarts");
    assert_eq!(logged.len(), 1, "{logged:?}");
    assert!(logged[0].contains("signal 6"), "the exit status: {}", logged[0]);
    assert!(
        logged[0].contains("Assertion `the model is well' failed."),
        "the output: {}",
        logged[0]
    );
}

#[test]
fn a_model_that_sends_invalid_data_is_stopped_and_restarted() {
    let stage = Stage::new();
    let daemon = stage.run("builtin:garbage", CAMERA, &[]);
    let first = model_of(daemon.pid());
    let figures = stage.wait_for_figures("two restarts", |runner| runner["model_restarts"].as_u64() >= Some(2));
    assert!(
        figures["frames_dropped"].as_u64() >= Some(2),
        "one frame per restart: {figures}"
    );
    assert_eq!(figures["inferences"], 0);
    assert!(!children_of(daemon.pid()).contains(&first));
    let log = daemon.stop();
    assert_eq!(lines(&log, "WARN", "The model failed and restarts").len(), 1);
}

#[test]
fn the_exit_status_and_the_last_output_are_in_the_log() {
    let stage = Stage::new();
    let mut script = script(&[json!({"exit": 3})]);
    script["stderr"] = json!(["a first line", "license server: no seat left"]);
    let daemon = stage.run(stage.site.scripted_model(&script), CAMERA, &[]);
    let line = daemon.wait_for_line("The model failed and restarts");
    assert!(line.contains("exit status 3"), "{line}");
    assert!(line.contains("license server: no seat left"), "{line}");
    daemon.stop();
}

#[test]
fn a_model_that_refuses_every_frame_is_restarted_with_few_log_lines() {
    let stage = Stage::new();
    let answers: Vec<_> = (0..50)
        .map(|i| json!({"error": format!("no room for tensor {i} at 0x7f{i:02x}")}))
        .collect();
    let daemon = stage.run(stage.site.scripted_model(&cycle(&answers)), CAMERA, &[]);
    daemon.wait_for_line("cannot be used and is skipped");
    let first = model_of(daemon.pid());
    let line = daemon.wait_for_line("The model failed and restarts");
    assert!(
        line.contains("refused all of") && line.contains("no room for tensor"),
        "{line}"
    );
    wait_until("another process", || {
        children_of(daemon.pid()).iter().any(|pid| *pid != first)
    });
    stage.wait_for_figures("a restart", |runner| runner["model_restarts"].as_u64() >= Some(1));
    let log = daemon.stop();
    let logged = lines(&log, "WARN", "cannot be used and is skipped").len();
    assert!((1..=2).contains(&logged), "once for each of the two: {logged}");
}

#[test]
fn a_model_that_refuses_a_frame_gets_the_next_one() {
    let stage = Stage::new();
    let answers = [boxed(0.5), json!({"error": "Input out of range"}), boxed(0.6)];
    let model = stage.site.scripted_model(&cycle(&answers));
    let sets = ["ei_shutdown_behavior=wait_for_restart"];
    let daemon = stage.run_unthrottled(model, &frames(30), &sets);
    stage.observer.wait_for_status("paused", 1);
    let figures = stage.wait_for_figures("all of them", |runner| runner["inferences"] == 20);
    assert_eq!(
        (&figures["frames_dropped"], &figures["model_restarts"]),
        (&json!(10), &json!(0))
    );
    assert_eq!(stage.observer.all("inference/output").len(), 20);
    let log = daemon.stop();
    assert_eq!(lines(&log, "WARN", "Input out of range").len(), 1);
}

#[test]
fn unusual_answers_are_cleaned_and_counted_and_not_fatal() {
    let unusual_box = |label: &str, value: Value| json!({"bounding_boxes": [{"label": label, "value": value, "x": 1, "y": 2, "width": 3, "height": 4}]});
    let one = json!({"label": "thing", "value": 0.5, "x": 1, "y": 2, "width": 3, "height": 4});
    let stage = Stage::new();
    let answers = [
        // Written as some JSON writers do. The hello had id 1.
        json!({"raw": "{\"id\":2,\"success\":true,\"result\":{\"classification\":{\"a\":NaN,\"b\":0.25}},\"timing\":{}}\n\0"}),
        unusual_box("null", Value::Null),
        unusual_box(&"x".repeat(1000), json!(0.5)),
        json!({"bounding_boxes": vec![one; 20_000]}),
        boxed(0.75),
    ];
    let model = stage.site.scripted_model(&script(&answers));
    let sets = ["ei_shutdown_behavior=wait_for_restart"];
    let daemon = stage.run_unthrottled(model, &frames(5), &sets);
    stage.observer.wait_for_status("paused", 1);
    let figures = stage.wait_for_figures("all of them", |runner| runner["inferences"] == 5);
    assert_eq!(
        (&figures["frames_dropped"], &figures["model_restarts"]),
        (&json!(0), &json!(0))
    );
    // Two scores, a label, and at least one for the boxes beyond the limit.
    assert!(figures["answers_cleaned"].as_u64() >= Some(4), "{figures}");
    let messages = stage.observer.wait_for_count("inference/output", 3);
    assert_eq!(messages[0]["c"]["b"], 0.25);
    assert!(
        messages[0]["c"]["a"].as_f64().is_none_or(f64::is_finite),
        "{}",
        messages[0]
    );
    let long = messages
        .iter()
        .find_map(|m| m["box"][0]["label"].as_str().filter(|label| label.starts_with("xx")));
    assert_eq!(long, Some("x".repeat(256).as_str()));
    assert_eq!(messages.last().unwrap()["box"][0]["value"], 0.75);
    let metrics = stage
        .observer
        .wait_for("model/metrics", "after all", |m| m["runner"]["inferences"] == 5);
    assert!(metrics["mean_confidence"].as_f64().unwrap().is_finite());
    daemon.stop();
}

#[test]
fn the_values_that_reach_the_model_are_the_colours_with_and_without_shared_memory() {
    // Whether the model offers shared memory, the options, and the expected request.
    for (offered, eiparams, kind) in [
        (true, "--greengrass", "classify_shm"),
        (true, "--shm-behavior never", "classify"),
        (true, "--shm-behavior always", "classify_shm"),
        (false, "--greengrass", "classify"),
    ] {
        let stage = Stage::new();
        let (model, record) = recording(&stage.site, 8, 6, |script| script["shm"] = json!(offered));
        let daemon = stage.run(model, &plain(0xff33_6699), &[&format!("eiparams={eiparams}")]);
        assert_eq!(features(&record, kind), vec![0x33_6699; 48], "{eiparams}");
        let other = if kind == "classify" { "classify_shm" } else { "classify" };
        stage.observer.wait_for_count("inference/output", 3);
        assert!(recorded(&record).iter().all(|request| request.get(other).is_none()));
        daemon.stop();
    }
}

#[test]
fn a_grey_model_gets_the_luma_in_all_three_bytes() {
    let stage = Stage::new();
    let (model, record) = recording(&stage.site, 8, 6, |script| {
        script["hello"]["model_parameters"]["image_channel_count"] = json!(1);
    });
    let daemon = stage.run(model, &plain(0xff33_6699), &[]);
    for value in features(&record, "classify_shm") {
        // 0.299 * 0x33 + 0.587 * 0x66 + 0.114 * 0x99 = 92.6
        let grey = value & 0xff;
        assert_eq!(value, grey * 0x01_0101, "{value:#x}");
        assert!((92..=93).contains(&grey), "{grey}");
    }
    daemon.stop();
}

#[test]
fn missing_shared_memory_that_is_required_is_logged() {
    let stage = Stage::new();
    let (model, _) = recording(&stage.site, 8, 6, |script| script["shm"] = json!(false));
    let daemon = stage.run(model, CAMERA, &["eiparams=--shm-behavior always"]);
    let line = daemon.wait_for_line("--shm-behavior is \"always\"");
    assert!(
        line.contains("the model has no shared memory") && line.contains("use \"auto\""),
        "{line}"
    );
    daemon.stop();
}

#[test]
fn thresholds_reach_the_model_with_one_key_per_request() {
    let stage = Stage::new();
    let (model, record) = recording(&stage.site, 8, 6, |_| {});
    let thresholds = "eiparams=--greengrass --thresholds 4.min_score=0.25,4.min_anomaly_score=35,7.threshold=0.5";
    let daemon = stage.run(model, CAMERA, &[thresholds]);
    stage.observer.wait_for_status("started", 1);
    let set: Vec<_> = recorded(&record)
        .iter()
        .filter_map(|request| request.get("set_threshold").cloned())
        .collect();
    let expected = [
        json!({"id": 4, "min_score": 0.25}),
        json!({"id": 4, "min_anomaly_score": 35.0}),
        json!({"id": 7, "threshold": 0.5}),
    ];
    let numbers = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.clone(), v.as_f64()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        set.iter().map(numbers).collect::<Vec<_>>(),
        expected.iter().map(numbers).collect::<Vec<_>>()
    );
    daemon.stop();
}

#[test]
fn the_models_environment_has_no_credentials() {
    let stage = Stage::new();
    let dump = stage.site.path().join("environment");
    let (model, _) = recording(&stage.site, 8, 6, |script| script["dump_env"] = json!(dump));
    let mut command = stage.command(model, &[]);
    command.args(["--gst", CAMERA]);
    let hidden = [
        ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "hush"),
        ("AWS_SESSION_TOKEN", "hush"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hush"),
        ("SVCUID", "hush"),
        ("EI_API_KEY", "hush"),
        ("CONFIG_PARAMETERS", "{}"),
    ];
    let daemon = Daemon::start({
        command.envs(hidden);
        command
    });
    stage.observer.wait_for_status("started", 1);
    let seen: Value = serde_json::from_slice(&std::fs::read(dump).unwrap()).unwrap();
    for (name, _) in hidden {
        assert!(seen.get(name).is_none(), "{name}");
    }
    assert_eq!(seen["PATH"].as_str(), std::env::var("PATH").ok().as_deref());
    daemon.stop();
}

#[test]
fn the_socket_of_a_running_model_is_used_and_not_removed() {
    let stage = Stage::new();
    let socket = stage.site.path().join("running.sock");
    let mut model = Command::new(stage.site.scripted_model(&script(&[boxed(0.5)])))
        .arg(&socket)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("it listens", || socket.exists());
    let daemon = stage.run(&socket, CAMERA, &[]);
    stage.observer.wait_for_count("inference/output", 3);
    assert_eq!(children_of(daemon.pid()), Vec::<u32>::new());
    daemon.stop();
    let status = model.wait().unwrap();
    assert_eq!(
        (status.code(), status.signal()),
        (Some(0), None),
        "it ends by itself when its client disconnects"
    );
    assert!(socket.exists());
}

#[test]
fn each_resize_mode_gives_the_model_another_part_of_the_picture() {
    // White, 32 x 32, with a black bar of 16 at the left and at the right.
    let source = "videotestsrc is-live=true pattern=white ! video/x-raw,format=RGB,width=32,height=32,framerate=30/1 \
                  ! videobox left=-16 right=-16 fill=black ! video/x-raw,width=64,height=32";
    let is_white = |mode: &str, x: usize, y: usize| match mode {
        "squash" => (2..6).contains(&x),
        "fit-shortest" => true,
        _ => (2..6).contains(&x) && (2..6).contains(&y),
    };
    for mode in ["squash", "fit-shortest", "fit-longest"] {
        let stage = Stage::new();
        let (model, record) = recording(&stage.site, 8, 8, |_| {});
        let daemon = stage.run(model, source, &[&format!("eiparams=--force-resize-mode {mode}")]);
        for (place, value) in features(&record, "classify_shm").into_iter().enumerate() {
            let (x, y) = (place % 8, place / 8);
            // Filters smear over an edge; white stays bright and black dark.
            let green = value >> 8 & 0xff;
            assert_eq!(green > 0x80, is_white(mode, x, y), "{mode}, {x}, {y}: {value:#x}");
            assert!(!(0x30..0xd0).contains(&green), "{mode}, {x}, {y}: {value:#x}");
        }
        daemon.stop();
    }
}
