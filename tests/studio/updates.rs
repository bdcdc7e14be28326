//! A new version of the model replaces the running one without a gap, and the one before comes back when it is bad.

mod asked_by_studio;
mod bad_versions;
mod channel_cuts;
mod page;
mod power_cuts;
mod scenario;
mod thresholds;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::daemon::Bench;
use super::{place, write_script};
use crate::support::daemon::Daemon;
use crate::support::http::HttpServer;
use crate::support::scripts::{boxed, classified, frames, hearing, hello, recorded};
use crate::support::studio as stand_in;

/// What distinguishes the messages of each version.
fn score(version: u64) -> f64 {
    version as f64 / 10.0
}

/// The script of a version that answers these values, then repeats the last one, and records its requests.
fn version_script(work_dir: &Path, version: u64, answers: &[Value]) -> Value {
    let mut hello = hello(32, 24);
    hello["project"]["deploy_version"] = json!(version);
    hello["model_parameters"]["thresholds"] = json!([{"id": 1, "type": "object_detection", "min_score": 0.5}]);
    json!({"hello": hello, "answers": answers, "record": record(work_dir, version)})
}

fn record(work_dir: &Path, version: u64) -> std::path::PathBuf {
    work_dir.join(format!("record-{version}"))
}

/// How many inputs a version answered or was asked to.
fn requests_of(work_dir: &Path, version: u64) -> usize {
    let requests = recorded(&record(work_dir, version));
    requests
        .iter()
        .filter(|request| request.get("classify_shm").is_some())
        .count()
}

fn crash() -> Value {
    json!({"exit": 1})
}

/// `count` good answers, then this one.
fn after(count: usize, version: u64, last: Value) -> Vec<Value> {
    let mut answers = vec![boxed(score(version)); count];
    answers.push(last);
    answers
}

/// A component that runs version 3, with a stand-in Studio that has version 4.
struct Stage {
    bench: Bench,
    studio: HttpServer,
}

impl Stage {
    /// `answers`: of version 4.
    fn new(answers: &[Value]) -> Self {
        let bench = Bench::new();
        let stage = Self {
            studio: stand_in::studio(&bench.state),
            bench,
        };
        stage.set_answers(3, &[boxed(score(3))]);
        stage.set_answers(4, answers);
        stage
    }

    fn set_answers(&self, version: u64, answers: &[Value]) {
        let work_dir = self.bench.site.path();
        write_script(work_dir, version, &version_script(work_dir, version, answers));
    }

    fn deploy(&self, version: u64) {
        self.bench.state.lock().version = Some(version);
    }

    fn run(&self, sets: &[&str]) -> Daemon {
        self.run_with(sets, |_| {})
    }

    fn run_with(&self, sets: &[&str], change: impl FnOnce(&mut Command)) -> Daemon {
        self.bench.run(&self.studio.url(), |command| {
            set_all(command, sets);
            change(command);
        })
    }

    /// From a source that ends, after which the component waits.
    fn run_to_the_end(&self, source: &str, sets: &[&str]) -> Daemon {
        self.run_file(source, sets, &[])
    }

    fn run_file(&self, source: &str, sets: &[&str], options: &[&str]) -> Daemon {
        self.bench.run_from(source, &self.studio.url(), |command| {
            set_all(command, sets);
            command
                .args(["--set", "ei_shutdown_behavior=wait_for_restart"])
                .args(options);
        })
    }

    /// Starts version 3 and deploys version 4 when it runs.
    fn begin(&self, sets: &[&str]) -> Daemon {
        let daemon = self.run(sets);
        let started = self.bench.observer.wait_for_status("started", 1);
        assert_eq!(started["result"]["model_version"], "v3");
        self.deploy(4);
        daemon
    }

