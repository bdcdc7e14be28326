//! `check --online`.

use std::process::Output;

use super::*;
use crate::support::http::{self, Reply};
use crate::support::s3::{Behaviour, Storage};
use crate::support::studio::{self as stand_in, API_KEY, aws_error, good_secret, secret};

fn check(command: &mut Command) -> (Option<i32>, String) {
    let Output {
        status, stdout, stderr, ..
    } = command.arg("--online").output().expect("started");
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    (status.code(), text)
}

fn line<'a>(text: &'a str, probe: &str) -> &'a str {
    let start = format!("  {probe}: ");
    text.lines()
        .find(|line| line.starts_with(&start))
        .unwrap_or_else(|| panic!("no line of {probe} in:\n{text}"))
}

#[test]
fn each_probe_says_what_came_back() {
    let key = key(Some("token/x"));
    let world = World::new(Door::Signed(Keys::fixed([key.clone()])));
    let control = control_plane(Keys::fixed([key.clone()]), world.gateway.endpoint());
    let observer = world.observer();
    let mut command = with_key(world.command("check", &[]), &key);
    command.env("AWS_ENDPOINT_URL", control.url());
    let (code, text) = check(&mut command);
    assert_eq!(code, Some(0), "{text}");
    for (probe, parts) in [
        ("identity", ["ok", "assumed-role/Role/cam", "…MPLE"]),
        ("region", ["ok", "looking for the AWS region", REGION]),
        ("endpoint", ["ok", "localhost:", "DescribeEndpoint"]),
        (
            "secret",
            ["not needed", "Edge Impulse API key", "the model is on this device"],
        ),
        (
            "studio",
            ["not needed", "Edge Impulse Studio", "the model is on this device"],
        ),
        ("bucket", ["not needed", "s3_bucket", "the S3 cache is off"]),
        ("mqtt", ["ok", "accepted", "command/output"]),
    ] {
        let line = line(&text, probe);
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    observer.wait_for("command/output", "the note", |note| note["result"]["check"] == "OK");
    assert_no_secret_in(&text, &[key], &world.gateway);
}

#[test]
fn each_probe_says_what_to_change() {
    let world = World::new(Door::ClockOff(0));
    let control = HttpServer::start(|_| denied("not you"));
    let mut command = with_key(world.command("check", &[]), &key(None));
    command.env("AWS_ENDPOINT_URL", control.url());
    let (code, text) = check(&mut command);
    assert_eq!(code, Some(1), "{text}");
    assert!(line(&text, "identity").contains("FAILS"));
    assert!(line(&text, "endpoint").contains("allow iot:DescribeEndpoint"));
    assert!(line(&text, "mqtt").contains("FAILS"));
    let endpoint = format!("iot_endpoint={}", world.gateway.endpoint());
    let mut command = with_key(world.command("check", &[&endpoint]), &key(None));
    command.env("AWS_ENDPOINT_URL", control.url());
    let (_, text) = check(&mut command);
    let mqtt = line(&text, "mqtt");
    assert!(mqtt.contains("iot:Connect on client/"), "{mqtt}");
}

/// `check --online` of a configuration that downloads its model and fills a bucket.
fn check_secret_and_bucket(secrets: Reply, storage: &Storage, more: &[&str]) -> (Option<i32>, String) {
    let key = key(Some("token/y"));
    let world = World::new(Door::ClockOff(0));
    let control = control_plane(Keys::fixed([key.clone()]), world.gateway.endpoint());
    let secrets = http::HttpServer::start(move |_| secrets.clone());
    let studio = stand_in::studio(&stand_in::state(Vec::new()));
    let mut sets = vec!["enable_cache_to_s3=yes", "s3_bucket=photos"];
    sets.extend(more);
    let mut command = with_key(world.command_without_model("check", &sets), &key);
    command
        .args(["--mqtt", &world.broker.url()])
        .env("AWS_ENDPOINT_URL", control.url())
        .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", secrets.url())
        .env("AWS_ENDPOINT_URL_S3", storage.endpoint())
        .env("EI_HOST", studio.url());
    let (code, text) = check(&mut command);
    assert_no_secret_in(&text, &[key], &world.gateway);
    assert!(!text.contains(API_KEY), "{text}");
    (code, text)
}

#[test]
fn the_secret_is_named_and_not_shown_and_the_bucket_is_looked_up() {
    let storage = Storage::new();
    let s3 = storage.serve_with(Keys::fixed([key(None)]));
    let (code, text) = check_secret_and_bucket(secret(&good_secret()), &storage, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(line(&text, "identity").contains("assumed-role/Role/cam"), "{text}");
    assert!(
        line(&text, "secret").ends_with("): the secret EI_API_KEY has the key \"ei_api_key\""),
        "{text}"
    );
    assert!(
        line(&text, "studio").ends_with("127.0.0.1 accepts the key: project tests / Tutorial (42)"),
        "{text}"
    );
    let bucket = line(&text, "bucket");
    assert!(
        bucket.contains("ok") && bucket.contains("there is no bucket photos yet"),
        "{bucket}"
    );
    std::fs::create_dir(s3.root().join("photos")).unwrap();
    let (_, text) = check_secret_and_bucket(secret(&good_secret()), &storage, &[]);
    let bucket = line(&text, "bucket");
    assert!(
        bucket.contains(&format!("the bucket photos exists, in {REGION}")),
        "{bucket}"
    );
    assert!(
        s3.answered().iter().all(|a| a.method == "HEAD"),
        "nothing is made or changed"
    );
}

#[test]
fn a_secret_and_a_bucket_that_fail_say_what_to_change() {
    let storage = Storage::new();
    let s3 = storage.serve();
    s3.behave(Behaviour::SomebodyElses { head: 403 });
    let wrong = secret(&serde_json::json!({"wrong": API_KEY}));
    let (code, text) = check_secret_and_bucket(wrong.clone(), &storage, &[]);
    assert_eq!(code, Some(1), "{text}");
    for (probe, parts) in [
        ("secret", ["FAILS", "it has \"wrong\"", "set ei_sm_secret_name"]),
        ("studio", ["FAILS", "not tried", "there is no API key"]),
        (
            "bucket",
            ["FAILS", "another AWS account", "s3:ListBucket on arn:aws:s3:::photos"],
        ),
    ] {
        let line = line(&text, probe);
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    let denied = aws_error(
        "AccessDeniedException",
        "User: arn:aws:sts::1:assumed-role/R/i is not authorized to perform: secretsmanager:GetSecretValue on resource: x",
    );
    drop(s3);
    let (_, text) = check_secret_and_bucket(denied, &storage, &[]);
    let secret = line(&text, "secret");
    assert!(
        secret.contains("assumed-role/R/i") && secret.contains("allow secretsmanager:GetSecretValue"),
        "{secret}"
    );
    assert!(line(&text, "bucket").contains("S3 cannot be reached"), "{text}");

    // The key of eiparams stands in for a secret that is refused.
    let option = format!("eiparams=--api-key {API_KEY}");
    let (_, text) = check_secret_and_bucket(wrong, &storage, &[&option]);
    let secret = line(&text, "secret");
    assert!(secret.contains("ok") && secret.contains("--api-key"), "{secret}");
}

#[test]
fn with_a_broker_by_url_only_the_broker_is_tried() {
    let world = World::new(Door::ClockOff(0));
    let observer = world.observer();
    let mut command = world.command("check", &[]);
    command.args(["--mqtt", &world.broker.url()]);
    let (code, text) = check(&mut command);
    assert_eq!(code, Some(0), "{text}");
    for probe in ["identity", "region", "endpoint", "secret", "studio", "bucket"] {
        assert!(line(&text, probe).contains("not needed"), "{text}");
    }
    observer.wait_for("command/output", "the note", |note| note["result"]["check"] == "OK");
}
