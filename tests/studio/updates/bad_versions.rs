//! Versions that fail in their download, their trial or their probation.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Stage, after, crash, score, version_script};
use crate::studio::write_script;
use crate::support::daemon::{Daemon, scripted_model};
use crate::support::http::Reply;
use crate::support::leftovers::wait_until;
use crate::support::scripts::boxed;

/// Version 4 fails its trial: version 3 goes on, and version 4 is not taken again.
fn assert_refused(stage: &Stage, daemon: Daemon, expected: &str) {
    let answer = stage.update(Value::Null);
    let error = answer["error"].as_str().unwrap_or_default();
    assert!(error.contains(expected), "{answer}");
    assert_eq!(answer["update_model"], json!({"found": "v4", "running": "v3"}));
    let notice = stage.bench.observer.wait_for_status("model_update_failed", 1);
    assert_eq!(
        (&notice["result"]["model_version"], &notice["result"]["failed_version"]),
        (&json!("v3"), &json!("v4"))
    );
    assert!(
        notice["result"]["error"].as_str().unwrap().contains(expected),
        "{notice}"
    );
    stage.wait_for_problem("model: version 4 is not used: ");
    let again = stage.update(Value::Null);
    let error = again["error"].as_str().unwrap_or_default();
    assert!(
        error.contains("is not used again") && error.contains(expected),
        "{again}"
    );
    assert_eq!(stage.model_version(), "v3");
    daemon.wait_for_line("The new model failed, and the one before goes on");
    wait_until("the bad version is removed", || stage.stored() == [3]);
    daemon.stop();
    stage.assert_nothing_lost();
    assert!(stage.inferred().iter().all(|version| *version == 3));

    // The next start does not take it either.
    let daemon = stage.run(&[]);
    stage.bench.observer.wait_for_status("started", 2);
    assert_eq!(stage.model_version(), "v3");
    daemon.wait_for_line("version 4 is not used again");
    daemon.stop();
}

#[test]
fn a_version_that_crashes_at_its_hello_is_not_used() {
    let stage = Stage::new(&[boxed(score(4))]);
    let work_dir = stage.bench.site.path();
    let mut script = version_script(work_dir, 4, &[]);
    script["exit_at_hello"] = json!(3);
    write_script(work_dir, 4, &script);
    let daemon = stage.begin(&[]);
    assert_refused(&stage, daemon, "failed before its trial");
}

#[test]
fn a_version_that_crashes_at_the_fifth_frame_of_its_trial_is_not_used() {
    let stage = Stage::new(&after(4, 4, crash()));
    let daemon = stage.begin(&[]);
    assert_refused(&stage, daemon, "failed in its trial, at input 5 of 30");
}

#[test]
fn a_version_that_answers_with_an_error_is_not_used() {
    let stage = Stage::new(&after(2, 4, json!({"error": "arena too small"})));
    let daemon = stage.begin(&[]);
    assert_refused(&stage, daemon, "arena too small");
}

#[test]
fn a_version_that_is_slower_than_the_source_is_not_used() {
    let stage = Stage::new(&[json!({"delay_ms": 400, "then": boxed(score(4))})]);
    let daemon = stage.begin(&[]);
    assert_refused(&stage, daemon, "the model is too slow");
}

#[test]
fn a_version_that_crashes_three_times_after_it_took_over_gives_way_to_the_one_before() {
    // Each start of version 4 answers five inputs: the trial, then some frames after each restart.
    let stage = Stage::new(&after(5, 4, crash()));
    let daemon = stage.begin(&["model_trial_inferences=5"]);
    let answer = stage.update(Value::Null);
    assert_eq!(answer["update_model"]["running"], "v4", "{answer}");
    let notice = stage.bench.observer.wait_for_status("model_restored", 1);
    assert_eq!(
        (&notice["result"]["model_version"], &notice["result"]["failed_version"]),
        (&json!("v3"), &json!("v4"))
    );
    let reason = notice["result"]["error"].as_str().unwrap();
    assert!(reason.starts_with("it failed 3 times within 10 min"), "{reason}");
    stage.wait_for_problem("model: version 4 is not used any more: it failed 3 times");
    stage.wait_for_return_to(3, 4);
    assert_eq!(stage.model_version(), "v3");
    let again = stage.update(Value::Null);
    assert!(
        again["error"].as_str().unwrap().contains("version 4 is not used again"),
        "{again}"
    );

    // Its number tries it once more; it is good now.
    stage.set_answers(4, &[boxed(score(4))]);
    let answer = stage.update(json!(4));
    assert_eq!(answer, json!({"update_model": {"found": "v4", "running": "v4"}}));
    stage.bench.wait_for_no_problem();
    daemon.stop();
    assert_eq!(stage.stored(), [3, 4]);
}

