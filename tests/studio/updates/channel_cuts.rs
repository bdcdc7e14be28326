//! The channel of Studio is cut while it updates the model.

use serde_json::{Value, json};

use super::{Stage, score};
use crate::support::daemon::LIMIT;
use crate::support::remote_management::{OnHello, RemoteManagement};
use crate::support::scripts::boxed;

/// Waits until a later connection than the first one has told Studio that this version runs.
fn wait_until_studio_knows(remote: &RemoteManagement, version: u64) {
    let names_it = |info: &Value| info["deploymentVersion"] == version;
    let mut nth = 1;
    loop {
        let connection = remote.connection(nth);
        let knows = connection
            .messages
            .wait_for("a hello, or the answer", LIMIT, |messages| {
                let known = messages.iter().any(|message| {
                    names_it(&message["hello"]["inferenceInfo"])
                        || message["modelUpdateSuccess"] == true && names_it(&message["inferenceInfo"])
                });
                let has_next = remote.connections.with(<[_]>::len) > nth + 1;
                (known || has_next).then_some(known)
            });
        if knows {
            return;
        }
        nth += 1;
    }
}

#[test]
fn a_channel_that_is_cut_does_not_interrupt_an_update_and_studio_hears_of_the_version_afterwards() {
    for (step, inferences) in [
        ("Downloading the model version=4", 5),
        ("The new model is tried beside the running one", 5),
        // The next connection is there before the trial has ended.
        ("The new model is tried beside the running one", 100),
    ] {
        let stage = Stage::new(&[boxed(score(4))]);
        let remote = RemoteManagement::start(OnHello::Accept);
        let trial = format!("model_trial_inferences={inferences}");
        let daemon = stage.run_with(&[&trial, "monitor=yes", "collect=yes"], |command| {
            command.env("EI_REMOTE_MGMT_URL", remote.url());
        });
        stage.bench.observer.wait_for_status("started", 1);
        stage.deploy(4);
        let (connection, _) = remote.hello(0);
        connection.send(&json!({"newModelAvailable": true, "deploymentVersion": 4}));
        daemon.wait_for_line(step);
        connection.cut();
        stage.bench.observer.wait_for_status("model_updated", 1);
        stage.wait_for_inference_of(4, 0);
        wait_until_studio_knows(&remote, 4);
        daemon.stop();
        stage.assert_nothing_lost();
        assert!(stage.inferred().is_sorted());
    }
}