    /// Sends the command and gives its answer.
    fn update(&self, value: Value) -> Value {
        let command = match value {
            Value::Null => json!({"cmd": "update_model"}),
            value => json!({"cmd": "update_model", "value": value}),
        };
        self.bench
            .observer
            .command(&command, |result| result.get("update_model").is_some())
    }

    fn model_version(&self) -> Value {
        let command = json!({"cmd": "get_model_info"});
        let answer = self
            .bench
            .observer
            .command(&command, |result| result.get("model_info").is_some());
        answer["model_info"]["model_version"].clone()
    }

    /// The versions that inferred the messages so far, in order.
    fn inferred(&self) -> Vec<u64> {
        let messages = self.bench.observer.all("inference/output");
        let version = |message: &Value| (message["box"][0]["value"].as_f64().unwrap() * 10.0).round() as u64;
        messages.iter().map(|message| version(&message.json())).collect()
    }

    /// Waits for a message that this version inferred, after the first `skip` messages.
    fn wait_for_inference_of(&self, version: u64, skip: usize) {
        let is_of = |message: &Value| message["box"][0]["value"] == score(version);
        let what = format!("an inference of version {version}");
        self.bench.observer.wait_for_nth("inference/output", &what, skip, is_of);
    }

    /// Waits for an inference of `version` after the last one of `failed`.
    fn wait_for_return_to(&self, version: u64, failed: u64) {
        let inferred = self.inferred();
        let last = inferred.iter().rposition(|version| *version == failed);
        self.wait_for_inference_of(version, last.map_or(0, |last| last + 1));
    }

    fn wait_for_problem(&self, text: &str) {
        self.bench.observer.wait_for("model/metrics", text, |metrics| {
            let problems = metrics["runner"]["problems"].as_array();
            problems.is_some_and(|all| all.iter().any(|problem| problem.as_str().unwrap().contains(text)))
        });
    }

    /// The files of the models that are on the device.
    fn stored(&self) -> Vec<u64> {
        (1..=9)
            .filter(|version| place(self.bench.site.path(), *version).exists())
            .collect()
    }

    /// Every inference is in one message, in order.
    #[track_caller]
    fn assert_nothing_lost(&self) {
        let messages = self.bench.observer.all("inference/output");
        let totals: Vec<_> = messages
            .iter()
            .map(|message| message.json()["total_inferences"].clone())
            .collect();
        let expected: Vec<_> = (1..=totals.len()).map(|total| json!(total)).collect();
        assert_eq!(totals, expected);
    }
}

const SETS: [&str; 1] = ["model_trial_inferences=5"];

/// Sends the command without waiting for its answer.
fn send_update(stage: &Stage) {
    stage
        .bench
        .observer
        .send_raw(json!({"cmd": "update_model"}).to_string(), false);
}

fn set_all(command: &mut Command, sets: &[&str]) {
    command.args(["--set", "metrics_sleeptime_ms=200"]);
    for set in sets {
        command.args(["--set", set]);
    }
}

#[test]
fn a_new_version_takes_over_from_the_running_one_between_two_frames() {
    let stage = Stage::new(&[boxed(score(4))]);
    let daemon = stage.begin(&[
        "model_trial_inferences=10",
        "eiparams=--force-target runner-linux-x86_64 --thresholds 1.min_score=0.2",
    ]);
    let answer = stage.update(Value::Null);
    assert_eq!(answer, json!({"update_model": {"found": "v4", "running": "v4"}}));
    let notice = stage.bench.observer.wait_for_status("model_updated", 1);
    assert_eq!(
        (
            &notice["result"]["model_version"],
            &notice["result"]["previous_version"]
        ),
        (&json!("v4"), &json!("v3"))
    );
    assert_eq!(stage.model_version(), "v4");
    stage.wait_for_inference_of(4, 0);
    let again = stage.update(Value::Null);
    assert_eq!(again, json!({"update_model": {"found": "v4", "running": "v4"}}));
    let log = daemon.stop();
    stage.assert_nothing_lost();
    assert!(
        stage.inferred().is_sorted(),
        "one change of the version: {:?}",
        stage.inferred()
    );
    assert!(!log.contains("The model failed"), "{log}");
    let work_dir = stage.bench.site.path();
    let trial = recorded(&record(work_dir, 4));
    assert_eq!(
        trial[1]["set_threshold"]["min_score"], 0.2,
        "before the trial: {:?}",
        trial[1]
    );
    let published = stage.inferred().iter().filter(|version| **version == 4).count();
    assert!(requests_of(work_dir, 4) >= published + 10, "the trial is not published");
    assert_eq!(stage.stored(), [3, 4]);
}

