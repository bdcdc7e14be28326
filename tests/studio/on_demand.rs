//! `--run-http-server` without a model file.

use serde_json::{Value, json};

use super::daemon::Bench;
use super::write_script;
use crate::support::http::Reply;
use crate::support::ports::free_port;
use crate::support::studio as stand_in;

async fn get(url: &str) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn post_features(url: &str, features: usize) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"features": vec![0; features]});
    let answer = client.post(url).json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_from_studio_answers_requests_until_a_newer_one_replaces_it() {
    let bench = Bench::new();
    let port = free_port();
    let (info, features) = (
        format!("http://127.0.0.1:{port}/api/info"),
        format!("http://127.0.0.1:{port}/api/features"),
    );
    let options = format!("eiparams=--force-target {} --run-http-server {port}", stand_in::TARGET);
    let server = |studio: &str| {
        bench.run(studio, |c| {
            c.args(["--set", &options, "--set", "preview_host=127.0.0.1"]);
        })
    };
    // While the model is missing, requests get an error that says so.
    let state = bench.state.clone();
    state.lock().instead.push((
        "/api/projects",
        Box::new(|_| Some(Reply::bytes("text/html", "<html>").status(503))),
    ));
    let studio = stand_in::studio(&state);
    let daemon = server(&studio.url());
    daemon.wait_for_line("There is no model to run yet");
    daemon.wait_for_line("Listening server=\"inference server\"");
    let (code, text) = get(&info).await;
    assert_eq!(
        (code, text.contains("downloaded; try again later")),
        (503, true),
        "{text}"
    );
    state.lock().instead.clear();
    daemon.wait_for_line("is loaded");
    let (code, text) = post_features(&features, 32 * 24).await;
    assert_eq!(code, 200, "{text}");
    assert_eq!(daemon.stop().matches("Downloaded the model version=3").count(), 1);

    // The model that was downloaded earlier answers while Studio builds another one, which then replaces it.
    {
        let mut state = state.lock();
        state.version = None;
        state.job = stand_in::Job::Builds(4);
    }
    let mut hello = crate::support::scripts::hello(8, 4);
    hello["project"]["deploy_version"] = json!(8);
    write_script(
        bench.site.path(),
        4,
        &json!({"hello": hello, "answers": [crate::support::scripts::boxed(0.5)]}),
    );
    let daemon = server(&studio.url());
    daemon.wait_for_line("Using an earlier model meanwhile");
    daemon.wait_for_line("The model is loaded version=8");
    assert!(
        daemon.log().contains("The model is loaded version=7"),
        "{}",
        daemon.log()
    );
    let (code, text) = get(&info).await;
    let about: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &about["modelParameters"]["input_features_count"]),
        (200, &json!(32))
    );
    daemon.stop();
}
