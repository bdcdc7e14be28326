//! The model module against model processes (`tests/support/scripted_model.rs`) and recorded conversations.

mod built_in;
mod hostile;
mod recorded;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ei_greengrass::config::{ModelSandboxConfig, ModelSource, ResizeMode, SandboxMode, ShmBehavior, Threshold};
use ei_greengrass::model::{
    Interrupt, Model, ModelError, ModelInput, ModelSettings, Sandbox, SandboxSupport, builtin, sweep_in,
};
use ei_greengrass::status::stats::Stats;
use serde_json::{Map, Value, json};

/// The longest wait of a test.
const LIMIT: Duration = Duration::from_secs(20);

/// A directory with a scripted model in it.
struct Bench {
    dir: tempfile::TempDir,
    settings: ModelSettings,
    stats: Arc<Stats>,
}

impl Bench {
    fn new(mut script: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model.eim");
        fs::copy(scripted_model(), &model).unwrap();
        script["record"] = json!(dir.path().join("record.jsonl"));
        fs::write(dir.path().join("model.eim.json"), script.to_string()).unwrap();
        Self::with_source(dir, ModelSource::File(model))
    }

    fn with_source(dir: tempfile::TempDir, source: ModelSource) -> Self {
        let stats = Arc::new(Stats::default());
        let mut settings = ModelSettings::new(source, "test", dir.path().join("work"), Arc::clone(&stats));
        let run = dir.path().join("run");
        fs::create_dir(&run).unwrap();
        settings.run_bases = vec![run];
        // Models of tests write what they receive into their own directory.
        settings.sandbox = sandbox(SandboxMode::Auto, &[dir.path()]);
        Self { dir, settings, stats }
    }

    fn start(&self) -> Result<Model, ModelError> {
        Model::start(&self.settings, &Interrupt::new())
    }