#[test]
fn a_newer_version_is_taken_after_a_bad_one_and_only_the_one_before_is_kept() {
    let stage = Stage::new(&[crash()]);
    let daemon = stage.begin(&["model_trial_inferences=3"]);
    let answer = stage.update(Value::Null);
    assert!(answer["error"].is_string(), "{answer}");
    for version in [5, 6] {
        stage.set_answers(version, &[boxed(score(version))]);
        stage.deploy(version);
        let answer = stage.update(Value::Null);
        let shown = format!("v{version}");
        assert_eq!(answer["update_model"], json!({"found": shown, "running": shown}));
        stage.wait_for_inference_of(version, 0);
    }
    // The one before needs no download, and Studio has no other.
    let downloads = stage.studio.count("/deployment/download");
    let answer = stage.update(json!("v5"));
    assert_eq!(answer, json!({"update_model": {"found": "v5", "running": "v5"}}));
    let answer = stage.update(json!(2));
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("Edge Impulse Studio has version 6"),
        "{answer}"
    );
    assert_eq!(stage.studio.count("/deployment/download"), downloads);
    daemon.stop();
    assert_eq!(stage.stored(), [5, 6]);
}

#[test]
fn a_download_that_breaks_off_leaves_the_running_model() {
    let stage = Stage::new(&[boxed(score(4))]);
    let daemon = stage.begin(&["model_trial_inferences=3"]);
    let mut failures = 1;
    let half = std::fs::read(scripted_model()).unwrap();
    let half = half[..half.len() / 2].to_vec();
    stage.bench.state.lock().instead.push((
        "/deployment/download",
        Box::new(move |_| {
            failures -= 1;
            (failures >= 0).then(|| Reply::bytes("application/octet-stream", half.clone()))
        }),
    ));
    let answer = stage.update(Value::Null);
    assert!(
        answer["error"].as_str().unwrap().contains("is not complete"),
        "{answer}"
    );
    assert_eq!(answer["update_model"], json!({"found": "v4", "running": "v3"}));
    // It was the download and not the version.
    let answer = stage.update(Value::Null);
    assert_eq!(answer, json!({"update_model": {"found": "v4", "running": "v4"}}));
    daemon.stop();
}

#[test]
fn a_model_for_another_machine_is_refused_and_not_downloaded_again() {
    let stage = Stage::new(&[boxed(score(4))]);
    let daemon = stage.begin(&[]);
    // The machine number of the ELF header: RISC-V.
    stage.bench.state.lock().model[18] = 243;
    let answer = stage.update(Value::Null);
    assert!(
        answer["error"].as_str().unwrap().contains("is built for RISC-V"),
        "{answer}"
    );
    stage.bench.observer.wait_for_status("model_update_failed", 1);
    let answer = stage.update(Value::Null);
    assert!(
        answer["error"].as_str().unwrap().contains("is not used again"),
        "{answer}"
    );
    assert_eq!(stage.studio.count("/deployment/download"), 2, "versions 3 and 4");
    daemon.stop();
    assert_eq!(stage.stored(), [3]);
}

#[test]
fn only_the_file_with_the_configured_digest_is_taken() {
    let stage = Stage::new(&[boxed(score(4))]);
    let model = std::fs::read(scripted_model()).unwrap();
    let digest: String = Sha256::digest(&model)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    let daemon = stage.begin(&["model_trial_inferences=3", &format!("model_sha256={digest}")]);
    stage.bench.state.lock().model.push(0);
    let answer = stage.update(Value::Null);
    let error = answer["error"].as_str().unwrap();
    assert!(
        error.contains("has the SHA-256") && error.contains(&digest.to_lowercase()),
        "{answer}"
    );
    stage.bench.observer.wait_for_status("model_update_failed", 1);
    stage.wait_for_problem("model: version 4 is not used: ");
    let downloads = stage.studio.count("/deployment/download");
    let answer = stage.update(Value::Null);
    assert!(
        answer["error"].as_str().unwrap().contains("is not used again"),
        "{answer}"
    );
    assert_eq!(stage.studio.count("/deployment/download"), downloads);
    stage.bench.state.lock().model.pop();
    let answer = stage.update(json!(4));
    assert_eq!(answer, json!({"update_model": {"found": "v4", "running": "v4"}}));
    daemon.stop();
}

#[test]
fn a_configured_model_file_is_not_updated() {
    let stage = Stage::new(&[boxed(score(4))]);
    let work_dir = stage.bench.site.path();
    let model = stage
        .bench
        .site
        .scripted_model(&version_script(work_dir, 3, &[boxed(score(3))]));
    let daemon = stage.run_with(&[], |command| {
        command.args(["--model", model.to_str().unwrap()]);
    });
    stage.bench.observer.wait_for_status("started", 1);
    let answer = stage.update(Value::Null);
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("ei_local_model_file"), "{answer}");
    assert_eq!(answer["update_model"], json!({"found": null, "running": "v3"}));
    daemon.stop();
    assert_eq!(stage.studio.count(""), 0);
}
