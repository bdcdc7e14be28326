//! What people really configure, and what they get wrong: readable answers, and a daemon that stays up.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, LIMIT, Site, scripted_model};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::scripts::{boxed, script};

const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=30/1";

/// How a program ended that ends by itself.
#[derive(Debug)]
struct Finished {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Finished {
    fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

/// Runs a command to its end.
#[track_caller]
fn finish(mut command: Command) -> Finished {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    let read = |mut stream: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = read(Box::new(child.stdout.take().expect("stdout")));
    let err = read(Box::new(child.stderr.take().expect("stderr")));
    let end = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            panic!("{command:?} does not end: {}", out.join().unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Finished {
        code: status.code(),
        out: out.join().unwrap(),
        err: err.join().unwrap(),
    }
}

/// A subcommand with nothing but these arguments.
fn bare(site: &Site, arguments: &[&str]) -> Command {
    let mut command = site.bare_command();
    command.args(arguments);
    command
}

/// `check` with the settings of the site and these arguments.
fn check(site: &Site, arguments: &[&str]) -> Finished {
    let mut command = site.command("check");
    command.args(arguments);
    finish(command)
}

/// The lines below a title of `check`, without their indentation.
fn section(report: &str, title: &str) -> Vec<String> {
    let lines = report.lines().skip_while(|line| *line != title).skip(1);
    lines
        .take_while(|line| line.starts_with("  "))
        .map(|line| line.trim().to_owned())
        .collect()
}

/// The settings of a report of `check`: key, value, and where it comes from.
fn settings(report: &str) -> BTreeMap<String, (String, String)> {
    let lines = section(report, "Settings").into_iter();
    lines
        .map(|line| {
            let (key, rest) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
            let (value, origin) = rest.rsplit_once("  (").unwrap_or_else(|| panic!("{line}"));
            let origin = origin.trim_end_matches(')').split(';').next().unwrap_or_default();
            (key.trim().to_owned(), (value.trim().to_owned(), origin.to_owned()))
        })
        .collect()
}

fn tutorial() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tutorial-config.json")
}

/// The recipe that is shipped.
fn recipe() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/EdgeImpulseLinuxRunnerServiceComponent.yaml")
}

fn warnings(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
        .collect()
}

#[test]
fn without_any_configuration_run_and_check_say_where_they_looked() {
    let site = Site::new();
    for subcommand in ["run", "check"] {
        let ended = finish(bare(&site, &[subcommand]));
        assert_eq!(ended.code, Some(2), "{ended:?}");
        for word in ["--config", "CONFIG_PARAMETERS", "--set", "--model", "--mqtt", "--gst"] {
            assert!(ended.all().contains(word), "{subcommand}, {word}: {ended:?}");
        }
    }
}

#[test]
fn a_file_or_text_that_cannot_be_used_ends_with_2_and_says_where() {
    let site = Site::new();
    let broken = site.write("broken.json", "{\n\t\"device_name\": \"x\"\n\t\"iotcore_qos\": 1\n}\n");
    let yaml = site.write("broken.yaml", "device_name: x\nlaunch: [runner\niotcore_qos: 1\n");
    let words = site.write("words.txt", "just some words");
    let list = site.write("list.json", "[1, 2]");
    let bytes = site.write("bytes.json", b"\xff\xfe\x00{}");
    let recipe = site.write("recipe.yaml", "RecipeFormatVersion: \"2020-01-25\"\nManifests: []\n");
    let huge = site.write("huge.json", format!("{{\"device_name\": \"{}\"}}", "x".repeat(2 << 20)));
    let deep = site.write("deep.json", "[".repeat(100_000));
    for (path, words) in [
        (
            site.path().join("missing.json"),
            &["missing.json", "does not exist"][..],
        ),
        (site.path().to_owned(), &["cannot be read"]),
        (broken, &["broken.json", "line 3, column 2"]),
        (yaml, &["broken.yaml", "line 3, column"]),
        (words, &["words.txt", "a text", "object"]),
        (list, &["list.json", "a list"]),
        (bytes, &["bytes.json", "UTF-8"]),
        (recipe, &["recipe.yaml", "a recipe without ComponentConfiguration"]),
        (huge, &["huge.json", "longer than"]),
        (deep, &["deep.json", "line 1, column"]),
    ] {
        for subcommand in ["run", "check"] {
            let ended = finish(bare(&site, &[subcommand, "--config", path.to_str().unwrap()]));
            assert_eq!(ended.code, Some(2), "{path:?}: {ended:?}");
            for word in words {
                assert!(ended.all().contains(word), "{path:?} {word:?}: {ended:?}");
            }
            assert!(ended.all().len() < 2000, "{ended:?}");
        }
    }
    // The same for what Greengrass hands over.
    let mut command = bare(&site, &["run"]);
    command.env("CONFIG_PARAMETERS", "{\"launch\": \"runner\" \"x\": 1}");
    let ended = finish(command);
    assert_eq!(ended.code, Some(2));
    for word in ["CONFIG_PARAMETERS", "line 1, column 21"] {
        assert!(ended.out.contains(word), "{ended:?}");
    }
}

#[test]
fn a_wrong_launch_or_command_line_ends_with_2_and_says_what_is_accepted() {
    let site = Site::new();
    for subcommand in ["run", "check"] {
        for (arguments, words) in [
            (
                &["--set", "launch=camera"][..],
                &["launch", "camera", "runner", "linux"][..],
            ),
            (&["--set", "launch=linux"], &["linux", "not available", "runner"]),
            (&["--set", "iotcore_qos"], &["--set iotcore_qos", "KEY=VALUE"]),
            (&["--set", "=1"], &["KEY=VALUE"]),
            (&["--no-such-flag"], &["--no-such-flag"]),
            (&["--model"], &["--model"]),
            (&["word"], &["word"]),
            (&["--model", "builtin:nonsense"], &["nonsense", "ball"]),
        ] {
            let mut command = bare(&site, &[subcommand]);
            command.args(arguments);
            let ended = finish(command);
            assert_eq!(ended.code, Some(2), "{subcommand} {arguments:?}: {ended:?}");
            for word in words {
                assert!(
                    ended.all().contains(word),
                    "{subcommand} {arguments:?} {word:?}: {ended:?}"
                );
            }
        }
    }
    assert_eq!(finish(bare(&site, &["--set", "a=b"])).code, Some(2));
    assert_eq!(finish(bare(&site, &["reboot"])).code, Some(2));
    assert_eq!(finish(bare(&site, &[])).code, Some(2));
}

#[test]
fn a_lock_file_that_cannot_be_made_ends_with_2_and_says_why() {
    let site = Site::new();
    site.write("file", "");
    for (lock, why) in [("no/such/lock", "directory does not exist"), ("file/lock", "directory")] {
        let mut command = site.command("run");
        command.args(["--model", "builtin:ball", "--gst", LIVE, "--mqtt", "mqtt://127.0.0.1:9"]);
        command
            .arg("--set")
            .arg(format!("lock_filename={}", site.path().join(lock).display()));
        let ended = finish(command);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        for word in [lock, why, "lock_filename"] {
            assert!(ended.out.contains(word), "{word:?}: {ended:?}");
        }
    }
}

/// What there is to do with a command that runs the daemon: it publishes, then it stops.
fn publishes(site: &Site, broker: &Mosquitto, mut command: Command) -> String {
    let observer = Observer::connect(broker.port, site.device());
    let model = site.scripted_model(&script(&[boxed(0.6)]));
    command
        .args(["--mqtt", &broker.url(), "--gst", LIVE])
        .arg("--model")
        .arg(model);
    let daemon = Daemon::start(command);
    let messages = observer.wait_for_count("inference/output", 2);
    // iotcore_backoff is 5 in all of them.
    assert_eq!(
        (&messages[0]["total_inferences"], &messages[1]["total_inferences"]),
        (&json!(5), &json!(10))
    );
    daemon.stop()
}

/// Gives the configuration to a command.
type HandOver<'a> = &'a dyn Fn(&Site, &mut Command);

#[test]
fn the_tutorials_configuration_runs_byte_for_byte_however_it_is_handed_over() {
    let broker = Mosquitto::start();
    let text = std::fs::read_to_string(tutorial()).expect("the tutorial");
    assert!(
        text.contains('\t') && text.contains(",\n\t\t}"),
        "with its tabs and its last comma"
    );
    let percentage = "`default_threshold` 50 is read as a percentage: the confidence is compared with 0.5";
    let ways: [(&str, HandOver<'_>); 4] = [
        ("a file", &|_, command| {
            command.arg("--config").arg(tutorial());
        }),
        ("the environment", &|_, command| {
            command.env("CONFIG_PARAMETERS", &text);
        }),
        ("in Parameters", &|site, command| {
            let path = site.write("component.json", format!("{{\"Parameters\": {text}}}"));
            command.arg("--config").arg(path);
        }),
        ("the recipe", &|_, command| {
            command.arg("--config").arg(recipe());
        }),
    ];
    for (name, hand_over) in ways {
        let site = Site::new();
        let mut command = site.command("run");
        hand_over(&site, &mut command);
        let log = publishes(&site, &broker, command);
        assert_eq!(warnings(&log), Vec::<&str>::new(), "{name}");
        let notes: Vec<_> = log
            .lines()
            .filter(|line| line.contains("`default_threshold`"))
            .collect();
        // The recipe says 0.7, which needs no explanation.
        assert_eq!(notes.len(), usize::from(name != "the recipe"), "{name}: {log}");
        assert!(
            notes
                .iter()
                .all(|note| note.contains(" INFO ") && note.ends_with(percentage)),
            "{notes:?}"
        );
    }
    // `--config` wins over the environment.
    let site = Site::new();
    let mut command = bare(&site, &["config", "get", "default_threshold", "--config"]);
    command.arg(recipe()).env("CONFIG_PARAMETERS", &text);
    assert_eq!(finish(command).out, "0.7\n");
}

#[test]
fn every_value_of_the_tutorial_may_come_as_text_or_typed() {
    let site = Site::new();
    let plain = check(&site, &["--config", tutorial().to_str().unwrap()]);
    let text = std::fs::read_to_string(tutorial()).unwrap();
    let (comma, rest) = text
        .rsplit_once(',')
        .map(|(start, end)| (start.to_owned(), end))
        .unwrap();
    let typed: Value = serde_json::from_str(&(comma + rest)).expect("JSON without the last comma");
    let as_text: serde_json::Map<_, _> = typed
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| {
            let text = value.as_f64().map(|number| format!("{number:.15}"));
            (key.clone(), text.map_or(value.clone(), Value::String))
        })
        .collect();
    assert_eq!(as_text["default_threshold"], "50.000000000000000");
    let loose: serde_json::Map<_, _> = typed
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| {
            let loose = match value.as_str() {
                Some("no") => json!(false),
                Some("__none__") => Value::Null,
                Some(text) if !key.ends_with("version") => text.parse::<f64>().map_or(value.clone(), |n| json!(n)),
                _ => value.clone(),
            };
            (key.clone(), loose)
        })
        .collect();
    for values in [as_text, loose] {
        let path = site.write("values.json", Value::Object(values).to_string());
        let report = check(&site, &["--config", path.to_str().unwrap()]);
        assert_eq!(section(&report.out, "Warnings"), Vec::<String>::new());
        assert_eq!(settings(&report.out), settings(&plain.out));
    }
}