    /// The requests that the model received, in order.
    fn requests(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.path().join("record.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The pid of the process that received the first request.
    fn pid(&self) -> Option<u32> {
        self.requests().first()?["pid"].as_u64().map(|pid| pid as u32)
    }

    /// Checks that nothing of the model is left: no directory, no process, no shared memory.
    fn assert_clean(&self, pid: Option<u32>) {
        let left: Vec<_> = fs::read_dir(self.dir.path().join("run")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        if let Some(pid) = pid {
            assert!(
                !Path::new(&format!("/proc/{pid}")).exists(),
                "process {pid} is still there"
            );
            assert_eq!(segments_of(pid), Vec::<PathBuf>::new());
        }
    }
}

/// The sandbox of this kernel.
fn sandbox(mode: SandboxMode, allow: &[&Path]) -> Sandbox {
    let allow = allow.iter().map(|path| path.to_path_buf()).collect();
    Sandbox::new(ModelSandboxConfig { mode, allow }, SandboxSupport::detect())
}

/// Shared memory created by the scripted model with this pid.
fn segments_of(pid: u32) -> Vec<PathBuf> {
    let prefix = format!("shm-scripted-{pid}-");
    let entries = fs::read_dir("/dev/shm").unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&prefix))
        .collect()
}

/// The example beside this test in the target directory.
fn scripted_model() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples/scripted-model");
    assert!(
        path.exists(),
        "{} is missing: cargo build --example scripted-model",
        path.display()
    );
    path
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn one_box(value: f64) -> Value {
    json!({ "bounding_boxes": [{ "label": "thing", "value": value, "x": 1, "y": 2, "width": 3, "height": 4 }] })
}

#[test]
fn features_reach_the_model_through_shared_memory_and_its_answer_is_received() {
    let bench = Bench::new(json!({ "answers": [one_box(0.5)] }));
    let mut model = bench.start().unwrap();
    assert!(model.uses_shared_memory());
    let features: Vec<f32> = (0..16u8).map(|i| f32::from(i) * 65793.0).collect();
    model.features().copy_from_slice(&features);
    let result = model.classify(16).unwrap();
    assert_eq!(result.bounding_boxes.unwrap()[0].value, 0.5);
    assert_eq!(result.model_ms, 3);
    let pid = model.pid();
    model.stop();
    assert_eq!(bench.requests()[1]["classify_shm"]["features"], json!(features));
    bench.assert_clean(pid);
}

#[test]
fn without_shared_memory_the_same_features_are_sent_as_json() {
    let bench = Bench::new(json!({ "shm": false, "hello": { "features_shm_error": "no /dev/shm" } }));
    let mut model = bench.start().unwrap();
    assert!(!model.uses_shared_memory());
    model.features().fill(16_777_215.0);
    model.classify(16).unwrap();
    assert_eq!(
        bench.requests()[1]["classify"]["features"],
        json!(vec![16_777_215.0; 16])
    );
}

#[test]
fn shm_behavior_never_and_always_are_honoured() {
    let mut never = Bench::new(json!({}));
    never.settings.shm = ShmBehavior::Never;
    never.start().unwrap().classify(16).unwrap_err();
    let mut model = never.start().unwrap();
    model.features();
    model.classify(16).unwrap();
    assert!(never.requests().last().unwrap().get("classify").is_some());

    let mut always = Bench::new(json!({ "shm": false, "hello": { "features_shm_error": "no /dev/shm" } }));
    always.settings.shm = ShmBehavior::Always;
    let error = always.start().unwrap_err();
    assert!(error.is_permanent());
    assert!(error.to_string().contains("no /dev/shm"), "{error}");
    always.assert_clean(None);
}

#[test]
fn a_segment_too_small_for_the_features_is_not_written_to() {
    let bench = Bench::new(json!({ "shm_elements": 15 }));
    let mut model = bench.start().unwrap();
    assert!(!model.uses_shared_memory());
    assert_eq!(model.features().len(), 16);
    model.classify(16).unwrap();
}

#[test]
fn a_model_that_changes_the_size_of_its_segment_gets_the_next_features_whole() {
    let resized = [0, 4, 63, 1 << 20].map(|bytes| json!({ "resize_shm": bytes, "then": one_box(0.5) }));
    let bench = Bench::new(json!({ "answers": resized, "repeat": "cycle" }));
    let mut model = bench.start().unwrap();
    for round in 0..8u8 {
        model.features().fill(f32::from(round));
        model.classify(16).unwrap();
    }
    assert!(model.uses_shared_memory());
    for (round, request) in bench.requests()[1..].iter().enumerate() {
        assert_eq!(request["classify_shm"]["features"], json!(vec![round as f32; 16]));
    }
}

#[test]
fn features_can_be_overwritten_while_the_model_works() {
    for shm in [ShmBehavior::Always, ShmBehavior::Never] {
        let mut bench = Bench::new(json!({ "answers": [one_box(0.5)] }));
        bench.settings.shm = shm;
        let mut model = bench.start().unwrap();
        model.features().fill(1.0);
        model.send(16).unwrap();
        model.features().fill(2.0);
        model.receive().unwrap();
        let request = &bench.requests()[1];
        let sent = request.get("classify_shm").unwrap_or(&request["classify"]);
        assert_eq!(sent["features"], json!(vec![1.0; 16]));
    }
}

#[test]
fn a_model_that_truncates_its_outputs_has_failed() {
    let truncated = json!({ "resize_shm": 4, "then": { "freeform": "shm" } });
    let bench = Bench::new(json!({ "freeform_shm": [[0.25, 0.5]], "answers": [{ "freeform": "shm" }, truncated] }));
    let mut model = bench.start().unwrap();
    model.features();
    assert_eq!(model.classify(16).unwrap().freeform, Some(vec![vec![0.25, 0.5]]));
    let error = model.classify(16).unwrap_err();
    assert!(error.is_fatal() && !error.is_permanent(), "{error}");
    assert!(error.to_string().contains("cannot be used any more: /shm-"), "{error}");
}

#[test]
fn free_form_values_are_copied_from_shared_memory_and_cleaned() {
    let bench = Bench::new(json!({ "freeform_shm": [[0.25, 0.5], [null]], "answers": [{ "freeform": "shm" }] }));
    let mut model = bench.start().unwrap();
    assert_eq!(
        model.classify(16).unwrap().freeform,
        Some(vec![vec![0.25, 0.5], vec![0.0]])
    );
    assert_eq!(bench.stats.answers_cleaned.get(), 1);
}

#[test]
fn unusual_answers_are_cleaned_and_counted_and_the_model_continues() {
    let strange = json!({ "classification": { "a": null, ("b".repeat(400)): 1.0 } });
    let huge = json!({ "classification": { "a": 0.5 }, "noise": "x".repeat(20 << 20) });
    let bench = Bench::new(json!({ "answers": [strange, huge, one_box(1.0)] }));
    let mut model = bench.start().unwrap();
    let classes = model.classify(16).unwrap().classification.unwrap();
    assert_eq!((classes[0].1, classes[1].0.len()), (0.0, 256));
    assert_eq!(bench.stats.answers_cleaned.get(), 2);
    assert_eq!(model.classify(16).unwrap().classification.unwrap()[0].1, 0.5);
    assert!(model.classify(16).unwrap().bounding_boxes.is_some());
}

#[test]
fn an_error_of_the_model_affects_one_request_only() {
    let no_id = json!({ "message": { "id": null, "success": false, "error": "bad id" } });
    let bench = Bench::new(json!({ "answers": [{ "error": "wrong size" }, no_id, one_box(1.0)] }));
    let mut model = bench.start().unwrap();
    for reason in ["wrong size", "bad id"] {
        let error = model.classify(16).unwrap_err();
        assert!(!error.is_fatal() && error.to_string().contains(reason), "{error}");
    }
    model.classify(16).unwrap();
}

#[test]
fn an_answer_to_another_request_is_an_error() {
    let bench = Bench::new(json!({ "answers": [{ "message": { "id": 77, "success": true, "result": {} } }] }));
    let error = bench.start().unwrap().classify(16).unwrap_err();
    assert!(error.is_fatal());
    assert!(
        error.to_string().contains("an answer to request 77 instead of 2"),
        "{error}"
    );
}

#[test]
fn a_malformed_answer_is_quoted_and_leaves_nothing_behind() {
    for raw in ["Segmentation fault\n", "{\"id\":2,]}\n"] {
        let bench = Bench::new(json!({ "answers": [{ "raw": raw }] }));
        let mut model = bench.start().unwrap();
        let pid = model.pid();
        let error = model.classify(16).unwrap_err();
        assert!(matches!(error, ModelError::Malformed { .. }), "{error}");
        assert!(error.to_string().contains(&raw[..6].replace('"', "\\\"")), "{error}");
        drop(model);
        bench.assert_clean(pid);
    }
}

#[test]
fn a_model_that_dies_is_reported_with_exit_status_and_last_output() {
    let bench = Bench::new(json!({ "stderr": ["loading", "out of luck"], "answers": [one_box(1.0), { "exit": 3 }] }));
    let mut model = bench.start().unwrap();
    let pid = model.pid();
    model.classify(16).unwrap();
    let error = model.classify(16).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("failed with exit status 3 while it was working") && text.contains("out of luck"),
        "{text}"
    );
    assert_eq!(error.output(), ["loading", "out of luck"]);
    assert!(!error.is_stop_signal());
    drop(model);
    bench.assert_clean(pid);
}

