//! The interprocess communication with the nucleus of Greengrass, with the real binary and a stand-in for the nucleus.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, LIMIT, Site};
use crate::support::mosquitto::Mosquitto;
use crate::support::nucleus::Nucleus;
use crate::support::observer::Observer;
use crate::support::scripts::{boxed, script};

/// Texts that a shell, a YAML parser or an environment variable would change.
const HOSTILE: [&str; 6] = [
    "video audio input users",
    "$(touch harm) `touch harm` ; touch harm",
    "it's \"quoted\" \\ back",
    "(memory:NVMM),width=1",
    "{x} ${HOME} %s {y:z",
    "ü 漢 \u{1f600}",
];

/// A component of this site that publishes every inference to `broker`.
pub fn parameters(site: &Site, broker: &Mosquitto) -> Value {
    json!({
        "device_name": site.device(),
        "lock_filename": site.path().join("lock"),
        "work_dir": site.path(),
        "ei_local_model_file": site.scripted_model(&script(&[boxed(0.9)])),
        "gst_args": "videotestsrc:is-live=true:!:video/x-raw,width=64,height=48",
        "iot_endpoint": broker.url(),
        "iotcore_backoff": "1",
        "preview": "no",
    })
}

/// A subcommand as the nucleus starts it: its configuration is nowhere but in the nucleus.
fn lifecycle_step(site: &Site, nucleus: &Nucleus, arguments: &[&str]) -> Command {
    let mut command = site.bare_command();
    command.args(arguments);
    nucleus.environment(&mut command);
    command
}

#[test]
fn the_component_runs_with_the_configuration_of_the_nucleus() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let nucleus = Nucleus::start(parameters(&site, &broker));
    let daemon = Daemon::start(lifecycle_step(&site, &nucleus, &["run"]));
    observer.wait_for_count("inference/output", 3);
    let log = daemon.stop();
    assert!(!log.contains("WARN") && !log.contains(&nucleus.token()), "{log}");
}

#[test]
fn every_value_arrives_as_it_was_deployed() {
    let site = Site::new();
    for text in HOSTILE {
        let nucleus = Nucleus::start(json!({"device_name": text}));
        let output = lifecycle_step(&site, &nucleus, &["config", "get", "device_name"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{text}\n"));
    }
    assert!(!site.path().join("harm").exists());
}

#[test]
fn a_component_without_parameters_has_the_defaults() {
    let site = Site::new();
    let nucleus = Nucleus::start(Value::Null);
    nucleus.configure("EdgeImpulseLinuxRunnerServiceComponent", json!({}));
    let output = lifecycle_step(&site, &nucleus, &["config", "get", "iotcore_backoff"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "5\n");
}

#[test]
fn a_file_wins_over_the_nucleus_and_a_flag_over_both() {
    let site = Site::new();
    let nucleus = Nucleus::start(json!({"iotcore_backoff": 7, "iotcore_qos": 0}));
    let get = |arguments: &[&str]| {
        let output = lifecycle_step(&site, &nucleus, arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(get(&["config", "get", "iotcore_backoff"]), "7\n");
    assert_eq!(
        get(&["config", "get", "iotcore_backoff", "--set", "iotcore_backoff=9"]),
        "9\n"
    );
    site.write("mine.json", r#"{"iotcore_backoff": 8}"#);
    assert_eq!(
        get(&["config", "get", "iotcore_backoff", "--config", "mine.json"]),
        "8\n"
    );
    assert_eq!(get(&["config", "get", "iotcore_qos", "--config", "mine.json"]), "1\n");
}

#[test]
fn the_component_waits_for_a_nucleus_that_is_being_started() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let nucleus = Nucleus::start(parameters(&site, &broker));
    nucleus.stop();
    let daemon = Daemon::start(lifecycle_step(&site, &nucleus, &["run"]));
    let line = daemon.wait_for_line("Waiting for the configuration");
    assert!(
        line.contains("cannot be reached at") && line.contains("ipc.socket"),
        "{line}"
    );
    nucleus.resume();
    observer.wait_for_count("inference/output", 1);
    daemon.stop();
}

#[test]
fn a_person_beside_the_component_sees_the_deployed_configuration() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let nucleus = Nucleus::start(parameters(&site, &broker));
    let daemon = Daemon::start(lifecycle_step(&site, &nucleus, &["run"]));
    nucleus.wait_for("SubscribeToConfigurationUpdate", 1);
    let by_hand = |arguments: &[&str]| site.bare_command().args(arguments).current_dir("/").output().unwrap();
    let deployed = format!("--deployed={}", daemon.pid());
    let output = by_hand(&["config", "get", "iotcore_backoff", &deployed]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n", "{output:?}");
    let output = by_hand(&["check", &deployed]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&daemon.pid().to_string()), "the section Running: {text}");
    assert!(!text.contains(&nucleus.token()), "{text}");
    let output = by_hand(&["check", "--deployed=1"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("Greengrass has not started the process 1"), "{text}");
    daemon.stop();
}

#[test]
fn a_configuration_that_cannot_run_says_that_lite_does_not_roll_back() {
    let site = Site::new();
    let nucleus = Nucleus::start(json!({"launch": "windows"}));
    let mut daemon = Daemon::start(lifecycle_step(&site, &nucleus, &["run"]));
    let (status, _) = daemon.wait_for_end(LIMIT);
    assert_eq!(status.code(), Some(2));
    let log = daemon.log();
    assert!(
        log.contains("windows") && log.contains("Greengrass Lite does not roll back"),
        "{log}"
    );
}

mod live_updates;