#[test]
fn each_bad_value_is_one_warning_and_the_daemon_runs() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let bad = [
        ("iotcore_qos", "2", "1"),
        ("iotcore_backoff", "often", "5"),
        ("sleep_time_sec", "-3", "10"),
        ("metrics_sleeptime_ms", "50", "60000"),
        ("default_threshold", "0", "0.7"),
        ("threshold_criteria", "between", "ge"),
        ("ei_shutdown_behavior", "explode", "none"),
        ("enable_cache_to_file", "maybe", "no"),
        ("publish_inference_base64_image", "2", "no"),
        ("cache_file_max_mb", "-1", "1024"),
        ("preview_port", "99999", "4912"),
        ("iotcore_qoss", "1", "iotcore_qos"),
        ("no_such_key", "1", "ignored"),
    ];
    let mut command = site.command("run");
    for (key, value, _) in bad {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    let log = publishes(&site, &broker, command);
    for (key, value, used) in bad {
        let lines: Vec<_> = log
            .lines()
            .filter(|line| line.contains(&format!("`{key}` is ")))
            .collect();
        let [line] = lines.as_slice() else {
            panic!("{key}: {lines:?}")
        };
        assert!(
            line.contains(" WARN ") && line.contains(value) && line.contains("accepted: "),
            "{line}"
        );
        let instead = line.split("used instead:").nth(1).unwrap_or_default();
        assert!(instead.contains(used) || line.contains(used), "{line}");
    }
    assert_eq!(warnings(&log).len(), bad.len(), "{:?}", warnings(&log));
}

