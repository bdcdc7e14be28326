//! Thresholds that viewers of the live page change, over a change of the model.

use serde_json::{Value, json};

use super::{Stage, record, requests_of, score, send_update, version_script};
use crate::preview::client::Client;
use crate::studio::write_script;
use crate::support::daemon::Daemon;
use crate::support::ports::free_port;
use crate::support::scripts::{boxed, recorded};

/// Version 3 with its page, and a viewer.
struct Viewed {
    stage: Stage,
    daemon: Daemon,
    viewer: Client,
}

impl Viewed {
    /// `version_4`: what differs in the script of version 4.
    async fn begin(trial: &str, version_4: Value) -> Self {
        let stage = Stage::new(&[boxed(score(4))]);
        let work_dir = stage.bench.site.path();
        let mut script = version_script(work_dir, 4, &[boxed(score(4))]);
        script
            .as_object_mut()
            .unwrap()
            .extend(version_4.as_object().unwrap().clone());
        write_script(work_dir, 4, &script);
        let port = free_port();
        let page = format!("preview_port={port}");
        let daemon = stage.begin(&[trial, "preview=on", &page]);
        daemon.wait_for_line("Listening server=\"live page\"");
        let (socket, _) = tokio_tungstenite::connect_async(format!("ws://127.0.0.1:{port}/"))
            .await
            .unwrap();
        Self {
            stage,
            daemon,
            viewer: Client(socket),
        }
    }

    async fn change(&mut self, value: f64) {
        let message = json!({"type": "threshold-override", "id": 1, "key": "min_score", "value": value});
        let answer = self.viewer.ask(&message).await;
        assert_eq!(answer["type"], "handling-message-success", "{answer}");
    }

    /// What version 4 was told, in order: a threshold, or `null` for an input.
    fn told(&self) -> Vec<Value> {
        let requests = recorded(&record(self.stage.bench.site.path(), 4));
        let told = requests.iter().filter(|request| request.get("hello").is_none());
        told.map(|request| request["set_threshold"]["min_score"].clone())
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_is_tried_with_the_thresholds_of_the_viewers() {
    let mut viewed = Viewed::begin("model_trial_inferences=5", json!({})).await;
    viewed.change(0.25).await;
    let answer = viewed.stage.update(Value::Null);
    assert_eq!(answer["update_model"]["running"], "v4", "{answer}");
    viewed.stage.wait_for_inference_of(4, 0);
    let told = viewed.told();
    assert_eq!(told[..2], [json!(0.25), Value::Null], "before the first input");
    assert_eq!(told.iter().filter(|told| !told.is_null()).count(), 1);
    viewed.daemon.stop();
    viewed.stage.assert_nothing_lost();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_threshold_that_is_changed_during_the_trial_is_set_before_the_new_version_takes_over() {
    let mut viewed = Viewed::begin("model_trial_inferences=40", json!({})).await;
    send_update(&viewed.stage);
    viewed
        .daemon
        .wait_for_line("The new model is tried beside the running one");
    viewed.change(0.75).await;
    viewed.stage.bench.observer.wait_for_status("model_updated", 1);
    viewed.stage.wait_for_inference_of(4, 0);
    let told = viewed.told();
    let set = told
        .iter()
        .position(|told| *told == 0.75)
        .expect("the threshold is set");
    assert_eq!(
        set, 40,
        "after the inputs of the trial, and before the first one of its own"
    );
    viewed.daemon.stop();
    viewed.stage.assert_nothing_lost();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_at_its_takeover_leaves_the_running_one_and_no_frame_is_lost() {
    let mut viewed = Viewed::begin("model_trial_inferences=40", json!({"thresholds": {"exit": 1}})).await;
    send_update(&viewed.stage);
    viewed
        .daemon
        .wait_for_line("The new model is tried beside the running one");
    viewed.change(0.75).await;
    let notice = viewed.stage.bench.observer.wait_for_status("model_update_failed", 1);
    assert_eq!(
        (&notice["result"]["model_version"], &notice["result"]["failed_version"]),
        (&json!("v3"), &json!("v4"))
    );
    assert_eq!(
        requests_of(viewed.stage.bench.site.path(), 4),
        40,
        "it has passed its trial"
    );
    let inferred = viewed.stage.inferred().len();
    viewed.stage.wait_for_inference_of(3, inferred);
    assert_eq!(viewed.stage.model_version(), "v3");
    viewed.daemon.stop();
    viewed.stage.assert_nothing_lost();
    assert!(viewed.stage.inferred().iter().all(|version| *version == 3));
}
