//! Many clients, and slow ones: none of them takes what others need.
//!
//! 127.0.0.1 counts as the device itself. The other addresses of the loopback network count as other clients.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::preview::client::{NO_BROKER, Served};
use crate::preview::on_demand::{Server, check_headers};
use crate::support::daemon::{Daemon, LIMIT};

/// The device itself, and other clients.
const DEVICE: [u8; 4] = [127, 0, 0, 1];
const CROWD: [u8; 4] = [127, 0, 0, 2];
const OTHER: [u8; 4] = [127, 0, 0, 3];

async fn connect(port: u16, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::from(from), 0).into()).unwrap();
    socket.connect(([127, 0, 0, 1], port).into()).await.unwrap()
}

/// Sends a request without waiting for its answer; the server may have closed the connection.
async fn send(stream: &mut TcpStream, request: &str) {
    let _ = stream.write_all(request.as_bytes()).await;
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
}

/// The head of the answer; empty: the connection was closed.
async fn head(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = async {
        while !text.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => text.push(byte),
                Err(_) => break,
            }
        }
    };
    tokio::time::timeout(LIMIT, read).await.expect("an answer or an end");
    String::from_utf8(text).unwrap()
}

/// Whether a new client gets an answer at once.
async fn is_served(port: u16, from: [u8; 4], path: &str) -> bool {
    let mut stream = connect(port, from).await;
    send(&mut stream, &get(path)).await;
    let answered = tokio::time::timeout(Duration::from_secs(5), head(&mut stream)).await;
    answered.is_ok_and(|head| head.starts_with("HTTP/1.1 200"))
}

/// Opens connections that are kept open: after an answer, before the first request, and within the head of one.
async fn crowd(port: u16, from: [u8; 4], path: &str) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for number in 0..70 {
        let mut stream = connect(port, from).await;
        match number % 7 {
            0 => {}
            1 => send(&mut stream, "GET / HTTP/1.1\r\nX-Long: ").await,
            _ => {
                send(&mut stream, &get(path)).await;
                head(&mut stream).await;
            }
        }
        open.push(stream);
    }
    open
}

async fn idle_connections_give_way(port: u16, path: &str) {
    let mut open = crowd(port, CROWD, path).await;
    for from in [DEVICE, OTHER, CROWD] {
        for _ in 0..12 {
            assert!(is_served(port, from, path).await, "{from:?}");
        }
    }
    for last in 10..30 {
        open.push(connect(port, [127, 0, 0, last]).await);
    }
    open.extend(crowd(port, DEVICE, path).await);
    for from in [DEVICE, OTHER, CROWD, [127, 0, 0, 31]] {
        for _ in 0..12 {
            assert!(is_served(port, from, path).await, "{from:?} among {}", open.len());
        }
    }
}

#[tokio::test]
async fn idle_connections_of_one_address_do_not_keep_others_out() {
    let served = Served::ball(NO_BROKER, &[]);
    idle_connections_give_way(served.port, "/healthz").await;
    served.daemon.stop();
    let server = Server::start("builtin:nop=8x4");
    idle_connections_give_way(server.port, "/api/info").await;
    server.daemon.stop();
}

#[tokio::test]
async fn bodies_that_drip_hold_no_places_that_others_need() {
    let server = Server::start("builtin:nop=8x4");
    let port = server.port;
    let features = format!("{{\"features\": [{}0]}}", "0,".repeat(31));
    let post = format!(
        "POST /api/features HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{features}",
        features.len()
    );
    let is_classified = async |from| {
        let mut stream = connect(port, from).await;
        send(&mut stream, &post).await;
        head(&mut stream).await.starts_with("HTTP/1.1 200")
    };
    let mut dripping = Vec::new();
    for from in [CROWD, DEVICE] {
        for length in [
            "Content-Length: 1000",
            "Content-Length: 1000000",
            "Transfer-Encoding: chunked",
        ] {
            for _ in 0..4 {
                let mut stream = connect(port, from).await;
                let head = format!(
                    "POST /api/features HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
                );
                send(&mut stream, &head).await;
                dripping.push((stream, length.starts_with("Transfer")));
            }
        }
    }
    let drips = tokio::spawn(async move {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(8) {
            for (stream, is_chunked) in &mut dripping {
                send(stream, if *is_chunked { "1\r\n \r\n" } else { " " }).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        dripping
    });
    for from in [OTHER, CROWD, DEVICE] {
        let begun = Instant::now();
        assert!(is_classified(from).await, "{from:?}");
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{from:?}: {:?}",
            begun.elapsed()
        );
    }
    let mut refused = 0;
    for (mut stream, _) in drips.await.unwrap() {
        let mut answer = String::new();
        let reading = tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer));
        // The end of a connection on which the client still writes is an error.
        let _ = reading.await.expect("an end");
        refused += usize::from(answer.contains("the body arrives too slowly"));
    }
    assert!(refused >= 8, "{refused} were refused");
    server.daemon.stop();
}