#[test]
fn a_pipeline_that_gstreamer_refuses_is_told_and_tried_again() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let model = site.scripted_model(&script(&[boxed(0.6)]));
    let more = |source: &'static str| {
        [
            "--model",
            model.to_str().unwrap(),
            "--set",
            source,
            "--set",
            "metrics_sleeptime_ms=200",
        ]
    };
    let gone = "gst_args=nosuchsrc:device=/dev/video0:!:video/x-raw,width=640:!:nvarguscamerasrc:!:videoconvert";
    let daemon = site.run(&broker.url(), &more(gone));
    let line = daemon.wait_for_line("\"nosuchsrc\"");
    for word in [
        "not installed",
        "\"nvarguscamerasrc\" (in nvidia-l4t-gstreamer",
        "nosuchsrc device=/dev/video0 ! video/x-raw,width=640 !",
    ] {
        assert!(line.contains(word), "{word:?} in {line}");
    }
    // It stays up and tries again.
    observer.wait_for("model/metrics", "the third attempt", |json| {
        json["runner"]["capture_restarts"].as_u64() >= Some(2)
    });
    daemon.stop();

    for (line, words) in [
        (
            "gst_args=videotestsrc:no-such-property=1:!:videoconvert",
            "no property \"no-such-property\"",
        ),
        ("gst_args=videotestsrc:!:!:videoconvert", "syntax error"),
        ("gst_args=audiotestsrc:!:jpegdec", "audiotestsrc"),
        ("gst_args=filesrc:location=/no/such/file:!:decodebin", "/no/such/file"),
        ("gst_args=v4l2src:device=/dev/video97:!:videoconvert", "/dev/video97"),
    ] {
        let mut daemon = site.run(&broker.url(), &more(line));
        let told = daemon.wait_for_line("the source is started again in");
        assert!(told.contains(words) && told.contains(" WARN "), "{told}");
        daemon.signal(rustix::process::Signal::TERM);
        let (status, took) = daemon.wait_for_end(LIMIT);
        assert_eq!(status.code(), Some(0));
        assert!(took < Duration::from_secs(4), "{took:?}");
    }
}

