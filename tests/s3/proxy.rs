//! The proxy in the environment. S3 is at 0.0.0.0, which leads to this machine and is none of its loopback addresses.

use crate::s3::credentials::from_exchange;
use crate::s3::site::Place;
use crate::support::aws::proxy::ConnectProxy;
use crate::support::aws::token_exchange::TokenExchange;
use crate::support::daemon::{Daemon, LIMIT};
use crate::support::scripts::{boxed, frames};

fn elsewhere(place: &Place) -> String {
    format!("http://0.0.0.0:{}", place.storage.port)
}

#[test]
fn uploads_go_through_the_proxy_and_credentials_do_not() {
    let (place, proxy) = (Place::new(), ConnectProxy::start(None));
    let exchange = TokenExchange::start(LIMIT);
    let s3 = place.storage.serve_with(exchange.keys());
    let command = place.command(&[boxed(0.9)], &frames(3), &["iotcore_backoff=1"]);
    let mut command = from_exchange(command, &exchange);
    command
        .env("AWS_ENDPOINT_URL_S3", elsewhere(&place))
        .env("HTTP_PROXY", format!("http://me:pass%40word@127.0.0.1:{}", proxy.port));
    let daemon = Daemon::start(command);
    s3.wait_for_pairs(3);
    let targets = proxy.targets();
    let bucket = format!("HEAD {}/photos", elsewhere(&place));
    assert!(targets.iter().any(|target| target.starts_with(&bucket)), "{targets:?}");
    assert!(
        targets.iter().all(|target| target.contains(&elsewhere(&place))),
        "{targets:?}"
    );
    // me:pass@word
    let authorized = |(_, header): &(String, Option<String>)| header.as_deref() == Some("Basic bWU6cGFzc0B3b3Jk");
    assert!(proxy.requests.with(|list| list.iter().all(authorized)));
    assert!(!exchange.keys().all().is_empty());
    let log = daemon.stop();
    assert!(!log.contains("pass%40word") && !log.contains("pass@word") && !log.contains("bWU6cGFzc0B3b3Jk"));
}

#[test]
fn no_proxy_leads_past_the_proxy() {
    let (place, proxy) = (Place::new(), ConnectProxy::start(None));
    let s3 = place.storage.serve();
    let mut command = place.command(&[boxed(0.9)], &frames(3), &["iotcore_backoff=1"]);
    command
        .env("AWS_ENDPOINT_URL_S3", elsewhere(&place))
        .env("HTTP_PROXY", format!("http://127.0.0.1:{}", proxy.port))
        .env("NO_PROXY", "example.com,0.0.0.0");
    let daemon = Daemon::start(command);
    s3.wait_for_pairs(3);
    assert!(proxy.targets().is_empty(), "{:?}", proxy.targets());
    daemon.stop();
}

#[test]
fn a_proxy_that_refuses_is_told_and_the_pairs_wait() {
    let (place, proxy) = (Place::new(), ConnectProxy::start(Some(407)));
    let mut command = place.command(&[boxed(0.9)], &frames(3), &["iotcore_backoff=1"]);
    command
        .env_remove("AWS_ENDPOINT_URL_S3")
        .env("https_proxy", format!("http://127.0.0.1:{}", proxy.port));
    let daemon = Daemon::start(command);
    let line = daemon.wait_for_line("S3 request failed");
    assert!(line.contains("HTTPS_PROXY") && line.contains("proxy auth"), "{line}");
    place.observer.wait_for_count("inference/output", 3);
    assert_eq!(
        proxy.targets().first().map(String::as_str),
        Some("CONNECT photos.s3.eu-central-1.amazonaws.com:443")
    );
    daemon.stop();
    assert_eq!(place.waiting().len(), 3);
}
