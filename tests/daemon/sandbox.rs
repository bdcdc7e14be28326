//! The sandbox of the model in the running component.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use serde_json::{Value, json};

use super::stage::{CAMERA, Stage, lines};
use crate::support::daemon::Daemon;
use crate::support::scripts::script;

const REFUSED: &str = "The sandbox refused the model a file";

/// Attempts that go on as long as the model runs.
fn attempts(list: &[(&str, &Path)]) -> Value {
    let attempts: Vec<_> = list
        .iter()
        .map(|(what, on)| json!({ "attempt": what, "on": on }))
        .collect();
    let mut script = script(&attempts);
    script["repeat"] = json!("cycle");
    script
}

/// The outcomes of the attempts as they were published.
fn outcomes(stage: &Stage, count: usize) -> Vec<String> {
    let messages = stage.observer.wait_for_count("inference/output", count);
    let label = |message: &Value| {
        message["c"]
            .as_object()
            .and_then(|classes| classes.keys().next().cloned())
    };
    messages.iter().filter_map(label).collect()
}

#[test]
fn a_refused_file_is_in_the_log_once_and_model_allow_gives_it_to_the_model() {
    let stage = Stage::new();
    let dir = tempfile::tempdir().unwrap();
    let (node, missing) = (dir.path().join("npu0"), dir.path().join("nothing"));
    fs::write(&node, "").unwrap();
    // A path with a link in it, as libraries have them.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    let through_link = link.join("npu0");
    let list = [
        ("read", &*node),
        ("write", &*through_link),
        ("read", &*missing),
        ("execute", Path::new("/bin/ls")),
        ("read", Path::new("/proc/cpuinfo")),
    ];
    let model = stage.site.scripted_model(&attempts(&list));
    let daemon = stage.run(&model, CAMERA, &["model_allow=__none__"]);
    let outcomes = outcomes(&stage, 10);
    for (outcome, expected) in outcomes
        .iter()
        .zip(["errno 13", "errno 13", "errno 2", "errno 13", "done"].iter().cycle())
    {
        assert_eq!(outcome, expected, "{outcomes:?}");
    }
    daemon.wait_for_lines(REFUSED, 2);
    let log = daemon.stop();
    let refused = lines(&log, "WARN", REFUSED);
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(
        refused[0].contains(&*node.to_string_lossy()) && refused[0].contains("access=read"),
        "{refused:?}"
    );
    assert!(
        refused[1].contains("/bin/ls") && refused[1].contains("access=execute"),
        "{refused:?}"
    );

    let stage = Stage::new();
    let model = stage.site.scripted_model(&attempts(&list[..2]));
    let daemon = stage.run(&model, CAMERA, &[&format!("model_allow={}", node.display())]);
    let outcomes = self::outcomes(&stage, 4);
    assert!(outcomes.iter().all(|outcome| outcome == "done"), "{outcomes:?}");
    assert!(!daemon.stop().contains(REFUSED));
}

/// Root has no limit of processes, so this runs as a user without an account; without root it does nothing.
#[test]
fn a_model_cannot_start_processes_and_threads_without_end() {
    const USER: u32 = 52_003;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for (mode, expected) in [("auto", "errno 11"), ("off", "done")] {
        let stage = Stage::new();
        let model = stage
            .site
            .scripted_model(&attempts(&[("start threads", Path::new("1500"))]));
        fs::set_permissions(stage.site.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let mut command = stage.command(&model, &[&format!("model_sandbox={mode}")]);
        command.env("HOME", stage.site.path());
        command.args(["--gst", CAMERA]).uid(USER).gid(USER);
        let daemon = Daemon::start(command);
        let outcomes = outcomes(&stage, 1);
        assert_eq!(outcomes[0], expected, "{mode}");
        daemon.stop();
    }
}

#[test]
fn check_says_what_the_sandbox_is() {
    let stage = Stage::new();
    let check = |settings: &[&str]| {
        let mut command = stage.site.command("check");
        command.args(["--model", "builtin:ball"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let text = check(&["model_sandbox=strict", "model_allow=/dev/my-npu0:/srv/libraries"]);
    assert!(text.contains("the model runs in a sandbox"), "{text}");
    assert!(text.contains("/dev/my-npu0:/srv/libraries"), "{text}");
    let text = check(&["model_sandbox=off"]);
    assert!(
        text.contains("model_sandbox is off: the model can do what this program can"),
        "{text}"
    );
}