#[test]
fn a_source_that_appears_later_is_found() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let model = site.scripted_model(&script(&[boxed(0.6)]));
    let file = site.path().join("frames.raw");
    let source = format!(
        "filesrc location={} ! rawvideoparse format=i420 width=64 height=48 framerate=30/1",
        file.display()
    );
    let daemon = site.run(&broker.url(), &["--model", model.to_str().unwrap(), "--gst", &source]);
    daemon.wait_for_line("the source is started again in");
    site.write("unfinished", vec![128; 64 * 48 * 3 / 2 * 60]);
    std::fs::rename(site.path().join("unfinished"), &file).unwrap();
    observer.wait_for_status("started", 1);
    observer.wait_for_count("inference/output", 3);
    daemon.stop();
}

/// The head of a program for another machine.
fn elf(machine: u16) -> Vec<u8> {
    let mut head = b"\x7fELF\x02\x01\x01".to_vec();
    head.resize(16, 0);
    head.extend_from_slice(&[2, 0]);
    head.extend_from_slice(&machine.to_le_bytes());
    head.resize(4096, 0);
    head
}

/// A file that is no model is told in words by `check` and `run`; put a model in its place and it is started.
#[track_caller]
fn wrong_model(put: impl FnOnce(&Path), words: &[&str]) {
    wrong_model_told_by("the model is started again in", put, words, words);
}

