//! A `/dev/shm` without room for the features of the model.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use super::stage::{Stage, lines};
use crate::support::daemon::Daemon;
use crate::support::scripts::{boxed, hello, script};

const CAMERA: &str = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=320,framerate=30/1";

/// A `/dev/shm` of 200 KiB.
const SMALL: &str = "mount -t tmpfs -o size=200k tmpfs /dev/shm";

/// The same command after another `/dev/shm` was mounted. `None`: that is not allowed here.
fn with_shm(mount: &str, command: &Command) -> Option<Command> {
    let mut small = Command::new("unshare");
    small.args(["-m", "sh", "-c"]);
    if !small.arg(mount).status().is_ok_and(|status| status.success()) {
        return None;
    }
    let mut small = Command::new("unshare");
    small.args(["-m", "sh", "-c", &format!("{mount} && exec \"$0\" \"$@\"")]);
    small.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => small.env(name, value),
            None => small.env_remove(name),
        };
    }
    small.stdin(std::process::Stdio::null());
    small.current_dir(command.get_current_dir()?);
    Some(small)
}

/// The daemon with this model and these settings, where `mount` has changed `/dev/shm`. `None`: this machine allows no
/// mounts.
fn start(stage: &Stage, mount: &str, model: impl AsRef<OsStr>, settings: &[&str]) -> Option<Daemon> {
    let mut command = stage.command(model, settings);
    command.args(["--gst", CAMERA]);
    Some(Daemon::start(with_shm(mount, &command)?))
}

/// The program's own model, which reserves its segment, and one that only sets its size, as real models do.
const MODELS: [fn(&Stage) -> PathBuf; 2] = [
    |_| "builtin:ball".into(),
    |stage| {
        let mut script = script(&[boxed(0.5)]);
        script["hello"] = hello(320, 320);
        stage.site.scripted_model(&script)
    },
];

#[test]
fn without_room_in_dev_shm_features_are_sent_as_json_with_one_warning_and_a_problem() {
    for model in MODELS {
        let stage = Stage::new();
        let Some(daemon) = start(&stage, SMALL, model(&stage), &[]) else {
            return;
        };
        let figures = stage.wait_for_figures("inferences and a problem", |runner| {
            let problem = runner["problems"][0].as_str().unwrap_or_default();
            runner["inferences"].as_u64() > Some(3)
                && problem.starts_with("model: features are sent as JSON")
                && problem.contains("/dev/shm has no room for 409600 bytes")
        });
        assert_eq!(figures["model_restarts"], 0);
        assert_eq!(figures["health"]["model"], "running");
        let log = daemon.stop();
        let warnings = lines(&log, "WARN", "Features are sent as JSON");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }
}

#[test]
fn without_a_dev_shm_that_can_be_written_the_built_in_model_gets_json() {
    for mount in [
        "mount -t tmpfs -o ro tmpfs /dev/shm",
        "mount -t tmpfs -o size=4k,nr_inodes=1 tmpfs /dev/shm",
        // To create a file there fails with ENOENT, as in a directory that is missing.
        "mount -t proc proc /dev/shm",
    ] {
        let stage = Stage::new();
        let Some(daemon) = start(&stage, mount, "builtin:ball", &[]) else {
            return;
        };
        stage.wait_for_figures("inferences and a problem", |runner| {
            let problem = runner["problems"][0].as_str().unwrap_or_default();
            runner["inferences"].as_u64() > Some(3) && problem.starts_with("model: features are sent as JSON")
        });
        let log = daemon.stop();
        assert_eq!(lines(&log, "WARN", "Features are sent as JSON").len(), 1, "{mount}");
    }
}

/// A model of 200x200 pixels (160 kB) in a `/dev/shm` of 200 KiB, which takes its memory away and fills the rest.
fn model_that_loses_its_segment(stage: &Stage) -> PathBuf {
    let loss = json!({ "resize_shm": 0, "then": { "fill_shm": true, "then": boxed(0.5) } });
    let mut script = script(&[boxed(0.5), boxed(0.5), loss, boxed(0.5)]);
    script["hello"] = hello(200, 200);
    stage.site.scripted_model(&script)
}

#[test]
fn when_dev_shm_fills_up_later_features_are_sent_as_json_from_then_on() {
    let stage = Stage::new();
    let Some(daemon) = start(&stage, SMALL, model_that_loses_its_segment(&stage), &[]) else {
        return;
    };
    let figures = stage.wait_for_figures("inferences and a problem", |runner| {
        let problem = runner["problems"][0].as_str().unwrap_or_default();
        runner["inferences"].as_u64() > Some(10) && problem.contains("/dev/shm has no room for 160000 bytes")
    });
    assert_eq!(figures["model_restarts"], 0);
    let log = daemon.stop();
    assert_eq!(lines(&log, "WARN", "Features are sent as JSON").len(), 1);
}

#[test]
fn when_dev_shm_fills_up_later_a_model_that_must_use_it_has_failed() {
    let stage = Stage::new();
    let options = ["eiparams=--greengrass --shm-behavior always"];
    let Some(daemon) = start(&stage, SMALL, model_that_loses_its_segment(&stage), &options) else {
        return;
    };
    daemon.wait_for_line("the model's shared memory cannot be used any more: /dev/shm has no room for 160000 bytes");
}

#[test]
fn without_room_in_dev_shm_a_model_that_must_use_it_is_refused() {
    for model in MODELS {
        let stage = Stage::new();
        let Some(daemon) = start(
            &stage,
            SMALL,
            model(&stage),
            &["eiparams=--greengrass --shm-behavior always"],
        ) else {
            return;
        };
        let line = daemon.wait_for_line("--shm-behavior is");
        assert!(line.contains("/dev/shm has no room for 409600 bytes"), "{line}");
    }
}
