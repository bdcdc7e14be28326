//! Real configurations and typical mistakes: clear messages, and a component that keeps running.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::by_hand::{bare, check, finish, recipe, section, settings, tutorial, warnings};
use crate::support::daemon::{Daemon, LIMIT, Site};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::scripts::{boxed, script};

const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=30/1";

#[test]
fn run_and_check_list_the_places_of_a_missing_configuration() {
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
fn the_configuration_of_the_tutorial_runs_from_each_source() {
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
fn a_pipeline_that_gstreamer_refuses_is_logged_and_tried_again() {
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
    // The component keeps running and tries again.
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
        let told = daemon.wait_for_line("The source failed and restarts");
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
    daemon.wait_for_line("The source failed and restarts");
    site.write("unfinished", vec![128; 64 * 48 * 3 / 2 * 60]);
    std::fs::rename(site.path().join("unfinished"), &file).unwrap();
    observer.wait_for_status("started", 1);
    observer.wait_for_count("inference/output", 3);
    daemon.stop();
}