/// `line` is part of the log line that tells, with all of `words`; `shown_words` are what `check` shows.
fn wrong_model_told_by(line: &str, put: impl FnOnce(&Path), words: &[&str], shown_words: &[&str]) {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let path = site.path().join("model.eim");
    put(&path);
    let arguments = [
        "--model",
        path.to_str().unwrap(),
        "--gst",
        LIVE,
        "--mqtt",
        &broker.url(),
    ];
    let report = check(&site, &arguments);
    let shown = section(&report.out, "Model").join(" ");
    assert_eq!(report.code, Some(0), "a model may still come: {report:?}");
    let daemon = site.run(&broker.url(), &arguments[..4]);
    let told = daemon.wait_for_line(line);
    for word in shown_words {
        assert!(shown.contains(word), "{word:?} in {shown}");
    }
    for word in words {
        assert!(told.contains(word) && told.contains(" WARN "), "{word:?} in {told}");
    }
    if path.is_dir() {
        std::fs::remove_dir(&path).unwrap();
    }
    let good = site.path().join("good.eim");
    std::fs::copy(scripted_model(), &good).unwrap();
    site.write("model.eim.json", script(&[boxed(0.6)]).to_string());
    std::fs::rename(good, &path).unwrap();
    observer.wait_for_status("started", 1);
    daemon.stop();
}

#[test]
fn a_model_for_another_machine_is_told_and_replaced() {
    let this = if cfg!(target_arch = "x86_64") {
        "x86-64"
    } else {
        "this machine is"
    };
    let other = if cfg!(target_arch = "x86_64") {
        (183, "built for aarch64")
    } else {
        (62, "built for x86-64")
    };
    wrong_model(
        |path| std::fs::write(path, elf(other.0)).unwrap(),
        &[other.1, this, "model.eim"],
    );
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_model_for_a_32_bit_arm_is_told_and_replaced() {
    wrong_model(
        |path| std::fs::write(path, elf(40)).unwrap(),
        &["built for ARM (32 bit)", "x86-64"],
    );
}

#[test]
fn a_web_page_in_place_of_a_model_is_told_and_replaced() {
    let page = "<!DOCTYPE html>\n<html><body>Please log in</body></html>";
    wrong_model(
        |path| std::fs::write(path, page).unwrap(),
        &["a web page", "Edge Impulse Studio"],
    );
}

#[test]
fn a_script_in_place_of_a_model_is_told_and_replaced() {
    wrong_model(
        |path| std::fs::write(path, "#!/bin/sh\nexit 0\n").unwrap(),
        &["a script"],
    );
}

#[test]
fn a_directory_in_place_of_a_model_is_told_and_replaced() {
    wrong_model(|path| std::fs::create_dir(path).unwrap(), &["a directory"]);
}

#[test]
fn a_missing_model_is_told_and_started_when_it_appears() {
    let words = ["model.eim", "ei_local_model_file"];
    wrong_model_told_by("is missing", |_| {}, &words, &["model.eim"]);
}

#[test]
fn a_model_for_another_sensor_is_named_and_the_daemon_stays_up_until_another_comes() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let mut wrong = script(&[boxed(0.6)]);
    let parameters = &mut wrong["hello"]["model_parameters"];
    parameters["sensor"] = json!(2);
    for key in ["image_input_width", "image_input_height", "image_channel_count"] {
        parameters[key] = json!(0);
    }
    let model = site.scripted_model(&wrong);
    let arguments = [
        "--model",
        model.to_str().unwrap(),
        "--gst",
        LIVE,
        "--set",
        "metrics_sleeptime_ms=200",
    ];
    let daemon = site.run(&broker.url(), &arguments);
    let line = daemon.wait_for_line("accelerometer");
    assert!(line.contains(" ERROR ") && line.contains("Scripted v7"), "{line}");
    let told = observer.all("model/metrics").len();
    observer.wait_for_count("model/metrics", told + 5);
    assert_eq!(daemon.log().matches("accelerometer").count(), 1, "once");
    // It can still be asked, and told that there is another model now.
    observer.send_raw(json!({"cmd": "get_model_info"}).to_string(), false);
    let answer = observer.wait_for_answers(1).remove(0);
    assert_eq!(
        answer["result"]["model_info"]["model_params"]["sensorType"],
        "accelerometer"
    );
    let name = model.file_name().unwrap().to_str().unwrap();
    site.write(&format!("{name}.json"), script(&[boxed(0.6)]).to_string());
    observer.send_raw(json!({"cmd": "restart"}).to_string(), false);
    observer.wait_for_status("started", 1);
    daemon.stop();
}