#[test]
fn a_version_with_another_picture_size_takes_over_without_a_restart_of_the_source() {
    let stage = Stage::new(&[boxed(score(4))]);
    let work_dir = stage.bench.site.path();
    let mut script = version_script(work_dir, 4, &[boxed(score(4))]);
    script["hello"]["model_parameters"] = hello(16, 16)["model_parameters"].clone();
    write_script(work_dir, 4, &script);
    let daemon = stage.begin(&["model_trial_inferences=5"]);
    let answer = stage.update(Value::Null);
    assert_eq!(answer["update_model"]["running"], "v4", "{answer}");
    stage.wait_for_inference_of(4, 0);
    let log = daemon.stop();
    stage.assert_nothing_lost();
    assert!(!log.contains("restarting the source"), "{log}");
    let inputs = recorded(&record(work_dir, 4));
    let sizes: Vec<_> = inputs
        .iter()
        .filter_map(|input| input["classify_shm"]["count"].as_u64())
        .collect();
    assert!(sizes.iter().all(|size| *size == 256) && !sizes.is_empty(), "{sizes:?}");
}

#[test]
fn a_version_with_another_kind_of_input_waits_for_a_restart() {
    let stage = Stage::new(&[]);
    let work_dir = stage.bench.site.path();
    let mut hello = hearing(16_000, 6400, 1600, false);
    hello["project"]["deploy_version"] = json!(4);
    write_script(work_dir, 4, &json!({"hello": hello, "answers": [classified(0.5)]}));
    let daemon = stage.begin(&[]);
    for _ in 0..2 {
        let answer = stage.update(Value::Null);
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains("takes audio") && error.contains("restart"), "{answer}");
        assert_eq!(answer["update_model"], json!({"found": "v4", "running": "v3"}));
    }
    assert_eq!(
        stage
            .bench
            .observer
            .all("command/output")
            .iter()
            .filter(|seen| { seen.json()["result"]["status"] == "model_update_failed" })
            .count(),
        0,
        "it is not bad"
    );
    stage
        .bench
        .observer
        .send_raw(json!({"cmd": "restart"}).to_string(), false);
    daemon.wait_for_line("The model is loaded model=\"Listener\" version=4");
    daemon.stop();
}

#[test]
fn every_frame_of_a_file_is_inferred_exactly_once_over_a_change_of_the_model() {
    const FRAMES: usize = 600;
    let stage = Stage::new(&[boxed(score(4))]);
    let slowly = json!({"delay_ms": 8, "then": boxed(score(3))});
    stage.set_answers(3, &[slowly]);
    // In real time, a frame that comes late would be skipped.
    let daemon = stage.run_file(
        &frames(FRAMES as u32),
        &["model_trial_inferences=7"],
        &["--unthrottled"],
    );
    stage.bench.observer.wait_for_status("started", 1);
    stage.deploy(4);
    let answer = stage.update(Value::Null);
    assert_eq!(answer["update_model"]["running"], "v4", "{answer}");
    stage.bench.observer.wait_for_status("paused", 1);
    stage.bench.observer.wait_for_count("inference/output", FRAMES);
    daemon.stop();
    stage.assert_nothing_lost();
    let versions = stage.inferred();
    assert!(versions.len() == FRAMES && versions.is_sorted());
    let (old, new) = (
        requests_of(stage.bench.site.path(), 3),
        requests_of(stage.bench.site.path(), 4),
    );
    assert_eq!(
        old + new,
        FRAMES + 7,
        "{old} by version 3, {new} by version 4 with its trial"
    );
    assert!(old > 0 && new > 7);
}

