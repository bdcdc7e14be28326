//! Frames about which the model is not certain: the whole component against a stand-in for ingestion.

use std::process::Command;

use serde_json::{Value, json};

use super::assert_no_secret;
use crate::support::daemon::{Daemon, LIMIT, Site};
use crate::support::exchange::Part;
use crate::support::http::{HttpServer, Reply, Request};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::ports::free_port;
use crate::support::scripts::hello;
use crate::support::studio::{self as stand_in, API_KEY, good_secret};

/// Every frame looks different.
const MOVING: &str = "videotestsrc pattern=snow is-live=true ! video/x-raw,width=640,height=480,framerate=30/1";
/// Every frame looks the same.
const STILL: &str = "videotestsrc pattern=smpte75 is-live=true ! video/x-raw,width=640,height=480,framerate=30/1";

struct Bench {
    site: Site,
    secrets: HttpServer,
    broker: Mosquitto,
    observer: Observer,
}

impl Bench {
    fn new() -> Self {
        let (site, broker) = (Site::new(), Mosquitto::start());
        let observer = Observer::connect(broker.port, site.device());
        Self {
            site,
            secrets: stand_in::secrets(&good_secret()),
            broker,
            observer,
        }
    }

    /// A picture model that gives these answers again and again.
    fn model(&self, change: impl FnOnce(&mut Value), answers: Value) -> String {
        let mut greeting = hello(32, 32);
        change(&mut greeting["model_parameters"]);
        let script = json!({"hello": greeting, "answers": answers, "repeat": "cycle"});
        self.site.scripted_model(&script).display().to_string()
    }

    fn command(&self, ingestion: &str, model: &str, gst: &str, keys: &[&str]) -> Command {
        let mut command = self.site.command("run");
        command.args(["--mqtt", &self.broker.url(), "--model", model, "--gst", gst]);
        for key in keys.iter().chain(&["metrics_sleeptime_ms=150"]) {
            command.args(["--set", key]);
        }
        stand_in::surround(&mut command, &self.secrets.url(), ingestion);
        command.env("EI_INGESTION_URL", ingestion).env("RUST_LOG", "trace");
        command
    }

    fn run(&self, ingestion: &str, model: &str, gst: &str, keys: &[&str]) -> Daemon {
        Daemon::start(self.command(ingestion, model, gst, keys))
    }

    /// Waits until the process that was started after `before` metrics messages has counted so many events.
    fn wait_for_counter(&self, before: usize, counter: &str, least: u64) {
        self.observer.wait_for_nth("model/metrics", counter, before, |metrics| {
            metrics["runner"][counter].as_u64() >= Some(least)
        });
    }

    fn metrics(&self) -> usize {
        self.observer.all("model/metrics").len()
    }
}

fn ingestion(port: u16) -> HttpServer {
    let stored = json!({"success": true, "files": [{"success": true}]});
    HttpServer::start_at(port, move |_| Reply::json(&stored))
}

fn upload(server: &HttpServer, nth: usize) -> Request {
    server.requests.wait_for("the upload", LIMIT, |all| {
        let mut uploads = all.iter().filter(|request| request.path.ends_with("/files"));
        uploads.nth(nth).cloned()
    })
}

fn found(label: &str, value: f64) -> Value {
    json!({"label": label, "value": value, "x": 8, "y": 16, "width": 4, "height": 6})
}

fn tracked(label: &str) -> Value {
    let mut object = found(label, 0.95);
    object["object_id"] = json!(3);
    json!({"bounding_boxes": [], "object_tracking": [object]})
}

fn certain() -> Value {
    json!([{"bounding_boxes": [found("car", 0.95)]}])
}

fn uncertain() -> Value {
    json!([{"bounding_boxes": [found("car", 0.5), found("bus", 0.2)]}])
}

fn metadata(request: &Request) -> Value {
    serde_json::from_str(&request.headers["x-metadata"]).expect("JSON")
}