#[test]
fn check_lists_every_setting_with_its_origin_and_what_run_refuses() {
    let (site, config) = (Site::new(), tutorial());
    let more = [
        "--config",
        config.to_str().unwrap(),
        "--mqtt",
        "mqtt://camera:hunter2@localhost:1883",
        "--gst",
        "rtspsrc location=rtsp://viewer:swordfish@10.0.0.5:8554/cam latency=0 ! decodebin ! videoconvert",
        "--set",
        "eiparams=--greengrass --api-key ei_opensesame --microphone default",
        "--set",
        "preview_token=letmein",
        "--set",
        "preview=yes",
        "--set",
        "enable_cache_to_s3=yes",
        "--set",
        "s3_bucket=pictures",
        "--model",
        "builtin:ball",
    ];
    let report = check(&site, &more);
    assert_eq!(report.code, Some(0), "{report:?}");
    assert_eq!(report.err, "");
    let settings = settings(&report.out);
    let keys: Vec<_> = ei_greengrass::config::KEYS
        .iter()
        .map(|key| key.name.to_owned())
        .collect();
    assert_eq!(settings.len(), keys.len(), "{settings:?}");
    assert!(keys.iter().all(|key| settings.contains_key(key)), "{settings:?}");
    for (key, value, origin) in [
        ("iotcore_backoff", "5", "config"),
        ("default_threshold", "0.5", "config"),
        ("device_name", site.device(), "--set"),
        ("ei_local_model_file", "builtin:ball", "--model"),
        ("iot_endpoint", "mqtt://***@localhost:1883", "--mqtt"),
        ("preview_token", "***", "--set"),
        ("spool_max_mb", "64", "default"),
        ("cache_file_directory", "(none)", "config"),
        ("iot_auth", "sigv4", "default"),
    ] {
        let expected = (value.to_owned(), origin.to_owned());
        // "__none__" in the configuration is as good as nothing.
        let none = (value.to_owned(), "default".to_owned());
        assert!(
            settings[key] == expected || (value == "(none)" && settings[key] == none),
            "{key}: {:?}",
            settings[key]
        );
    }
    for secret in ["hunter2", "swordfish", "opensesame", "letmein"] {
        assert!(!report.all().contains(secret), "{secret}: {}", report.out);
    }
    assert!(!report.out.contains("not available"), "{}", report.out);
    let no_effect = section(&report.out, "Settings")
        .into_iter()
        .filter(|line| line.contains("no effect here"));
    assert_eq!(
        no_effect.count(),
        3,
        "node_version, vips_version, ei_poll_sleeptime_ms: {}",
        report.out
    );
    assert!(
        report.out.contains("`default_threshold` 50 is read as a percentage"),
        "{}",
        report.out
    );

    // What `run` would refuse: everything at once.
    let refused = check(&site, &["--set", "launch=linux", "--model", "builtin:nonsense"]);
    assert_eq!(refused.code, Some(2));
    assert_eq!(
        section(&refused.out, "Result").len(),
        2,
        "launch and model: {}",
        refused.out
    );
}