#[tokio::test]
async fn a_head_that_drips_is_cut_off() {
    let server = Server::start("builtin:nop=8x4");
    let mut stream = connect(server.port, CROWD).await;
    send(&mut stream, "GET / HTTP/1.1\r\nX-Long: ").await;
    let begun = Instant::now();
    let cut = async {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await
        }
    };
    tokio::time::timeout(LIMIT, cut).await.expect("an end");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    server.daemon.stop();
}

/// The head of the answer to a request for a WebSocket.
async fn open_socket(port: u16, from: [u8; 4], path: &str) -> (TcpStream, String) {
    let mut stream = connect(port, from).await;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    send(&mut stream, &request).await;
    let head = head(&mut stream).await;
    (stream, head)
}

#[tokio::test]
async fn viewers_of_one_address_leave_places_for_others() {
    let served = Served::ball(NO_BROKER, &[]);
    let mut sockets = Vec::new();
    let mut refused = 0;
    for number in 0..40 {
        let path = if number % 2 == 0 { "/live" } else { "/" };
        let (stream, head) = open_socket(served.port, CROWD, path).await;
        if head.starts_with("HTTP/1.1 101") {
            sockets.push(stream);
        } else {
            assert!(head.starts_with("HTTP/1.1 503"), "{head}");
            refused += 1;
        }
    }
    assert_eq!((sockets.len(), refused), (8, 32));
    for from in [OTHER, DEVICE] {
        let (_stream, head) = open_socket(served.port, from, "/live").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{from:?}: {head}");
        assert!(is_served(served.port, from, "/snapshot.jpg").await, "{from:?}");
    }
    for last in 40..60 {
        for _ in 0..8 {
            sockets.push(open_socket(served.port, [127, 0, 0, last], "/live").await.0);
        }
    }
    let (_stream, head) = open_socket(served.port, DEVICE, "/live").await;
    assert!(
        head.starts_with("HTTP/1.1 101"),
        "places are kept for the device: {head}"
    );
    assert!(is_served(served.port, DEVICE, "/healthz").await);
    served.daemon.stop();
}

#[tokio::test]
async fn a_client_that_reads_a_byte_now_and_then_is_disconnected() {
    let served = Served::ball(NO_BROKER, &[]);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = socket.connect(([127, 0, 0, 1], served.port).into()).await.unwrap();
    send(&mut slow, &get("/stream.mjpeg")).await;
    let drip = tokio::spawn(async move {
        while slow.read_u8().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let viewers = |count: u64| move |status: &serde_json::Value| status["page"]["viewers"] == count;
    served.wait_for_status("it looks", viewers(1)).await;
    served.wait_for_status("it is cut off", viewers(0)).await;
    drip.abort();
    served.daemon.stop();
}

#[tokio::test]
async fn two_hosts_are_refused_and_every_answer_has_the_headers_of_the_rules() {
    let (served, server) = (Served::ball(NO_BROKER, &[]), Server::start("builtin:nop=8x4"));
    let paths: [(&Daemon, u16, &[&str]); 2] = [
        (
            &served.daemon,
            served.port,
            &["/", "/live", "/api/status", "/stream.mjpeg", "/nothing"],
        ),
        (&server.daemon, server.port, &["/", "/api/info", "/nothing"]),
    ];
    for (_, port, paths) in paths {
        for path in paths {
            let mut stream = connect(port, CROWD).await;
            let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n");
            send(&mut stream, &request).await;
            let head = head(&mut stream).await.to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 400"), "{path}: {head}");
            assert!(head.contains("x-content-type-options: nosniff"), "{path}: {head}");
            assert!(
                head.contains("cross-origin-resource-policy: same-origin"),
                "{path}: {head}"
            );
        }
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        for method in [reqwest::Method::GET, reqwest::Method::POST, reqwest::Method::OPTIONS] {
            for path in paths.iter().filter(|path| **path != "/stream.mjpeg") {
                let request = client.request(method.clone(), format!("http://127.0.0.1:{port}{path}"));
                let answer = request.send().await.unwrap();
                check_headers(answer.headers(), &format!("{method} {path}: {}", answer.status()));
            }
        }
    }
    served.daemon.stop();
    server.daemon.stop();
}

/// The largest memory that a process used, in MiB.
fn peak_mib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn a_flood_of_connections_and_refusals_uses_little_memory_and_few_log_lines() {
    let server = Server::start("builtin:nop=8x4");
    let refused = "GET /\u{202e} HTTP/1.1\r\nHost: evil.example\r\n\r\n".replace('\u{202e}', "%E2%80%AE");
    for round in 0..40 {
        let mut streams = Vec::new();
        for number in 0..50 {
            let mut stream = connect(server.port, [127, 0, 1, round]).await;
            let request = if number % 2 == 0 {
                refused.clone()
            } else {
                format!("{}{}", refused, "x".repeat(30_000))
            };
            send(&mut stream, &request).await;
            streams.push(stream);
        }
    }
    assert!(is_served(server.port, DEVICE, "/api/info").await);
    let peak = peak_mib(&server.daemon);
    assert!(peak < 90, "{peak} MiB");
    let log = server.daemon.stop();
    let lines = log
        .lines()
        .filter(|line| line.contains("An HTTP request was refused"))
        .count();
    assert!((1..60).contains(&lines), "{lines} lines");
}
