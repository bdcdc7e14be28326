//! Output of the program: reports of subcommands, and the log.

use std::process::Stdio;

use serde_json::Value;

use crate::daemon::by_hand::{bare, check, finish, section, settings, tutorial};
use crate::support::daemon::{Daemon, Site};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::scripts::{boxed, script};

const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=30/1";

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
        ("iot_endpoint", "mqtt://camera:***@localhost:1883", "--mqtt"),
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
    let lock = format!("lock_filename={}", site.path().join("missing/lock").display());
    let refused = check(&site, &["--set", &lock, "--model", "builtin:nonsense"]);
    assert_eq!(refused.code, Some(2));
    assert_eq!(
        section(&refused.out, "Result").len(),
        2,
        "lock file and model: {}",
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
    daemon.wait_for_line("The source failed and restarts");
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

/// Runs the component for some messages and stops it. Returns stdout and stderr.
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
fn the_log_goes_to_stdout_with_one_event_per_line_as_text_or_json() {
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
            .any(|e| e["level"] == "WARN" && e["detail"].as_str().is_some_and(|text| text.contains("iotcore_qos")));
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
    // An unreadable configuration is logged in the same way.
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
fn the_component_continues_if_its_log_cannot_be_written_or_read() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let model = site.scripted_model(&script(&[boxed(0.6)]));
    // First a full disk for both streams, then a closed pipe.
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let deaf = std::io::pipe().unwrap().1;
    let outputs: [(Stdio, Stdio); 2] = [
        (full().into(), full().into()),
        (deaf.try_clone().unwrap().into(), deaf.into()),
    ];
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
        let status = child.wait().unwrap();
        assert!(status.success(), "run number {number} ended with {status}");
        observer.wait_for_status("stopped", number + 1);
    }
}

#[test]
fn the_exit_code_of_a_subcommand_is_the_same_if_nobody_reads_its_output() {
    let site = Site::new();
    let deaf = || std::io::pipe().unwrap().1;
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
        assert_eq!(status.code(), Some(code), "{arguments:?} ended with {status}");
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
fn the_help_of_every_subcommand_has_an_example() {
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