#[test]
fn no_password_is_in_the_log_at_any_level() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let model = site.scripted_model(&script(&[boxed(0.6)]));
    let mut command = site.command("run");
    command.env("RUST_LOG", "trace").args([
        "--mqtt",
        &format!("mqtt://camera:hunter2@127.0.0.1:{}", broker.port),
        "--model",
        model.to_str().unwrap(),
        "--set",
        "gst_args=rtspsrc:location=rtsp://viewer:swordfish@127.0.0.1:9/cam:latency=0:!:decodebin:!:videoconvert",
        "--set",
        "eiparams=--greengrass --api-key ei_opensesame --no-such-option opensesame2",
        "--set",
        "preview_token=letmein",
    ]);
    let daemon = Daemon::start(command);
    daemon.wait_for_line("the source is started again in");
    daemon.wait_for_line("Connected to");
    let log = daemon.stop();
    for secret in ["hunter2", "swordfish", "opensesame", "letmein"] {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(secret)).collect();
        assert!(lines.is_empty(), "{secret}: {lines:?}");
    }
    assert!(
        log.contains("rtsp://viewer:***@127.0.0.1:9/cam"),
        "the rest of it is shown: {log}"
    );
    assert!(log.contains("--no-such-option"), "{log}");
}

/// Runs the daemon for some messages, ends it, and gives what it wrote where.
fn written(arguments: &[&str], source: &str) -> (String, String) {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let model = site.scripted_model(&script(&[boxed(0.6)]));
    let mut command = site.command("run");
    let (out, err) = (site.path().join("out"), site.path().join("err"));
    command
        .args([
            "--mqtt",
            &broker.url(),
            "--model",
            model.to_str().unwrap(),
            "--gst",
            source,
        ])
        .args(["--set", "metrics_sleeptime_ms=200", "--set", "iotcore_qos=7"])
        .args(arguments)
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(std::fs::File::create(&err).unwrap());
    let mut child = command.spawn().unwrap();
    observer.wait_for_count("model/metrics", 4);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    (
        std::fs::read_to_string(out).unwrap(),
        std::fs::read_to_string(err).unwrap(),
    )
}

