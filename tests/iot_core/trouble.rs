//! What goes wrong at IoT Core, and what the log says of it. The daemon goes on in every case.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Inference goes on, and what it finds waits on disk for the next start.
#[track_caller]
fn assert_nothing_is_lost(daemon: Daemon) {
    daemon.wait_for_line(" Inference wall_ms=");
    let log = daemon.stop();
    let kept = log
        .lines()
        .find(|line| line.contains("Undelivered messages wait on disk"));
    assert!(kept.is_some_and(|line| line.contains("none of them is lost")), "{log}");
    assert!(!log.contains(" are lost"), "{log}");
}

#[test]
fn a_wrong_secret_is_refused_with_what_to_look_at() {
    let key = key(Some("token/z"));
    let world = World::new(Door::Signed(Keys::fixed([key.clone()])));
    let wrong = Key {
        secret: "wJalrXUtnFEMI/another".into(),
        ..key.clone()
    };
    let endpoint = format!("iot_endpoint={}", world.gateway.endpoint());
    let daemon = world.run_with_key(&wrong, &[&endpoint]);
    let line = daemon.wait_for_line("refused the connection (403 Forbidden");
    assert!(line.contains("iot:Connect on client/"), "{line}");
    let problem = world.gateway.attempts.with(|attempts| attempts[0].signed_by.clone());
    assert!(problem.unwrap_err().starts_with("signature is"));
    assert_no_secret_in(&daemon.stop(), &[key, wrong], &world.gateway);
}

#[test]
fn a_clock_that_is_off_is_recognised_by_the_servers_date() {
    for (offset, words) in [(3600, "60 minutes behind"), (-7200 * 2, "4 hours ahead")] {
        let world = World::new(Door::ClockOff(offset));
        let endpoint = format!("iot_endpoint={}", world.gateway.endpoint());
        let daemon = world.run_with_key(&key(None), &[&endpoint, "iotcore_backoff=1"]);
        let line = daemon.wait_for_line("this machine's clock is");
        assert!(line.contains(words), "{line}");
        assert_nothing_is_lost(daemon);
    }
}

#[test]
fn a_denied_discovery_says_which_permission_and_is_tried_again() {
    let key = key(None);
    let world = World::new(Door::Signed(Keys::fixed([key.clone()])));
    let allowed = Arc::new(AtomicBool::new(false));
    let (gate, endpoint) = (Arc::clone(&allowed), world.gateway.endpoint());
    let control = HttpServer::start(move |_| match gate.load(Ordering::Relaxed) {
        false => denied("User: arn:aws:sts::1:assumed-role/R/i is not authorized to perform: iot:DescribeEndpoint"),
        true => Answer::new(200, serde_json::json!({"endpointAddress": endpoint}).to_string()),
    });
    let observer = world.observer();
    let mut command = with_key(world.command("run", &[]), &key);
    command.env("AWS_ENDPOINT_URL_IOT", control.url());
    let daemon = Daemon::start(command);
    let line = daemon.wait_for_line("endpoint could not be discovered");
    for part in [
        "403 AccessDeniedException",
        "assumed-role/R/i",
        "allow iot:DescribeEndpoint",
        "set iot_endpoint",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    allowed.store(true, Ordering::Relaxed);
    observer.wait_for_status("started", 1);
    daemon.stop();
}

#[test]
fn no_region_no_credentials_and_no_network_have_words_of_their_own() {
    let world = World::new(Door::ClockOff(0));
    for (region, with_credentials, words, or_set_endpoint) in [
        (None, true, "no AWS region is known", true),
        (Some(REGION), false, "no AWS credentials were found", false),
        (Some(REGION), true, "cannot be reached", true),
    ] {
        let mut command = world.command("run", &[]);
        if with_credentials {
            command = with_key(command, &key(None));
        }
        match region {
            Some(region) => command.env("AWS_REGION", region),
            None => command.env_remove("AWS_REGION"),
        };
        command.env("AWS_ENDPOINT_URL_IOT", "http://127.0.0.1:9");
        let daemon = Daemon::start(command);
        let line = daemon.wait_for_line("No connection to the broker broker=AWS IoT Core");
        assert!(line.contains(words), "{line}");
        assert!(!line.contains("iot:DescribeEndpoint"), "nothing was denied: {line}");
        assert_eq!(line.contains("set iot_endpoint"), or_set_endpoint, "{line}");
        daemon.stop();
    }
}

#[test]
fn refused_credentials_and_a_wrong_clock_are_not_taken_for_a_missing_permission() {
    let world = World::new(Door::ClockOff(0));
    for (name, value, words) in [
        ("x-amzn-errortype", "ExpiredTokenException", "AWS_PROFILE"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT", "this machine's clock is"),
    ] {
        let control = HttpServer::start(move |_| {
            let mut answer = Answer::new(403, r#"{"message":"The security token is expired"}"#.to_owned());
            answer.headers.push((name, value.to_owned()));
            answer
        });
        let mut command = with_key(world.command("run", &[]), &key(None));
        command.env("AWS_ENDPOINT_URL_IOT", control.url());
        let daemon = Daemon::start(command);
        let line = daemon.wait_for_line("endpoint could not be discovered");
        assert!(line.contains(words), "{line}");
        for wrong in ["iot:DescribeEndpoint", "set iot_endpoint", "role alias"] {
            assert!(!line.contains(wrong), "{wrong}: {line}");
        }
        daemon.stop();
    }
}

#[test]
fn expired_single_sign_on_is_answered_with_the_login() {
    let world = World::new(Door::ClockOff(0));
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("config");
    std::fs::write(
        &config,
        "[default]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n\
         [sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://127.0.0.1:9/\n",
    )
    .unwrap();
    let mut command = world.command("run", &[]);
    command
        .env("HOME", home.path())
        .env("AWS_CONFIG_FILE", &config)
        .env("AWS_SHARED_CREDENTIALS_FILE", home.path().join("none"))
        .env("AWS_REGION", REGION)
        .env("AWS_ENDPOINT_URL_IOT", "http://127.0.0.1:9");
    let daemon = Daemon::start(command);
    let line = daemon.wait_for_line("AWS credentials could not be fetched");
    assert!(line.contains("aws sso login"), "{line}");
    for wrong in ["Greengrass", "role alias", "iot_endpoint", "DescribeEndpoint"] {
        assert!(!line.contains(wrong), "{wrong}: {line}");
    }
    daemon.stop();
}

#[test]
fn an_endpoint_that_does_not_resolve_is_told_and_nothing_is_lost() {
    let world = World::new(Door::ClockOff(0));
    let daemon = world.run_with_key(
        &key(None),
        &["iot_endpoint=a1-ats.iot.eu-west-1.invalid", "iotcore_backoff=1"],
    );
    let line = daemon.wait_for_line("No connection to the broker broker=AWS IoT Core (a1-ats.iot.eu-west-1.invalid)");
    assert!(line.contains("has no address"), "{line}");
    assert_nothing_is_lost(daemon);
}
