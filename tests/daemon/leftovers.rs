//! Nothing stays on the machine but what is meant to.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::stage::{CAMERA, Stage};
use crate::support::daemon::{Daemon, LIMIT};
use crate::support::leftovers::{
    children_of, files_of, is_running, model_of, run_directories, scripted_segments, segments_of, wait_until,
};
use crate::support::scripts::{boxed, script};

/// The built-in model and scripted ones with and without shared memory.
fn models(stage: &Stage) -> Vec<PathBuf> {
    let scripted = |shm: bool| {
        let mut script = script(&[boxed(0.5)]);
        script["shm"] = json!(shm);
        stage.site.scripted_model(&script)
    };
    vec!["builtin:nop".into(), scripted(true), scripted(false)]
}

/// What was there of one model process.
struct Traces {
    pid: u32,
    segments: Vec<PathBuf>,
}

impl Traces {
    fn of(daemon: &Daemon) -> Self {
        let pid = model_of(daemon.pid());
        let mut segments = segments_of(pid);
        segments.extend(scripted_segments(pid));
        Self { pid, segments }
    }

    #[track_caller]
    fn assert_gone(&self) {
        assert!(!is_running(self.pid));
        for segment in &self.segments {
            assert!(!segment.exists(), "{}", segment.display());
        }
        assert_eq!(scripted_segments(self.pid), Vec::<PathBuf>::new());
    }
}

/// Only the identity and what the test itself put there.
#[track_caller]
fn assert_clean(stage: &Stage) {
    assert_eq!(run_directories(&stage.site), Vec::<PathBuf>::new());
    let ours = |file: &&PathBuf| {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        name == "identity" || name.starts_with("model-")
    };
    let foreign: Vec<_> = files_of(&stage.site).into_iter().filter(|file| !ours(&file)).collect();
    assert_eq!(foreign, Vec::<PathBuf>::new());
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn an_orderly_end_leaves_nothing() {
    let stage = Stage::new();
    for (number, model) in models(&stage).iter().enumerate() {
        let daemon = stage.run(model, CAMERA, &[]);
        stage.observer.wait_for_status("started", number + 1);
        let traces = Traces::of(&daemon);
        assert_eq!(run_directories(&stage.site).len(), 1);
        let pid = daemon.pid();
        daemon.stop();
        traces.assert_gone();
        assert_eq!(children_of(pid), Vec::<u32>::new());
        assert_clean(&stage);
    }
}

/// Starts a model that ends by itself or is killed, waits for the next one, and looks for what the first left.
fn a_model_that_ends(model: &Path, end: impl Fn(u32)) {
    let stage = Stage::new();
    let daemon = stage.run(model, CAMERA, &[]);
    stage.observer.wait_for_status("started", 1);
    let first = Traces::of(&daemon);
    end(first.pid);
    stage.observer.wait_for_status("started", 2);
    first.assert_gone();
    assert_eq!(run_directories(&stage.site).len(), 1, "that of the second");
    let second = Traces::of(&daemon);
    daemon.stop();
    second.assert_gone();
    assert_clean(&stage);
}

#[test]
fn a_model_that_is_killed_leaves_nothing() {
    let stage = Stage::new();
    std::thread::scope(|scope| {
        for model in models(&stage) {
            scope.spawn(move || a_model_that_ends(&model, kill));
        }
    });
}

#[test]
fn a_model_that_crashes_leaves_nothing() {
    let stage = Stage::new();
    let answers: Vec<Value> = std::iter::repeat_n(boxed(0.5), 30)
        .chain([json!({"abort": true})])
        .collect();
    let scripted = stage.site.scripted_model(&script(&answers));
    std::thread::scope(|scope| {
        for model in ["builtin:crash=30".into(), scripted] {
            scope.spawn(move || a_model_that_ends(&model, |_| {}));
        }
    });
}

#[test]
fn a_killed_daemon_leaves_no_model_and_the_next_one_removes_the_rest() {
    let stage = Stage::new();
    for (number, model) in models(&stage).iter().enumerate() {
        let mut daemon = stage.run(model, CAMERA, &[]);
        stage.observer.wait_for_status("started", 2 * number + 1);
        let traces = Traces::of(&daemon);
        daemon.signal(Signal::KILL);
        daemon.wait_for_end(LIMIT);
        wait_until("the model has seen its client go", || !is_running(traces.pid));
        let next = stage.run(model, CAMERA, &[]);
        stage.observer.wait_for_status("started", 2 * number + 2);
        traces.assert_gone();
        assert_eq!(run_directories(&stage.site).len(), 1, "that of the second");
        next.stop();
        assert_clean(&stage);
    }
}

#[test]
fn a_model_that_was_loading_when_the_daemon_was_killed_is_ended_by_the_next_one() {
    for deaf in [false, true] {
        let stage = Stage::new();
        let mut slow = script(&[boxed(0.5)]);
        slow["startup_delay_ms"] = json!(120_000);
        slow["ignore_signals"] = json!(deaf);
        let mut daemon = stage.run(stage.site.scripted_model(&slow), CAMERA, &[]);
        let model = model_of(daemon.pid());
        wait_until("it has made its shared memory", || !segments_of(model).is_empty());
        let traces = Traces::of(&daemon);
        daemon.signal(Signal::KILL);
        daemon.wait_for_end(LIMIT);
        let next = stage.run("builtin:nop", CAMERA, &[]);
        stage.observer.wait_for_status("started", 1);
        traces.assert_gone();
        next.stop();
        assert_clean(&stage);
    }
}