#[test]
fn the_whole_frame_is_uploaded_with_the_boxes_in_its_pixels() {
    let (bench, server) = (Bench::new(), ingestion(0));
    let fit_shortest = |parameters: &mut Value| parameters["image_resize_mode"] = json!("fit-shortest");
    let model = bench.model(fit_shortest, uncertain());
    let keys = ["collect_uncertain=0.4-0.6", "collect_category=testing"];
    let before = bench.metrics();
    let daemon = bench.run(&server.url(), &model, MOVING, &keys);
    let request = upload(&server, 0);
    assert_eq!(request.path, "/api/testing/files");
    assert_eq!(request.headers["x-api-key"], API_KEY);
    assert_eq!(
        (&*request.headers["x-label"], &*request.headers["x-no-label"]),
        ("", "1")
    );
    let parts = Part::all(&request);
    assert_eq!(parts.len(), 2);
    let picture = image::load_from_memory(&parts[0].data).expect("a picture");
    assert_eq!((picture.width(), picture.height()), (640, 480));
    assert_eq!(
        (&*parts[1].name, &*parts[1].file_name, &*parts[1].kind),
        ("data", "bounding_boxes.labels", "application/json")
    );
    let labels: Value = serde_json::from_slice(&parts[1].data).unwrap();
    // 480 columns of the frame are scaled to 32; 80 are cut on the left.
    let boxes = json!([
        {"label": "car", "x": 200, "y": 240, "width": 60, "height": 90},
        {"label": "bus", "x": 200, "y": 240, "width": 60, "height": 90},
    ]);
    assert_eq!(
        labels,
        json!({"version": 1, "type": "bounding-box-labels", "boundingBoxes": {&parts[0].file_name: boxes}})
    );
    let metadata = metadata(&request);
    assert_eq!(
        (&metadata["reason"], &metadata["value"]),
        (&json!("uncertain"), &json!("0.5"))
    );
    assert_eq!(
        (&metadata["model"], &metadata["model_version"]),
        (&json!("Scripted"), &json!("7"))
    );
    bench.wait_for_counter(before, "collect_uploaded", 1);
    let log = daemon.stop();
    assert_no_secret(&log);
    assert!(!log.contains("remote management"), "no channel is needed: {log}");
}

#[test]
fn a_classification_is_uploaded_with_its_label() {
    let (bench, server) = (Bench::new(), ingestion(0));
    let classifies = |parameters: &mut Value| {
        parameters["model_type"] = json!("classification");
        parameters["labels"] = json!(["rote Tür", "wall"]);
        parameters["label_count"] = json!(2);
    };
    let answers = json!([{"classification": {"rote Tür": 0.55, "wall": 0.45}}]);
    let model = bench.model(classifies, answers);
    let daemon = bench.run(&server.url(), &model, MOVING, &["collect_uncertain=0.4-0.6"]);
    let request = upload(&server, 0);
    assert_eq!(request.path, "/api/training/files");
    assert_eq!(request.headers["x-label"], "rote%20T%C3%BCr");
    assert!(!request.headers.contains_key("x-no-label"));
    assert_eq!(Part::of(&request).kind, "image/jpeg");
    assert_eq!(metadata(&request)["label"], "rote Tür");
    daemon.stop();
}

#[test]
fn a_window_of_audio_is_uploaded_as_sound() {
    let (bench, server) = (Bench::new(), ingestion(0));
    let keys = ["collect_uncertain=0-1"];
    let daemon = bench.run(&server.url(), "builtin:audio", "audiotestsrc is-live=true", &keys);
    let request = upload(&server, 0);
    let part = Part::of(&request);
    assert_eq!((&*part.kind, &part.data[..4]), ("audio/wav", &b"RIFF"[..]));
    assert_eq!(part.data.len(), 44 + 32_000);
    assert!(!request.headers["x-label"].is_empty());
    daemon.stop();
}

#[test]
fn a_label_that_flickers_is_uploaded_though_the_model_is_certain() {
    let (bench, server) = (Bench::new(), ingestion(0));
    let model = bench.model(|_| {}, json!([tracked("cat"), tracked("cat"), tracked("dog")]));
    let daemon = bench.run(&server.url(), &model, MOVING, &["collect_uncertain=0.4-0.6"]);
    let request = upload(&server, 0);
    assert_eq!(metadata(&request)["reason"], "label_flicker");
    assert_eq!(Part::all(&request).len(), 2);
    daemon.stop();
}

