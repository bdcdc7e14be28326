//! MQTT over WebSocket, signed with Signature Version 4.

use std::time::{Duration, SystemTime};

use super::*;
use crate::support::aws::proxy::ConnectProxy;
use crate::support::aws::token_exchange::TokenExchange;
use crate::support::daemon::LIMIT;

#[test]
fn each_connection_is_signed_with_fresh_credentials_of_the_token_exchange_service() {
    let exchange = TokenExchange::start(Duration::from_secs(2));
    let world = World::new(Door::Signed(exchange.keys()));
    let control = control_plane(exchange.keys(), world.gateway.endpoint());
    let observer = world.observer();
    let mut command = world.command("run", &[]);
    command
        .envs(exchange.environment())
        .env("AWS_ENDPOINT_URL_IOT", control.url());
    let daemon = Daemon::start(command);
    observer.wait_for_status("started", 1);
    for round in 1..=2 {
        // What it has by now is worth nothing any more.
        let end = exchange.keys().last_end().expect("a key was given");
        std::thread::sleep(end.duration_since(SystemTime::now()).unwrap_or_default());
        world.gateway.kick();
        observer.wait_for_status("online", round);
    }
    let used = world.gateway.accepted();
    let different: std::collections::BTreeSet<_> = used.iter().collect();
    assert_eq!(used.len(), 3);
    assert_eq!(different.len(), 3, "a key of its own for each connection: {used:?}");
    let refused = world.gateway.attempts.with(|attempts| {
        attempts
            .iter()
            .filter_map(|attempt| attempt.signed_by.clone().err())
            .next()
    });
    assert_eq!(refused, None);
    assert_eq!(control.requests.with(<[_]>::len), 1, "the endpoint is asked for once");
    let log = daemon.stop();
    assert!(
        log.contains("Connected to the broker broker=AWS IoT Core (localhost:"),
        "{log}"
    );
    assert!(log.contains("DEBUG The log filter is set filter=trace"), "{log}");
    assert_no_secret_in(&log, &exchange.keys().all(), &world.gateway);
}

#[test]
fn keys_with_and_without_session_token_sign_the_handshake() {
    for token in [None, Some("token/with+signs==")] {
        let key = key(token);
        let world = World::new(Door::Signed(Keys::fixed([key.clone()])));
        let observer = world.observer();
        let endpoint = format!("iot_endpoint={}", world.gateway.endpoint());
        let daemon = world.run_with_key(&key, &[&endpoint]);
        observer.wait_for_status("started", 1);
        let attempt = world.gateway.attempts.with(|attempts| attempts[0].clone());
        let names: Vec<_> = attempt.query.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names.last() == Some(&"X-Amz-Security-Token"),
            token.is_some(),
            "{names:?}"
        );
        assert_no_secret_in(&daemon.stop(), &[key], &world.gateway);
    }
}

#[test]
fn a_proxy_in_the_environment_is_used_for_mqtt_and_for_the_endpoint() {
    let key = key(None);
    let world = World::new(Door::Signed(Keys::fixed([key.clone()])));
    let control = control_plane(Keys::fixed([key.clone()]), world.gateway.endpoint());
    let proxy = ConnectProxy::start(None);
    let observer = world.observer();
    let mut command = with_key(world.command("run", &[]), &key);
    let url = format!("http://me:pass%40word@127.0.0.1:{}", proxy.port);
    command
        .env("AWS_ENDPOINT_URL_IOT", control.url())
        .env("https_proxy", &url)
        .env("HTTP_PROXY", &url);
    let daemon = Daemon::start(command);
    observer.wait_for_status("started", 1);
    assert_eq!(
        proxy.targets(),
        [
            format!("GET {}/endpoint?endpointType=iot%3AData-ATS", control.url()),
            format!("CONNECT {}", world.gateway.endpoint()),
        ]
    );
    // me:pass@word
    let authorized = |(_, header): &(String, Option<String>)| header.as_deref() == Some("Basic bWU6cGFzc0B3b3Jk");
    assert!(proxy.requests.with(|list| list.iter().all(authorized)));
    let log = daemon.stop();
    assert!(!log.contains("pass%40word") && !log.contains("pass@word") && !log.contains("bWU6cGFzc0B3b3Jk"));
}

#[test]
fn no_proxy_leads_past_the_proxy() {
    let key = key(None);
    let world = World::new(Door::Signed(Keys::fixed([key.clone()])));
    let proxy = ConnectProxy::start(None);
    let observer = world.observer();
    let endpoint = format!("iot_endpoint={}", world.gateway.endpoint());
    let mut command = with_key(world.command("run", &[&endpoint]), &key);
    command
        .env("HTTPS_PROXY", format!("http://127.0.0.1:{}", proxy.port))
        .env("no_proxy", "localhost,.internal");
    let daemon = Daemon::start(command);
    observer.wait_for_status("started", 1);
    assert!(proxy.targets().is_empty(), "{:?}", proxy.targets());
    daemon.stop();
}

#[test]
fn a_proxy_that_refuses_is_named() {
    let key = key(None);
    let world = World::new(Door::Signed(Keys::fixed([key.clone()])));
    let proxy = ConnectProxy::start(Some(407));
    let endpoint = format!("iot_endpoint={}", world.gateway.endpoint());
    let mut command = with_key(world.command("run", &[&endpoint]), &key);
    command.env("HTTPS_PROXY", format!("http://127.0.0.1:{}", proxy.port));
    let daemon = Daemon::start(command);
    let line = daemon.wait_for_line("the proxy http://127.0.0.1:");
    assert!(line.contains("407") && line.contains("NO_PROXY"), "{line}");
    assert_eq!(world.gateway.attempts.with(<[_]>::len), 0);
    daemon.stop();
}

#[test]
fn the_endpoint_is_remembered_for_a_start_without_permission_or_network() {
    let key = key(None);
    let world = World::new(Door::Signed(Keys::fixed([key.clone()])));
    let observer = world.observer();
    let control = control_plane(Keys::fixed([key.clone()]), world.gateway.endpoint());
    let run = |control: &str| {
        let mut command = with_key(world.command("run", &[]), &key);
        command.env("AWS_ENDPOINT_URL_IOT", control);
        Daemon::start(command)
    };
    let daemon = run(&control.url());
    observer.wait_for_status("started", 1);
    daemon.stop();
    let refusing = HttpServer::start(|_| denied("no permission"));
    for (round, control, why) in [
        (2, refusing.url(), "no permission"),
        (
            3,
            "http://127.0.0.1:9".to_owned(),
            "AWS IoT (127.0.0.1) cannot be reached",
        ),
    ] {
        let daemon = run(&control);
        let line = daemon.wait_for_line("from an earlier discovery");
        assert!(line.contains(why) && line.contains(&world.gateway.endpoint()), "{line}");
        observer.wait_for_status("started", round);
        daemon.stop();
    }
}

#[test]
fn a_broker_with_a_url_touches_nothing_of_aws() {
    let exchange = TokenExchange::start(LIMIT);
    let world = World::new(Door::Signed(exchange.keys()));
    let control = control_plane(exchange.keys(), world.gateway.endpoint());
    let observer = world.observer();
    let mut command = world.command("run", &["iot_auth=sigv4"]);
    command
        .args(["--mqtt", &world.broker.url()])
        .envs(exchange.environment())
        .env("AWS_ENDPOINT_URL", control.url());
    let daemon = Daemon::start(command);
    observer.wait_for_status("started", 1);
    daemon.stop();
    assert_eq!(exchange.server.requests.with(<[_]>::len), 0);
    assert_eq!(control.requests.with(<[_]>::len), 0);
}
