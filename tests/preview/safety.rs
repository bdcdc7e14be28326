//! Who may do what, and what nobody can do to the daemon.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::preview::client::{NO_BROKER, Served};
use crate::support::daemon::{LIMIT, Site};
use crate::support::ports::free_port;

#[tokio::test]
async fn other_sites_and_foreign_names_are_refused() {
    let served = Served::ball(NO_BROKER, &["--set", "preview_token=let-me-in"]);
    let own = format!("http://127.0.0.1:{}", served.port);
    assert!(served.try_connect("/", &[("origin", &own)]).await.is_ok());
    for path in ["/", "/live"] {
        let refused = served.try_connect(path, &[("origin", "http://evil.example")]).await;
        assert_eq!(refused.err(), Some(403), "{path} from another site");
        let rebound = [("host", "evil.example:4912"), ("origin", "http://evil.example:4912")];
        assert_eq!(
            served.try_connect(path, &rebound).await.err(),
            Some(403),
            "{path} by a foreign name"
        );
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in ["/", "/api/status", "/snapshot.jpg", "/stream.mjpeg", "/metrics"] {
        let answer = client
            .get(served.url(path))
            .header("host", "evil.example")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 403, "{path}");
    }
    let known = client
        .get(served.url("/api/status"))
        .header("host", "evil.example")
        .bearer_auth("let-me-in");
    assert_eq!(known.send().await.unwrap().status(), 200);
    served.daemon.stop();
}

#[tokio::test]
async fn a_client_behind_a_proxy_needs_the_token_to_change_something() {
    let served = Served::ball(NO_BROKER, &[]);
    let line = served.daemon.wait_for_line("need the token in this file");
    let path = line.split("path=").nth(1).unwrap().trim();
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(path).unwrap().trim().to_owned();
    assert!(!served.daemon.log().contains(&token));

    let proxied = ("x-forwarded-for", "192.0.2.1");
    let mut stranger = served.try_connect("/", &[proxied]).await.ok().unwrap();
    let hello = stranger.wait_for_type("hello").await;
    let block = &hello["modelParameters"]["thresholds"][0]["id"];
    let change = json!({"type": "threshold-override", "id": block, "key": "min_score", "value": 0.4});
    let refused = stranger.ask(&change).await;
    assert_eq!(refused["type"], "handling-message-error");
    assert!(refused["error"].as_str().unwrap().contains("token"), "{refused}");

    let bearer = format!("Bearer {token}");
    for (path, headers) in [
        (format!("/?token={token}"), vec![proxied]),
        ("/".to_owned(), vec![proxied, ("authorization", bearer.as_str())]),
    ] {
        let mut known = served.try_connect(&path, &headers).await.ok().unwrap();
        known.wait_for_type("hello").await;
        assert_eq!(known.ask(&change).await["type"], "handling-message-success");
    }
    served.daemon.stop();
}

#[tokio::test]
async fn a_client_that_never_reads_is_disconnected_and_does_not_affect_others() {
    let served = Served::ball(NO_BROKER, &[]);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut silent = socket.connect(([127, 0, 0, 1], served.port).into()).await.unwrap();
    silent
        .write_all(b"GET /stream.mjpeg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        .await
        .unwrap();
    let mut lively = served.connect("/live").await;
    served
        .wait_for_status("both look", |status| status["page"]["viewers"] == 2)
        .await;
    for _ in 0..30 {
        lively.wait_for_type("moment").await;
    }
    served
        .wait_for_status("the silent one is cut off", |status| status["page"]["viewers"] == 1)
        .await;
    lively.wait_for_type("moment").await;
    drop(silent);
    served.daemon.stop();
}

#[tokio::test]
async fn the_number_of_viewers_is_limited() {
    let served = Served::ball(NO_BROKER, &[]);
    let mut clients = Vec::new();
    for _ in 0..32 {
        clients.push(served.connect("/").await);
    }
    assert_eq!(served.try_connect("/", &[]).await.err(), Some(503));
    assert_eq!(
        served.get("/healthz").await.0,
        200,
        "requests without a permanent connection are still served"
    );
    clients.pop();
    served
        .wait_for_status("one has gone", |status| status["page"]["viewers"] == 31)
        .await;
    assert!(served.try_connect("/", &[]).await.is_ok());
    served.daemon.stop();
}

#[tokio::test]
async fn endless_requests_are_cut_off() {
    let served = Served::ball(NO_BROKER, &[]);
    let mut long = TcpStream::connect(("127.0.0.1", served.port)).await.unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: {}\r\n",
        "x".repeat(200_000)
    );
    // The end may come while this is still being sent.
    let _ = long.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(LIMIT, long.read_to_end(&mut answer))
        .await
        .expect("an end");
    assert!(!answer.starts_with(b"HTTP/1.1 200"));

    let mut client = served.connect("/").await;
    client.wait_for_type("hello").await;
    let large = json!({"type": "x".repeat(100_000)});
    client.send(&large).await;
    served
        .wait_for_status("it is cut off", |status| status["page"]["viewers"] == 0)
        .await;
    served.daemon.stop();
}

#[tokio::test]
async fn a_port_in_use_causes_a_warning_and_a_retry() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let site = Site::new();
    let key = format!("preview_port={port}");
    let arguments = [
        "--set",
        "preview=on",
        "--set",
        "preview_host=127.0.0.1",
        "--set",
        &key,
        "--model",
        "builtin:ball",
    ];
    let daemon = site.run(
        NO_BROKER,
        &[&arguments[..], &["--gst", crate::preview::client::BALL]].concat(),
    );
    daemon.wait_for_line("WARN The port cannot be opened server=\"live page\"");
    daemon.wait_for_line("Capture runs");
    drop(taken);
    daemon.wait_for_line("Listening server=\"live page\"");
    daemon.stop();
}

#[tokio::test]
async fn a_live_page_that_is_off_opens_no_port() {
    let site = Site::new();
    let port = free_port();
    let key = format!("preview_port={port}");
    let arguments = [
        "--set",
        &key,
        "--model",
        "builtin:ball",
        "--gst",
        crate::preview::client::BALL,
    ];
    let daemon = site.run(NO_BROKER, &arguments);
    daemon.wait_for_line("Capture runs");
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    assert!(!daemon.stop().contains("live page"));
}
