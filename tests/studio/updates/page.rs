//! What the live page and `/api/status` show of the versions.

use serde_json::{Value, json};

use super::{Stage, after, crash, score, send_update};
use crate::preview::chromium::{Chromium, View};
use crate::support::ports::free_port;
use crate::support::scripts::boxed;

async fn model_status(port: u16) -> Value {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://127.0.0.1:{port}/api/status");
    let status: Value = client.get(url).send().await.unwrap().json().await.unwrap();
    status["model"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_version_its_probation_the_trial_of_the_next_one_and_the_bad_one() {
    let stage = Stage::new(&after(4, 4, crash()));
    let port = free_port();
    let page_key = format!("preview_port={port}");
    let daemon = stage.begin(&["model_trial_inferences=5", "preview=on", &page_key]);
    daemon.wait_for_line("Listening server=\"live page\"");
    assert!(stage.update(Value::Null)["error"].is_string());
    let mut page = Chromium::open(&format!("http://127.0.0.1:{port}/"), View::DESK).await;
    page.wait_for_text("model-name", "Scripted v3").await;
    page.wait_for_text("version-bad", "v4: the model failed in its trial")
        .await;

    stage.set_answers(5, &[boxed(score(5))]);
    stage.deploy(5);
    assert_eq!(stage.update(Value::Null)["update_model"]["running"], "v5");
    page.wait_for_text("version", "v5; on probation for 9 min more, v3 comes back if it fails")
        .await;
    page.wait_for_text("version-before", "v3").await;
    page.wait_for_text("version-update", "none in progress").await;
    let model = model_status(port).await;
    assert_eq!(
        (&model["version"], &model["previous_version"]),
        (&json!("v5"), &json!("v3"))
    );
    assert_eq!(
        (&model["update"], &model["bad_version"]["version"]),
        (&Value::Null, &json!("v4"))
    );
    assert!(
        model["probation_s"]
            .as_u64()
            .is_some_and(|left| (500..600).contains(&left)),
        "{model}"
    );

    stage.set_answers(6, &[json!({"hang": true})]);
    stage.deploy(6);
    send_update(&stage);
    page.wait_for_text("version-update", "v6 is tried beside the running version")
        .await;
    assert_eq!(
        model_status(port).await["update"],
        json!({"state": "trial", "version": "v6"})
    );
    page.look(View::PHONE).await;
    page.wait_until_it_fits(&["version", "version-update", "version-bad"])
        .await;
    page.eval("document.getElementById('versions').scrollIntoView()").await;
    page.screenshot("versions-phone").await;
    daemon.stop();
}