#[test]
fn a_frame_is_uploaded_in_any_case_when_its_time_has_come() {
    let (bench, server) = (Bench::new(), ingestion(0));
    let model = bench.model(|_| {}, json!([{"bounding_boxes": []}]));
    let before = bench.metrics();
    let daemon = bench.run(&server.url(), &model, STILL, &["collect_every_minutes=60"]);
    let request = upload(&server, 0);
    assert_eq!(metadata(&request)["reason"], "regular");
    assert_eq!(request.headers["x-no-label"], "1");
    Part::of(&request);
    bench.wait_for_counter(before, "inferences", 60);
    daemon.stop();
    assert_eq!(server.count("/files"), 1);
}

#[test]
fn certain_frames_stay_on_the_device() {
    let (bench, server) = (Bench::new(), ingestion(0));
    let model = bench.model(|_| {}, certain());
    let before = bench.metrics();
    let daemon = bench.run(&server.url(), &model, MOVING, &["collect_uncertain=0.4-0.6"]);
    bench.wait_for_counter(before, "inferences", 60);
    daemon.stop();
    assert_eq!(server.count("/files"), 0);
}

#[test]
fn the_limit_of_an_hour_holds_over_a_restart_and_a_crash() {
    let (bench, server) = (Bench::new(), ingestion(0));
    let model = bench.model(|_| {}, uncertain());
    let keys = ["collect_uncertain=0.4-0.6", "collect_per_hour=1"];
    for _ in 0..3 {
        let before = bench.metrics();
        let daemon = bench.run(&server.url(), &model, MOVING, &keys);
        bench.wait_for_counter(before, "collect_over_limit", 30);
        upload(&server, 0);
        // As a crash does.
        drop(daemon);
    }
    assert_eq!(server.count("/files"), 1);
}

#[test]
fn a_scene_that_does_not_change_is_uploaded_once() {
    let (bench, server) = (Bench::new(), ingestion(0));
    let model = bench.model(|_| {}, uncertain());
    let keys = ["collect_uncertain=0.4-0.6", "collect_per_hour=3600"];
    for _ in 0..2 {
        let before = bench.metrics();
        let daemon = bench.run(&server.url(), &model, STILL, &keys);
        upload(&server, 0);
        bench.wait_for_counter(before, "collect_alike", 2);
        daemon.stop();
    }
    assert_eq!(server.count("/files"), 1);
}

#[test]
fn a_frame_outlives_an_outage_and_is_uploaded_once() {
    let (bench, port) = (Bench::new(), free_port());
    let model = bench.model(|_| {}, uncertain());
    let url = format!("http://127.0.0.1:{port}");
    let keys = ["collect_uncertain=0.4-0.6", "collect_per_hour=1"];
    let daemon = bench.run(&url, &model, MOVING, &keys);
    daemon.wait_for_line("A sample cannot be uploaded to Edge Impulse Studio; it waits on disk");
    drop(daemon);
    let server = ingestion(port);
    let before = bench.metrics();
    let daemon = bench.run(&url, &model, MOVING, &keys);
    daemon.wait_for_line("A sample was uploaded to Edge Impulse Studio waiting=0");
    bench.wait_for_counter(before, "collect_uploaded", 1);
    daemon.stop();
    assert_eq!(server.count("/files"), 1);
    assert_eq!(Part::all(&upload(&server, 0)).len(), 2);
}

#[test]
fn the_bytes_of_a_day_are_bounded_over_a_restart() {
    let (bench, server) = (Bench::new(), ingestion(0));
    let model = bench.model(|_| {}, uncertain());
    let keys = [
        "collect_uncertain=0.4-0.6",
        "collect_per_hour=3600",
        "collect_mb_per_day=1",
    ];
    for _ in 0..2 {
        let before = bench.metrics();
        let daemon = bench.run(&server.url(), &model, MOVING, &keys);
        bench.wait_for_counter(before, "collect_over_bytes", 1);
        daemon.stop();
    }
    let bodies = server
        .requests
        .with(|all| all.iter().map(|request| request.body.len()).sum::<usize>());
    assert!((1..=1 << 20).contains(&bodies), "{bodies}");
}
