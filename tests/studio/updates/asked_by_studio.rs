//! Updates that Studio asks for over the channel.

use serde_json::json;

use super::*;
use crate::support::exchange::ExchangeStudio;
use crate::support::remote_management::{OnHello, RemoteManagement};
use crate::support::scripts::script;

const MONITOR: [&str; 2] = ["model_trial_inferences=3", "monitor=yes"];

#[test]
fn studio_updates_the_model_and_is_told_of_a_broken_one_as_in_exchange_h() {
    let stage = Stage::new(&[boxed(score(4))]);
    stage.set_answers(8, &[boxed(score(8))]);
    let studio = ExchangeStudio::new("H");
    let daemon = stage.run_with(&MONITOR, |command| {
        command.env("EI_REMOTE_MGMT_URL", studio.remote.url());
    });
    let (connection, hello) = studio.remote.hello(0);
    assert_eq!(hello["hello"]["inferenceInfo"]["deploymentVersion"], 3);
    stage.deploy(8);
    studio.play_with(|step| {
        if step["s"]["deploymentVersion"] == "latest" {
            stage.wait_for_inference_of(8, 0);
            let mut state = stage.bench.state.lock();
            state.version = Some(9);
            state.model = b"no program".to_vec();
        }
    });
    let refused = connection.wait_for(&json!({"modelUpdateSuccess": false}));
    assert!(refused["error"].as_str().unwrap().len() > 10, "{refused}");
    let inferred = stage.bench.observer.all("inference/output").len();
    stage.wait_for_inference_of(8, inferred);
    assert_eq!(
        studio.remote.connections.with(<[_]>::len),
        2,
        "the update itself needs no new hello"
    );
    daemon.stop();
    let (connection, _) = studio.remote.hello(1);
    let new = connection.wait_for(&json!({"inferenceSummary": "*"}));
    assert_eq!(new["inferenceSummary"]["start"]["index"], 1, "{new}");
    let (connection, _) = studio.remote.hello(0);
    let old = connection.wait_for(&json!({"inferenceSummary": "*"}));
    assert_eq!(
        old["inferenceSummary"]["start"]["index"], 1,
        "the window of version 3: {old}"
    );
    stage.assert_nothing_lost();
}

#[test]
fn studio_is_told_of_a_failed_trial_and_of_a_second_request_meanwhile() {
    let stage = Stage::new(&after(1, 4, crash()));
    let remote = RemoteManagement::start(OnHello::Accept);
    let daemon = stage.run_with(&["model_trial_inferences=30", "collect=yes"], |command| {
        command.env("EI_REMOTE_MGMT_URL", remote.url());
    });
    stage.bench.observer.wait_for_status("started", 1);
    stage.deploy(4);
    let (connection, _) = remote.hello(0);
    for _ in 0..2 {
        connection.send(&json!({"newModelAvailable": true, "deploymentVersion": 4}));
    }
    let busy = connection.wait_for(&json!({"modelUpdateSuccess": false}));
    assert!(busy["error"].as_str().unwrap().contains("in progress"), "{busy}");
    let failed = connection.wait_for_nth(&json!({"modelUpdateSuccess": false}), 1);
    let reason = failed["error"].as_str().unwrap();
    assert!(!reason.contains("in progress"), "{failed}");
    assert_eq!(stage.model_version(), "v3");
    daemon.stop();
}

#[test]
fn a_version_that_nobody_at_studio_asked_for_is_told_by_a_new_hello() {
    let stage = Stage::new(&[boxed(score(4))]);
    let work_dir = stage.bench.site.path();
    write_script(work_dir, 4, &{
        let mut script = script(&[boxed(score(4))]);
        script["hello"]["project"]["deploy_version"] = json!(4);
        script
    });
    let remote = RemoteManagement::start(OnHello::Accept);
    let daemon = stage.run_with(&MONITOR, |command| {
        command.env("EI_REMOTE_MGMT_URL", remote.url());
    });
    let (_, hello) = remote.hello(0);
    assert_eq!(hello["hello"]["inferenceInfo"]["deploymentVersion"], 3);
    stage.bench.observer.wait_for_status("started", 1);
    stage.deploy(4);
    stage.update(Value::Null);
    let (_, hello) = remote.hello(1);
    assert_eq!(hello["hello"]["inferenceInfo"]["deploymentVersion"], 4);
    daemon.stop();
}
