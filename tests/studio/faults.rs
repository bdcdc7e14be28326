//! A channel that is cut while something is in progress, and a Studio that floods the device.

use std::sync::mpsc;

use parking_lot::Mutex;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::collect::{Bench, ask_for_picture, camera};
use crate::support::daemon::{Daemon, LIMIT};
use crate::support::http::{HttpServer, Reply};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;

#[test]
fn a_channel_that_is_cut_during_an_upload_does_not_interrupt_it() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let stored = json!({"success": true, "files": [{"success": true}]});
    let bench = Bench::with(HttpServer::start(move |request| {
        if !request.path.ends_with("/files") {
            return Reply::json(&json!({"success": false})).status(404);
        }
        let _ = released.lock().recv();
        Reply::json(&stored)
    }));
    let daemon = bench.run(camera);
    let (connection, _) = bench.remote.hello(0);
    ask_for_picture(&connection);
    bench.http.requests.wait_for("the upload", LIMIT, |all| {
        all.iter().any(|request| request.path.ends_with("/files")).then_some(())
    });
    connection.cut();
    let (connection, _) = bench.remote.hello(1);
    release.send(()).unwrap();
    connection.wait_for(&json!({"sampleFinished": true}));
    daemon.stop();
    assert_eq!(bench.http.count("/files"), 1);
}

#[test]
fn a_snapshot_stream_whose_channel_is_cut_starts_again_only_when_studio_asks() {
    let bench = Bench::new(Vec::new());
    let daemon = bench.run(camera);
    let frame = json!({"snapshotFrame": "*"});
    let (connection, _) = bench.remote.hello(0);
    connection.send(&json!({"startSnapshot": true}));
    connection.wait_for(&frame);
    connection.cut();
    let (connection, _) = bench.remote.hello(1);
    ask_for_picture(&connection);
    connection.wait_for(&json!({"sampleFinished": true}));
    assert_eq!(connection.count(&frame), 0);
    connection.send(&json!({"startSnapshot": true}));
    connection.wait_for(&frame);
    daemon.stop();
}

/// The most memory that a process had, in bytes.
fn peak_memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_studio_that_floods_the_device_does_not_disturb_the_inference_the_memory_and_the_log() {
    const ROUNDS: usize = 2000;
    let bench = Bench::new(Vec::new());
    let broker = Mosquitto::start();
    let observer = Observer::connect(broker.port, bench.site.device());
    let daemon = bench.run(|command| {
        camera(command);
        let endpoint = format!("iot_endpoint={}", broker.url());
        command.args(["--set", &endpoint, "--set", "iotcore_backoff=1"]);
        command.env("RUST_LOG", "info");
    });
    let (connection, _) = bench.remote.hello(0);
    observer.wait_for_count("inference/output", 30);
    let before = peak_memory(&daemon);
    let sample = |sensor: &str| json!({"sample": {"label": "x", "length": 10, "path": "/api/training/data", "interval": 10, "sensor": sensor}});
    for _ in 0..ROUNDS {
        connection.send_raw(Message::Ping(vec![7; 100].into()));
        connection.send_raw(Message::Pong(vec![7; 100].into()));
        connection.send(&sample("Thermometer"));
        connection.send(&json!({"sample": {"label": 5}}));
        connection.send(&json!({"startSnapshot": true, "resolution": "high"}));
        connection.send(&json!({"stopSnapshot": true}));
        connection.send(&json!({"impulseRecordRequest": {"range": {"first": 1, "last": 1_000_000_000}}}));
        connection.send(&json!({"no": "meaning"}));
        connection.send_raw(Message::binary(vec![0xff; 1000]));
        connection.send_raw(Message::text("[".repeat(1000)));
    }
    let inferred = observer.all("inference/output").len();
    observer.wait_for_count("inference/output", inferred + 60);
    // All of it was read before the next message, which is too large.
    connection.send_raw(Message::binary(vec![b'x'; 100 << 20]));
    let (connection, _) = bench.remote.hello(1);
    ask_for_picture(&connection);
    connection.wait_for(&json!({"sampleFinished": true}));
    let grown = peak_memory(&daemon).saturating_sub(before);
    assert!(grown < 40 << 20, "{} MiB more", grown >> 20);
    let log = daemon.stop();
    assert!(log.lines().count() < 200, "{} lines", log.lines().count());
    assert!(!log.contains("The source failed"), "{log}");
}