#[test]
fn a_model_that_crashes_leaves_no_shared_memory_behind() {
    let bench = Bench::new(json!({ "answers": [{ "abort": true }] }));
    let mut model = bench.start().unwrap();
    let pid = model.pid();
    let error = model.classify(16).unwrap_err();
    assert!(error.to_string().contains("signal 6 (SIGABRT"), "{error}");
    assert_eq!(
        segments_of(pid.unwrap()).len(),
        1,
        "the model itself removes nothing when it crashes"
    );
    drop(model);
    bench.assert_clean(pid);
}

#[test]
fn a_model_ended_by_a_stop_signal_is_recognised() {
    let bench = Bench::new(json!({ "answers": [{ "hang": true }] }));
    let mut model = bench.start().unwrap();
    model.send(16).unwrap();
    let pid = rustix::process::Pid::from_raw(model.pid().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(model.receive().unwrap_err().is_stop_signal());
}

#[test]
fn each_step_has_a_time_limit() {
    let mut bench = Bench::new(json!({ "answers": [{ "hang": true }] }));
    bench.settings.timeouts.classify = Duration::from_millis(50);
    let error = bench.start().unwrap().classify(16).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("did not answer within 50 ms while it was working"),
        "{error}"
    );

    let mut bench = Bench::new(json!({ "hello_delay_ms": 60_000 }));
    bench.settings.timeouts.hello = Duration::from_millis(50);
    let error = bench.start().unwrap_err();
    assert!(
        error.to_string().contains("within 50 ms when asked what it is"),
        "{error}"
    );
    bench.assert_clean(None);

    let mut bench = Bench::new(json!({ "startup_delay_ms": 60_000 }));
    bench.settings.timeouts.socket = Duration::from_millis(50);
    let error = bench.start().unwrap_err();
    assert!(
        error.to_string().contains("did not open its socket within 50 ms"),
        "{error}"
    );
    bench.assert_clean(None);
}

