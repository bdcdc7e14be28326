//! `check --online`.

use std::process::Output;

use super::*;

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
    assert!(line(&text, "endpoint").contains("Allow iot:DescribeEndpoint"));
    assert!(line(&text, "mqtt").contains("FAILS"));
    let endpoint = format!("iot_endpoint={}", world.gateway.endpoint());
    let mut command = with_key(world.command("check", &[&endpoint]), &key(None));
    command.env("AWS_ENDPOINT_URL", control.url());
    let (_, text) = check(&mut command);
    let mqtt = line(&text, "mqtt");
    assert!(mqtt.contains("iot:Connect on client/"), "{mqtt}");
}

#[test]
fn with_a_broker_by_url_only_the_broker_is_tried() {
    let world = World::new(Door::ClockOff(0));
    let observer = world.observer();
    let mut command = world.command("check", &[]);
    command.args(["--mqtt", &world.broker.url()]);
    let (code, text) = check(&mut command);
    assert_eq!(code, Some(0), "{text}");
    for probe in ["identity", "region", "endpoint"] {
        assert!(line(&text, probe).contains("not needed"), "{text}");
    }
    observer.wait_for("command/output", "the note", |note| note["result"]["check"] == "OK");
}