#[test]
fn the_log_goes_to_stdout_one_event_a_line_and_json_when_asked() {
    // An error of GStreamer with line breaks in it.
    let source = "filesrc location=/no/such/file ! decodebin ! videoconvert";
    for arguments in [&["--log-format", "json"][..], &["--log-format", "json", "--verbose"]] {
        let (out, err) = written(arguments, source);
        assert_eq!(err, "");
        let events: Vec<Value> = out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect();
        assert!(events.len() > 5);
        for event in &events {
            for key in ["timestamp", "level", "message"] {
                assert!(event[key].is_string(), "{key} in {event}");
            }
        }
        let warned = events
            .iter()
            .any(|e| e["level"] == "WARN" && e["message"].as_str().unwrap().contains("iotcore_qos"));
        assert!(warned, "{out}");
    }
    let (out, err) = written(&["--verbose"], source);
    assert_eq!(err, "");
    for line in out.lines() {
        let (time, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(time.ends_with('Z') && time.contains('T'), "{line}");
        let level = rest.split_whitespace().next().unwrap_or_default();
        assert!(["DEBUG", "INFO", "WARN", "ERROR"].contains(&level), "{line}");
        assert!(!line.contains('\u{1b}'), "{line}");
    }
    // A configuration that cannot be read is told in the same way.
    let site = Site::new();
    let broken = site.write("broken.json", "{\n\"a\": 1 \"b\": 2\n}\n");
    let ended = finish(bare(
        &site,
        &["run", "--log-format", "json", "--config", broken.to_str().unwrap()],
    ));
    assert_eq!((ended.code, ended.err.as_str()), (Some(2), ""));
    for line in ended.out.lines() {
        assert_eq!(serde_json::from_str::<Value>(line).expect(line)["level"], "ERROR");
    }
}

#[test]
fn a_log_that_nobody_can_write_or_read_ends_nothing() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let model = site.scripted_model(&script(&[boxed(0.6)]));
    // A full disk for both, then a reader that is gone.
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let deaf = || std::io::pipe().unwrap().1;
    let outputs: [(Stdio, Stdio); 2] = [(full().into(), full().into()), (deaf().into(), deaf().into())];
    for (number, (out, err)) in outputs.into_iter().enumerate() {
        let mut command = site.command("run");
        command.args([
            "--mqtt",
            &broker.url(),
            "--model",
            model.to_str().unwrap(),
            "--gst",
            LIVE,
            "--verbose",
        ]);
        let mut child = command.stdout(out).stderr(err).spawn().unwrap();
        observer.wait_for_status("started", number + 1);
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        observer.wait_for_status("stopped", number + 1);
    }
    for (arguments, code) in [
        (&["check", "--model", "builtin:ball"][..], 0),
        (&["config", "get", "gst_args"], 0),
        (&["config", "get", "no_such_key"], 2),
        (&["check"], 2),
        (&["stop"], 0),
    ] {
        let mut command = bare(&site, arguments);
        if arguments == ["stop"] {
            command.args([
                "--set",
                &format!("lock_filename={}", site.path().join("lock").display()),
            ]);
        }
        let status = command.stdout(deaf()).stderr(deaf()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn a_configuration_in_the_environment_that_is_not_utf_8_is_not_taken_for_none() {
    use std::os::unix::ffi::OsStrExt;
    let site = Site::new();
    let mut command = bare(&site, &["config", "get", "iotcore_backoff"]);
    let text = std::ffi::OsStr::from_bytes(b"{\"iotcore_backoff\": 7, \"s3_bucket\": \"\xff\"}");
    let ended = finish({
        command.env("CONFIG_PARAMETERS", text);
        command
    });
    assert_eq!(ended.out, "7\n");
}

#[test]
fn silent_leaves_warnings_only() {
    let (out, err) = written(&["--silent"], LIVE);
    assert_eq!(err, "");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 1, "{out}");
    assert!(lines[0].contains(" WARN ") && lines[0].contains("iotcore_qos"), "{out}");
    // In eiparams the same.
    let (out, _) = written(&["--set", "eiparams=--greengrass --silent"], LIVE);
    assert!(!out.contains(" INFO "), "{out}");
}

#[test]
fn config_get_prints_one_effective_value() {
    let site = Site::new();
    let tutorial = tutorial();
    for (key, value) in [
        ("ei_ggc_user_groups", "video audio input users"),
        ("install_kvssink", "no"),
        ("default_threshold", "0.5"),
        ("iotcore_backoff", "5"),
        ("gst_args", ""),
        ("ei_bindir", "/usr/local/bin"),
        ("metrics_sleeptime_ms", "30000"),
        ("preview_port", "4912"),
    ] {
        let ended = finish(bare(
            &site,
            &["config", "get", key, "--config", tutorial.to_str().unwrap()],
        ));
        assert_eq!((ended.code, ended.out), (Some(0), format!("{value}\n")), "{key}");
        assert_eq!(ended.err, "", "{key}");
    }
    // Without a configuration the default.
    assert_eq!(
        finish(bare(&site, &["config", "get", "default_threshold"])).out,
        "0.7\n"
    );
    let set = ["config", "get", "install_kvssink", "--set", "install_kvssink=TRUE"];
    assert_eq!(finish(bare(&site, &set)).out, "yes\n");
    let secret = ["config", "get", "preview_token", "--set", "preview_token=letmein"];
    assert!(!finish(bare(&site, &secret)).all().contains("letmein"));
    for arguments in [&["config", "get", "no_such_key"][..], &["config", "get"], &["config"]] {
        let ended = finish(bare(&site, arguments));
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(!ended.err.is_empty());
    }
}

#[test]
fn every_subcommand_explains_itself_with_an_example() {
    let site = Site::new();
    let all = finish(bare(&site, &["--help"]));
    assert_eq!(all.code, Some(0));
    for arguments in [
        &["run"][..],
        &["check"],
        &["stop"],
        &["config"],
        &["config", "get"],
        &["demo"],
    ] {
        let mut command = bare(&site, arguments);
        command.arg("--help");
        let help = finish(command);
        assert_eq!((help.code, help.err.as_str()), (Some(0), ""), "{arguments:?}");
        let invoked = format!("  ei-greengrass {}", arguments.join(" "));
        assert!(
            help.out.contains("Example") && help.out.contains(&invoked),
            "{arguments:?}: {}",
            help.out
        );
        assert!(all.out.contains(&format!("\n  {}", arguments[0])), "{}", all.out);
    }
}