#[test]
fn a_model_that_ends_before_it_listens_is_noticed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.eim");
    fs::copy("/bin/false", &model).unwrap();
    let bench = Bench::with_source(dir, ModelSource::File(model));
    let begin = Instant::now();
    let error = bench.start().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("failed with exit status 1 while it was starting"),
        "{error}"
    );
    assert!(begin.elapsed() < LIMIT);
    bench.assert_clean(None);
}

/// Runs `wait`, interrupts it once `ready`, and checks that it ends soon.
fn interrupted(bench: &Bench, ready: impl Fn() -> bool, wait: impl FnOnce(&Interrupt) -> Option<ModelError> + Send) {
    let interrupt = Interrupt::new();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&interrupt));
        until("the model is waited for", ready);
        let begin = Instant::now();
        interrupt.trip();
        assert!(matches!(waiting.join().unwrap(), Some(ModelError::Interrupted)));
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    });
    bench.assert_clean(bench.pid());
}

#[test]
fn a_start_is_interrupted_before_the_socket_is_there() {
    let bench = Bench::new(json!({ "startup_delay_ms": 60_000 }));
    let run = bench.dir.path().join("run");
    interrupted(
        &bench,
        || fs::read_dir(&run).unwrap().count() == 1,
        |interrupt| Model::start(&bench.settings, interrupt).err(),
    );
}

#[test]
fn a_start_is_interrupted_during_the_hello() {
    let bench = Bench::new(json!({ "hello_delay_ms": 60_000 }));
    interrupted(
        &bench,
        || !bench.requests().is_empty(),
        |interrupt| Model::start(&bench.settings, interrupt).err(),
    );
}

#[test]
fn a_classification_is_interrupted_from_another_thread() {
    let bench = Bench::new(json!({ "answers": [{ "hang": true }] }));
    let wait = |interrupt: &Interrupt| Model::start(&bench.settings, interrupt).unwrap().classify(16).err();
    interrupted(&bench, || bench.requests().len() == 2, wait);
}

#[test]
fn a_model_that_ignores_signals_is_killed_after_a_second_and_cleaned_up() {
    let bench = Bench::new(json!({ "ignore_signals": true, "answers": [{ "close": true }] }));
    let mut model = bench.start().unwrap();
    let pid = model.pid();
    let error = model.classify(16).unwrap_err();
    assert!(error.to_string().contains("closed the connection"), "{error}");
    let begin = Instant::now();
    model.stop();
    assert!(begin.elapsed() >= Duration::from_secs(1) && begin.elapsed() < Duration::from_secs(3));
    bench.assert_clean(pid);
}

#[test]
fn a_model_killed_while_it_is_loading_leaves_no_shared_memory() {
    // It has its segment from the start, but is killed before the hello could name it.
    let mut bench = Bench::new(json!({ "hello_delay_ms": 60_000 }));
    bench.settings.timeouts.hello = LIMIT;
    let interrupt = Interrupt::new();
    thread::scope(|scope| {
        let start = scope.spawn(|| Model::start(&bench.settings, &interrupt).err());
        until("the model has its segment", || !bench.requests().is_empty());
        assert_eq!(segments_of(bench.pid().unwrap()).len(), 1);
        interrupt.trip();
        assert!(matches!(start.join().unwrap(), Some(ModelError::Interrupted)));
    });
    bench.assert_clean(bench.pid());
}

#[test]
fn thresholds_are_set_with_one_key_per_request_and_a_refusal_is_not_fatal() {
    for ok in [true, false] {
        let mut bench = Bench::new(json!({ "thresholds": { "ok": ok } }));
        let threshold = |key: &str, value| Threshold {
            id: 18,
            key: key.into(),
            value,
        };
        bench.settings.thresholds = vec![
            threshold("min_score", 0.25),
            threshold("no{good", 1.0),
            threshold("other", 35.0),
        ];
        let mut model = bench.start().unwrap();
        let requests = bench.requests();
        assert_eq!(requests[1]["set_threshold"], json!({ "id": 18, "min_score": 0.25 }));
        assert_eq!(requests[2]["set_threshold"], json!({ "id": 18, "other": 35 }));
        assert_eq!(model.set_threshold(&threshold("min_score", 0.5)).is_ok(), ok);
        model.classify(16).unwrap();
    }
}

