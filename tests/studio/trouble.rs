//! What goes wrong on the way to a model: a clear line, and the model that is there runs on.

use serde_json::json;

use super::daemon::Bench;
use super::leftovers;
use crate::support::http::{HttpServer, Reply};
use crate::support::studio::{self as stand_in, aws_error, secret};

/// The daemon with a model of an earlier start, and these answers from now on.
#[track_caller]
fn goes_on_with(secrets: Option<Reply>, studio: Option<(&'static str, Reply)>, words: &[&str]) {
    let bench = Bench::new();
    let server = stand_in::studio(&bench.state);
    let daemon = bench.run(&server.url(), |_| {});
    bench.observer.wait_for_status("started", 1);
    daemon.stop();

    bench.state.lock().version = Some(4);
    if let Some((path, reply)) = studio {
        stand_in::always(&bench.state, path, reply);
    }
    let answering = secrets.map(|reply| HttpServer::start(move |_| reply.clone()));
    let daemon = bench.run(&server.url(), |c| {
        if let Some(secrets) = &answering {
            c.env("AWS_ENDPOINT_URL_SECRETS_MANAGER", secrets.url());
        }
    });
    let line = daemon.wait_for_line("using the one that was downloaded earlier");
    for word in words {
        assert!(line.contains(word), "lacks {word}: {line}");
    }
    bench.observer.wait_for_status("started", 2);
    bench.wait_for_problem("model: it was downloaded earlier and may not be the newest: ");
    let so_far = bench.observer.all("inference/output").len();
    bench.observer.wait_for_count("inference/output", so_far + 5);
    daemon.stop();
    assert!(leftovers(bench.site.path()).is_empty());
}

#[test]
fn a_secret_that_is_wrong_leaves_the_earlier_model_running() {
    goes_on_with(
        Some(secret(&json!("the key of the factory"))),
        None,
        &["is not JSON", "the value of \"ei_api_key\""],
    );
    let skewed = aws_error("InvalidSignatureException", "Signature expired: 20200101T000000Z");
    goes_on_with(Some(skewed), None, &["set this machine's clock"]);
}

#[test]
fn a_studio_that_talks_nonsense_leaves_the_earlier_model_running() {
    goes_on_with(
        None,
        Some(("/api/projects", Reply::bytes("text/html", "<html>log in</html>"))),
        &["a web page, not JSON", "EI_HOST", "proxy or login page"],
    );
    let refusal = Reply::json(&json!({"success": false, "error": "Project is locked"}));
    goes_on_with(None, Some(("/api/projects", refusal)), &["Project is locked"]);
}

#[test]
fn a_download_that_ends_early_leaves_the_earlier_model_running() {
    let mut half = Reply::bytes("application/octet-stream", vec![0x7f; 1000]);
    half.announced = Some(2000);
    goes_on_with(
        None,
        Some(("/deployment/download", half)),
        &["stopped after 1000 bytes of 2000"],
    );
}