/// The slices that an audio model got, as far as they are recorded.
fn slices(work_dir: &Path, version: u64) -> Vec<Value> {
    let requests = recorded(&record(work_dir, version));
    let slices = requests
        .iter()
        .filter_map(|request| request.get("classify_continuous_shm"));
    slices.cloned().collect()
}

#[test]
fn an_audio_model_hears_every_slice_over_a_change_of_the_model() {
    const SLICES: usize = 100;
    let stage = Stage::new(&[]);
    let work_dir = stage.bench.site.path();
    for version in [3, 4] {
        let mut hello = hearing(16_000, 6400, 1600, true);
        hello["project"]["deploy_version"] = json!(version);
        let answer = json!({"delay_ms": 8, "then": classified(score(version))});
        let script = json!({"hello": hello, "answers": [answer], "record": record(work_dir, version)});
        write_script(work_dir, version, &script);
    }
    let source = format!(
        "audiotestsrc num-buffers={SLICES} samplesperbuffer=1600 wave=white-noise ! audio/x-raw,format=S16LE,rate=16000,channels=1"
    );
    let daemon = stage.run_to_the_end(&source, &["model_trial_inferences=6"]);
    stage.bench.observer.wait_for_status("started", 1);
    stage.deploy(4);
    let answer = stage.update(Value::Null);
    assert_eq!(answer["update_model"]["running"], "v4", "{answer}");
    stage.bench.observer.wait_for_status("paused", 1);
    // The first whole window is complete with the fourth slice.
    let messages = stage.bench.observer.wait_for_count("inference/output", SLICES - 3);
    daemon.stop();
    stage.assert_nothing_lost();
    let values: Vec<_> = messages
        .iter()
        .map(|message| message["c"]["yes"].as_f64().unwrap())
        .collect();
    assert!(values.is_sorted() && values.len() == SLICES - 3);
    // The new model got each slice from the beginning of its trial on, without a gap, and the old one all before.
    let (old, new) = (slices(work_dir, 3), slices(work_dir, 4));
    let begin = old.iter().position(|slice| *slice == new[0]).unwrap();
    assert_eq!(old[begin..], new[..old.len() - begin]);
    assert_eq!(begin + new.len(), SLICES);
}

#[test]
fn the_prefix_in_s3_follows_the_version() {
    let stage = Stage::new(&[boxed(score(4))]);
    let daemon = stage.run_with(
        &["model_trial_inferences=3", "enable_cache_to_s3=yes", "s3_bucket=pairs"],
        |command| {
            command.env("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9");
        },
    );
    stage.bench.observer.wait_for_status("started", 1);
    stage.deploy(4);
    let answer = stage.update(Value::Null);
    assert_eq!(answer["update_model"]["running"], "v4", "{answer}");
    stage.wait_for_inference_of(4, 0);
    daemon.stop();
    for message in stage.bench.observer.all("inference/output") {
        let message = message.json();
        let version = if message["box"][0]["value"] == score(3) {
            "_v3"
        } else {
            "_v4"
        };
        assert!(message["s3_prefix"].as_str().unwrap().contains(version), "{message}");
    }
}

#[test]
fn a_second_update_at_the_same_time_is_refused() {
    let stage = Stage::new(&[json!({"hang": true})]);
    let daemon = stage.begin(&SETS);
    send_update(&stage);
    daemon.wait_for_line("The new model is tried beside the running one");
    let answer = stage.update(Value::Null);
    assert!(answer["error"].as_str().unwrap().contains("in progress"), "{answer}");
    daemon.stop();
}