#[test]
fn parameters_are_set_and_pictures_larger_than_the_shared_memory_are_sent_as_json() {
    let bench = Bench::new(json!({ "parameters": { "ok": true } }));
    let mut model = bench.start().unwrap();
    let parameters = json!({ "image_resize_mode": "none", "image_width": 5, "image_height": 4 });
    model.set_parameter(parameters.as_object().unwrap()).unwrap();
    model.features_for(20).unwrap().fill(3.0);
    model.classify(20).unwrap();
    let requests = bench.requests();
    assert_eq!(requests[1]["set_parameter"], parameters);
    assert_eq!(requests[2]["classify"]["features"], json!(vec![3.0; 20]));
    assert!(matches!(model.classify(21), Err(ModelError::TooManyValues { .. })));
    assert!(model.features_for(usize::MAX).is_err());

    let refusing = Bench::new(json!({}))
        .start()
        .unwrap()
        .set_parameter(&Map::new())
        .unwrap_err();
    assert!(!refusing.is_fatal());
}

#[test]
fn a_slow_engine_gets_a_warm_up_of_zeros_with_its_own_time_limit() {
    let slow = json!({ "delay_ms": 120, "then": one_box(0.9) });
    let hello = json!({ "inferencing_engine": { "engine_type": 6 }, "model_parameters": { "inferencing_engine": 6 } });
    let mut bench = Bench::new(json!({ "hello": hello, "answers": [slow, { "hang": true }] }));
    bench.settings.timeouts.classify = Duration::from_millis(60);
    let mut model = bench.start().unwrap();
    assert!(model.info().slow_first_inference);
    model.warm_up().unwrap();
    assert_eq!(bench.requests()[1]["classify_shm"]["features"], json!(vec![0.0; 16]));
    assert!(matches!(model.classify(16), Err(ModelError::TimedOut { .. })));
}

#[test]
fn no_secret_is_in_the_models_environment() {
    let dir = tempfile::tempdir().unwrap();
    let dump = dir.path().join("env.json");
    let mut bench = Bench::new(json!({ "dump_env": dump }));
    bench.settings.sandbox = sandbox(SandboxMode::Auto, &[dir.path(), bench.dir.path()]);
    let _model = bench.start().unwrap();
    let seen: Map<String, Value> = serde_json::from_slice(&fs::read(&dump).unwrap()).unwrap();
    // Cargo sets dozens of variables for a test; none of them is one that a model needs.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    assert!(!seen.keys().any(|key| key.starts_with("CARGO")), "{seen:?}");
    assert!(seen.contains_key("PATH"));
}

#[test]
fn a_file_that_is_not_a_model_is_not_started() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("model.eim");
    fs::write(&page, "<!DOCTYPE html><title>403</title>").unwrap();
    let bench = Bench::with_source(dir, ModelSource::File(page));
    let error = bench.start().unwrap_err();
    assert!(
        error.is_permanent() && error.to_string().contains("a web page"),
        "{error}"
    );
    let mut bench = Bench::new(json!({}));
    bench.settings.source = ModelSource::Builtin("bal".into());
    let error = bench.start().unwrap_err();
    assert!(error.to_string().contains("accepted are ball, classify"), "{error}");
}

#[test]
fn a_sweep_does_not_touch_a_model_of_a_running_daemon() {
    let bench = Bench::new(json!({}));
    let mut model = bench.start().unwrap();
    assert_eq!(sweep_in(&bench.settings.run_bases, "test"), 0);
    model.classify(16).unwrap();
}

#[test]
fn a_sweep_ends_the_model_of_a_killed_daemon_and_removes_its_memory() {
    let bench = Bench::new(json!({ "answers": [{ "hang": true }] }));
    let mut model = bench.start().unwrap();
    model.send(16).unwrap();
    let pid = model.pid().unwrap();
    // As after SIGKILL: nothing is closed or removed, and the owner that is written down runs no more.
    std::mem::forget(model);
    let directory = fs::read_dir(&bench.settings.run_bases[0])
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut state: Value = serde_json::from_slice(&fs::read(directory.join("state.json")).unwrap()).unwrap();
    state["owner"]["started"] = json!(0);
    fs::write(directory.join("state.json"), state.to_string()).unwrap();
    assert_eq!(segments_of(pid).len(), 1);
    assert_eq!(sweep_in(&bench.settings.run_bases, "test"), 1);
    assert_eq!(segments_of(pid), Vec::<PathBuf>::new());
    bench.assert_clean(None);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(
        stat.contains(") Z "),
        "ended, only this test has not waited for it: {stat}"
    );
}
