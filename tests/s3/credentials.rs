//! Credentials of the token exchange service, which change all the time.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::json;

use crate::site::Place;
use crate::support::daemon::Daemon;
use crate::support::s3::{SECRET_KEY, uploads};
use crate::support::scripts::{boxed, frames};

const TOKEN: &str = "token-of-greengrass";
/// Shorter than what the SDK wants left: it asks again for each request.
const VALID: Duration = Duration::from_secs(5);

/// Hands out `KEY0`, `KEY1`, ...
async fn credentials(State(asked): State<Arc<AtomicUsize>>, headers: HeaderMap) -> Result<String, StatusCode> {
    if headers.get("authorization").is_none_or(|token| token != TOKEN) {
        return Err(StatusCode::FORBIDDEN);
    }
    let expiration = DateTime::from(SystemTime::now() + VALID)
        .fmt(DateTimeFormat::DateTime)
        .unwrap();
    let number = asked.fetch_add(1, Ordering::Relaxed);
    let answer = json!({
        "AccessKeyId": format!("KEY{number}"), "SecretAccessKey": SECRET_KEY, "Token": format!("session{number}"),
        "Expiration": expiration,
    });
    Ok(answer.to_string())
}

#[test]
fn expiring_credentials_of_the_token_exchange_service_are_asked_for_again() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = axum::Router::new()
        .fallback(credentials)
        .with_state(Arc::new(AtomicUsize::new(0)));
    runtime.spawn(async move { axum::serve(listener, app).await });

    let place = Place::new();
    let mut auth = s3s::auth::SimpleAuth::new();
    (0..1000).for_each(|n| drop(auth.register(format!("KEY{n}"), SECRET_KEY.into())));
    let s3 = place.storage.serve_with(auth);
    let mut command = place.command(&[boxed(0.9)], &frames(6), &["iotcore_backoff=1"]);
    command
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .env(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("http://127.0.0.1:{port}/2016-11-01/credentialprovider/"),
        )
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", TOKEN)
        .env("RUST_LOG", "trace");
    let daemon = Daemon::start(command);
    s3.wait_for_pairs(6);
    let answered = s3.answered();
    assert_eq!(uploads(&answered).len(), 12);
    let keys: std::collections::BTreeSet<_> = answered.iter().map(|a| &a.access_key).collect();
    assert!(keys.len() > 1, "{keys:?}");
    let log = daemon.stop();
    for secret in [SECRET_KEY, TOKEN, "session0", "session1"] {
        let leak = log.lines().find(|line| line.contains(secret));
        assert_eq!(leak, None, "{secret} is in the log");
    }
}

#[test]
fn without_credentials_or_region_the_log_says_what_to_set() {
    for (variable, words) in [
        ("AWS_ACCESS_KEY_ID", "no AWS credentials"),
        ("AWS_REGION", "no AWS region is known; Greengrass sets AWS_REGION"),
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
