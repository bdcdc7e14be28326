//! A `/dev/shm` without room for the features of the model.

use std::path::PathBuf;
use std::process::Command;

use super::stage::{Stage, lines};
use crate::support::daemon::Daemon;
use crate::support::scripts::{boxed, hello, script};

const CAMERA: &str = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=320,framerate=30/1";

/// The same command with a `/dev/shm` of 200 KiB. `None`: that is not allowed here.
fn with_small_shm(command: &Command) -> Option<Command> {
    const MOUNT: &str = "mount -t tmpfs -o size=200k tmpfs /dev/shm";
    let mut small = Command::new("unshare");
    small.args(["-m", "sh", "-c"]);
    if !small.arg(MOUNT).status().is_ok_and(|status| status.success()) {
        return None;
    }
    let mut small = Command::new("unshare");
    small.args(["-m", "sh", "-c", &format!("{MOUNT} && exec \"$0\" \"$@\"")]);
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
        let mut command = stage.command(model(&stage), &[]);
        command.args(["--gst", CAMERA]);
        let Some(command) = with_small_shm(&command) else {
            return;
        };
        let daemon = Daemon::start(command);
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
fn without_room_in_dev_shm_a_model_that_must_use_it_is_refused() {
    for model in MODELS {
        let stage = Stage::new();
        let mut command = stage.command(model(&stage), &["eiparams=--greengrass --shm-behavior always"]);
        command.args(["--gst", CAMERA]);
        let Some(command) = with_small_shm(&command) else {
            return;
        };
        let daemon = Daemon::start(command);
        let line = daemon.wait_for_line("--shm-behavior is");
        assert!(line.contains("/dev/shm has no room for 409600 bytes"), "{line}");
    }
}
