//! Power cuts and stops at each step of an update.

use std::time::Duration;

use serde_json::{Value, json};

use super::{SETS, Stage, after, crash, score, send_update};
use crate::support::daemon::{Daemon, LIMIT};
use crate::support::http::Reply;
use crate::support::scripts::boxed;

/// Ends the component as a power cut does, and starts it again.
fn cut_power(stage: &Stage, mut daemon: Daemon, sets: &[&str]) -> Daemon {
    daemon.signal(rustix::process::Signal::KILL);
    daemon.wait_for_end(LIMIT);
    stage.run(sets)
}

/// Version 3 starts again, and is then replaced by version 4.
fn the_update_continues_after_a_power_cut(stage: &Stage, daemon: Daemon) {
    let daemon = cut_power(stage, daemon, &SETS);
    let started = stage.bench.observer.wait_for_status("started", 2);
    assert_eq!(started["result"]["model_version"], "v3");
    stage.bench.observer.wait_for_status("model_updated", 1);
    assert_eq!(stage.model_version(), "v4");
    daemon.stop();
}

#[test]
fn after_a_power_cut_during_the_download_the_old_version_runs_and_the_update_continues() {
    let stage = Stage::new(&[boxed(score(4))]);
    let daemon = stage.begin(&SETS);
    let mut hangs = 1;
    stage.bench.state.lock().instead.push((
        "/deployment/download",
        Box::new(move |_| {
            hangs -= 1;
            (hangs >= 0).then(Reply::hang)
        }),
    ));
    let begun = stage.studio.count("/deployment/download");
    send_update(&stage);
    stage.studio.requests.wait_for("the download", LIMIT, |all| {
        let downloads = all
            .iter()
            .filter(|request| request.path.ends_with("/deployment/download"));
        (downloads.count() > begun).then_some(())
    });
    the_update_continues_after_a_power_cut(&stage, daemon);
}

#[test]
fn after_a_power_cut_during_the_trial_the_old_version_runs_and_the_trial_is_repeated() {
    let stage = Stage::new(&after(2, 4, json!({"hang": true})));
    let daemon = stage.begin(&SETS);
    send_update(&stage);
    daemon.wait_for_line("The new model is tried beside the running one");
    stage.set_answers(4, &[boxed(score(4))]);
    the_update_continues_after_a_power_cut(&stage, daemon);
}

/// The numbers of the inferences of each process, in the order in which they were published.
fn numbers_of_each_process(stage: &Stage) -> Vec<Vec<u64>> {
    let mut processes: Vec<Vec<u64>> = Vec::new();
    for message in stage.bench.observer.all("inference/output") {
        let number = message.json()["total_inferences"].as_u64().unwrap();
        match processes.last_mut() {
            Some(numbers) if number != 1 => numbers.push(number),
            _ => processes.push(vec![number]),
        }
    }
    processes
}

#[test]
fn a_power_cut_at_any_step_of_an_update_leaves_a_model_that_runs_and_takes_the_new_one_in_the_end() {
    for step in [
        "Looking for a new version of the model",
        "Downloading the model version=4",
        "Downloaded the model version=4",
        "The new model is tried beside the running one",
        "The new model has passed its trial",
        "The new model has taken over",
    ] {
        let stage = Stage::new(&[boxed(score(4))]);
        let daemon = stage.begin(&SETS);
        send_update(&stage);
        daemon.wait_for_line(step);
        let daemon = cut_power(&stage, daemon, &SETS);
        let started = stage.bench.observer.wait_for_status("started", 2);
        let version = started["result"]["model_version"].as_str().unwrap().to_owned();
        assert!(["v3", "v4"].contains(&&*version), "{step}: {started}");
        if version == "v3" && stage.model_version() == "v3" {
            // The cut may have come before anything of the update was on disk.
            send_update(&stage);
        }
        let skip = stage.inferred().len();
        stage.wait_for_inference_of(4, skip);
        daemon.stop();
        let processes = numbers_of_each_process(&stage);
        assert_eq!(processes.len(), 2, "{step}");
        for numbers in processes {
            assert!(
                numbers.iter().zip(1..).all(|(number, expected)| *number == expected),
                "{step}: {numbers:?}"
            );
        }
    }
}

#[test]
fn a_version_with_which_the_component_never_survives_the_trial_is_bad() {
    let stage = Stage::new(&[json!({"hang": true})]);
    let mut daemon = stage.begin(&SETS);
    send_update(&stage);
    for start in 2..=4 {
        daemon.wait_for_line("The new model is tried beside the running one");
        daemon = cut_power(&stage, daemon, &SETS);
        stage.bench.observer.wait_for_status("started", start);
    }
    let notice = stage.bench.observer.wait_for_status("model_update_failed", 1);
    assert!(
        notice["result"]["error"].as_str().unwrap().contains("each of 3 trials"),
        "{notice}"
    );
    assert_eq!(stage.model_version(), "v3");
    daemon.stop();
}

#[test]
fn after_a_power_cut_behind_the_takeover_the_new_version_runs_and_is_still_on_probation() {
    let stage = Stage::new(&after(5, 4, crash()));
    // Good until the component is killed.
    stage.set_answers(4, &[boxed(score(4))]);
    let daemon = stage.begin(&SETS);
    assert_eq!(stage.update(Value::Null)["update_model"]["running"], "v4");
    stage.set_answers(4, &after(5, 4, crash()));
    let daemon = cut_power(&stage, daemon, &SETS);
    let started = stage.bench.observer.wait_for_status("started", 2);
    assert_eq!(started["result"]["model_version"], "v4");
    stage.bench.observer.wait_for_status("model_restored", 1);
    stage.wait_for_return_to(3, 4);

    // And after the way back.
    let daemon = cut_power(&stage, daemon, &SETS);
    daemon.wait_for_line("The model is loaded model=\"Scripted\" version=3");
    daemon.stop();
}

#[test]
fn a_start_that_finds_a_new_version_goes_back_when_it_crashes() {
    let stage = Stage::new(&after(3, 4, crash()));
    let daemon = stage.begin(&[]);
    daemon.stop();
    let daemon = stage.run(&[]);
    stage.bench.observer.wait_for_status("model_restored", 1);
    stage.wait_for_return_to(3, 4);
    assert_eq!(stage.model_version(), "v3");
    daemon.stop();
}

#[test]
fn a_stop_during_a_trial_is_quick_and_the_next_start_repeats_it() {
    let stage = Stage::new(&[json!({"hang": true})]);
    let mut daemon = stage.begin(&SETS);
    send_update(&stage);
    daemon.wait_for_line("The new model is tried beside the running one");
    daemon.signal(rustix::process::Signal::TERM);
    let (status, took) = daemon.wait_for_end(LIMIT);
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(4), "{took:?}");
    stage.set_answers(4, &[boxed(score(4))]);
    let daemon = stage.run(&SETS);
    stage.bench.observer.wait_for_status("model_updated", 1);
    daemon.stop();
    assert!(crate::support::leftovers::run_directories(&stage.bench.site).is_empty());
}
