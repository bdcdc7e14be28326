//! Credentials of the token exchange service, which change all the time.

use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::s3::site::Place;
use crate::support::aws::token_exchange::TokenExchange;
use crate::support::daemon::{Daemon, LIMIT};
use crate::support::nucleus::Nucleus;
use crate::support::s3::uploads;
use crate::support::scripts::{boxed, frames};

const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=10/1";

/// Credentials from there and from nowhere else.
pub fn from_exchange(mut command: Command, exchange: &TokenExchange) -> Command {
    command
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .envs(exchange.environment());
    command
}

#[test]
fn uploads_go_on_beyond_the_end_of_credentials_and_the_log_at_its_most_talkative_holds_none() {
    let exchange = TokenExchange::start(Duration::from_secs(2));
    let place = Place::new();
    let s3 = place.storage.serve_with(exchange.keys());
    let command = place.command(&[boxed(0.9)], LIVE, &["iotcore_backoff=1"]);
    let mut command = from_exchange(command, &exchange);
    command.env("RUST_LOG", "trace");
    let daemon = Daemon::start(command);
    for round in 0..2 {
        let so_far = uploads(&s3.answered()).len() / 2;
        s3.wait_for_pairs(so_far + 3);
        // What it has by now is worth nothing any more in the next round.
        let end = exchange.keys().last_end().expect("a key was given");
        std::thread::sleep(end.duration_since(SystemTime::now()).unwrap_or_default());
        assert!(exchange.keys().all().len() > round, "asked for again");
    }
    s3.wait_for_pairs(uploads(&s3.answered()).len() / 2 + 3);
    let answered = s3.answered();
    let refused: Vec<_> = answered
        .iter()
        .filter(|a| matches!(a.status, 400 | 401 | 403))
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    let keys: std::collections::BTreeSet<_> = answered.iter().map(|a| &a.access_key).collect();
    assert!(keys.len() > 1, "{keys:?}");

    let log = daemon.stop();
    assert!(
        log.contains("DEBUG The log filter is set filter=trace"),
        "RUST_LOG is in force: {log}"
    );
    for secret in exchange.keys().secrets() {
        let leak = log.lines().find(|line| line.contains(&secret));
        assert_eq!(leak, None, "{secret} is in the log");
    }
}

#[test]
fn without_credentials_or_region_the_log_says_what_to_set() {
    for (variable, words) in [
        ("AWS_ACCESS_KEY_ID", "no AWS credentials"),
        ("AWS_REGION", "no AWS region is known: Greengrass sets AWS_REGION"),
    ] {
        let place = Place::new();
        let mut command = place.command(&[boxed(0.9)], &frames(3), &["iotcore_backoff=1"]);
        command.env_remove(variable);
        let daemon = Daemon::start(command);
        daemon.wait_for_line(words);
        place.observer.wait_for_count("inference/output", 3);
        daemon.stop();
        assert_eq!(place.waiting().len(), 3);
    }
}

#[test]
fn uploads_go_on_when_the_token_exchange_service_moved_to_another_port() {
    let mut exchange = TokenExchange::start(Duration::from_secs(2));
    let nucleus = Nucleus::start(json!({}));
    exchange.accept(nucleus.token());
    let place = Place::new();
    let s3 = place.storage.serve_with(exchange.keys());
    let command = place.command(&[boxed(0.9)], LIVE, &["iotcore_backoff=1"]);
    let mut command = from_exchange(command, &exchange);
    nucleus.environment(&mut command);
    let daemon = Daemon::start(command);
    s3.wait_for_pairs(3);
    exchange.restart();
    nucleus.set_token_exchange_port(exchange.server.port);
    exchange
        .server
        .requests
        .wait_for("a request at the new port", LIMIT, |requests| {
            (!requests.is_empty()).then_some(())
        });
    s3.wait_for_pairs(uploads(&s3.answered()).len() / 2 + 3);
    let log = daemon.stop();
    assert!(log.contains("The token exchange service has a new port"), "{log}");
    assert!(!log.contains(&nucleus.token()), "{log}");
}
