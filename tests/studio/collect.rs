//! Samples from the running inference: the whole component against a Studio that plays the exchanges.

use std::process::Command;

use serde_json::{Value, json};

use super::assert_no_secret;
use crate::support::daemon::{Daemon, LIMIT, Site};
use crate::support::exchange::{ExchangeStudio, Part};
use crate::support::http::{HttpServer, Reply};
use crate::support::ports::free_port;
use crate::support::remote_management::{Connection, OnHello, RemoteManagement};
use crate::support::studio::{self as stand_in, good_secret};

const CAMERA: &str = "videotestsrc pattern=ball is-live=true ! video/x-raw,width=640,height=480,framerate=30/1";
const MICROPHONE: &str = "audiotestsrc is-live=true";
/// Nobody listens there.
const NO_BROKER: &str = "mqtt://127.0.0.1:9";

/// The component that collects; `ingestion` and `remote` are the stand-ins.
fn run(site: &Site, secrets: &HttpServer, remote: &str, http: &str, change: impl FnOnce(&mut Command)) -> Daemon {
    let mut command = site.command("run");
    let endpoint = format!("iot_endpoint={NO_BROKER}");
    command.args(["--set", &endpoint, "--set", "collect=yes"]);
    stand_in::surround(&mut command, &secrets.url(), http);
    command
        .env("EI_REMOTE_MGMT_URL", remote)
        .env("EI_INGESTION_URL", http)
        .env("RUST_LOG", "trace");
    change(&mut command);
    Daemon::start(command)
}

pub fn camera(command: &mut Command) {
    command.args(["--model", "builtin:ball", "--gst", CAMERA]);
}

fn microphone(command: &mut Command) {
    command.args(["--model", "builtin:audio", "--gst", MICROPHONE]);
}

fn play(case: &str, source: impl FnOnce(&mut Command)) -> (ExchangeStudio, String) {
    let (site, secrets) = (Site::new(), stand_in::secrets(&good_secret()));
    let studio = ExchangeStudio::new(case);
    let daemon = run(&site, &secrets, &studio.remote.url(), &studio.http.url(), source);
    studio.play();
    let log = daemon.stop();
    assert_no_secret(&log);
    (studio, log)
}

fn upload(http: &HttpServer, nth: usize) -> Part {
    let request = http.requests.wait_for("the upload", LIMIT, |all| {
        let mut uploads = all.iter().filter(|request| request.path.ends_with("/files"));
        uploads.nth(nth).cloned()
    });
    Part::of(&request)
}

#[test]
fn a_camera_sample_is_the_whole_frame_as_in_exchange_c() {
    let (studio, _) = play("C", camera);
    let (_, hello) = studio.remote.hello(0);
    assert_eq!(hello["hello"]["sensors"][0]["name"], "Camera (640x480)");
    assert_eq!(hello["hello"]["supportsSnapshotStreaming"], true);
    let picture = image::load_from_memory(&upload(&studio.http, 0).data).expect("a picture");
    assert_eq!((picture.width(), picture.height()), (640, 480));
}

#[test]
fn a_sound_is_recorded_beside_the_inference_as_in_exchange_d() {
    let (studio, log) = play("D", microphone);
    let (_, hello) = studio.remote.hello(0);
    let sensor = &hello["hello"]["sensors"][0];
    assert_eq!(
        (&sensor["name"], &sensor["frequencies"][0]),
        (&json!("Microphone"), &json!(16_000.0))
    );
    let wav = upload(&studio.http, 0).data;
    assert_eq!(wav.len(), 44 + 32_000);
    assert_eq!(wav[4..8], 32_036_u32.to_le_bytes());
    assert_eq!(wav[40..44], 32_000_u32.to_le_bytes());
    assert!(wav[44..].iter().any(|byte| *byte != 0), "there is a tone");
    assert!(
        log.contains("Edge Impulse Studio refuses a sample, which is dropped"),
        "{log}"
    );
}

/// Starts the component with a camera. Ingestion gives `answers` one after the other, then success.
pub struct Bench {
    pub site: Site,
    secrets: HttpServer,
    pub remote: RemoteManagement,
    pub http: HttpServer,
}

impl Bench {
    pub fn new(answers: Vec<Reply>) -> Self {
        Self::at(0, answers)
    }

    fn at(port: u16, answers: Vec<Reply>) -> Self {
        Self::with(ingestion(port, answers))
    }

    /// With this ingestion.
    pub fn with(http: HttpServer) -> Self {
        Self {
            site: Site::new(),
            secrets: stand_in::secrets(&good_secret()),
            remote: RemoteManagement::start(OnHello::Accept),
            http,
        }
    }

    pub fn run(&self, source: impl FnOnce(&mut Command)) -> Daemon {
        run(&self.site, &self.secrets, &self.remote.url(), &self.http.url(), source)
    }
}

fn ingestion(port: u16, answers: Vec<Reply>) -> HttpServer {
    let answers = parking_lot::Mutex::new(answers.into_iter());
    let stored = json!({"success": true, "files": [{"success": true}]});
    HttpServer::start_at(port, move |request| match request.path.ends_with("/files") {
        true => answers.lock().next().unwrap_or_else(|| Reply::json(&stored)),
        false => Reply::json(&json!({"success": false, "error": "no API here"})).status(404),
    })
}

pub fn ask_for_picture(connection: &Connection) {
    connection.send(&json!({"sample": {
        "label": "cat", "length": 10, "path": "/api/training/data", "hmacKey": "0", "interval": 10, "sensor": "Camera (640x480)",
    }}));
}

fn error_of(message: &Value) -> String {
    message["error"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_sample_that_ingestion_cannot_take_now_is_uploaded_later_and_once() {
    let bench = Bench::new(vec![Reply::bytes("text/html", "<html>").status(503)]);
    let daemon = bench.run(camera);
    let (connection, _) = bench.remote.hello(0);
    ask_for_picture(&connection);
    let failed = connection.wait_for(&json!({"sample": false}));
    assert!(error_of(&failed).contains("kept on the device"), "{failed}");
    let (first, second) = (upload(&bench.http, 0), upload(&bench.http, 1));
    assert_eq!(first, second);
    daemon.wait_for_line("A sample was uploaded to Edge Impulse Studio waiting=0");
    daemon.stop();
    assert_eq!(bench.http.count("/files"), 2);
}

#[test]
fn a_sample_outlives_the_component_and_a_duplicate_after_that_is_stored() {
    let port = free_port();
    let bench = Bench::at(port, vec![Reply::bytes("text/plain", "").status(500); 20]);
    let daemon = bench.run(camera);
    let (connection, _) = bench.remote.hello(0);
    ask_for_picture(&connection);
    connection.wait_for(&json!({"sample": false}));
    drop(daemon);

    let Bench {
        site,
        secrets,
        remote,
        http,
    } = bench;
    drop(http);
    let duplicate = Reply::bytes("text/plain", "An item with this hash already exists (ids: 1)").status(400);
    let http = ingestion(port, vec![duplicate]);
    let daemon = run(&site, &secrets, &remote.url(), &http.url(), camera);
    daemon.wait_for_line("Samples of an earlier run wait for Edge Impulse Studio waiting=1");
    daemon.wait_for_line("A sample was uploaded to Edge Impulse Studio waiting=0");
    daemon.stop();
    assert_eq!(http.count("/files"), 1);
}

#[test]
fn a_sample_that_ingestion_refuses_is_not_sent_again() {
    let refusal = Reply::json(&json!({"success": false, "error": "too dark"})).status(400);
    let bench = Bench::new(vec![refusal]);
    let daemon = bench.run(camera);
    let (connection, _) = bench.remote.hello(0);
    ask_for_picture(&connection);
    let failed = connection.wait_for(&json!({"sample": false}));
    assert_eq!(error_of(&failed), "too dark");
    ask_for_picture(&connection);
    connection.wait_for(&json!({"sampleFinished": true}));
    daemon.stop();
    assert_eq!(bench.http.count("/files"), 2);
}

#[test]
fn one_sample_is_taken_at_a_time_and_impossible_ones_are_refused_with_the_reason() {
    let bench = Bench::new(Vec::new());
    let daemon = bench.run(microphone);
    let (connection, _) = bench.remote.hello(0);
    let sample = |length: f64, interval: f64, sensor: &str| json!({"sample": {"label": "noise", "length": length, "path": "/api/testing/data", "interval": interval, "sensor": sensor}});
    for (nth, (request, part)) in [
        (sample(10.0, 62.5, "Camera (640x480)"), "no sensor \"Camera (640x480)\""),
        (sample(10.0, 125.0, "Microphone"), "runs at 16000 Hz; a sample at 8 Hz"),
        (sample(10.0, 0.125, "Microphone"), "a sample at 8000 Hz"),
        (sample(0.0, 0.0625, "Microphone"), "too short"),
        (sample(4_000_000.0, 0.0625, "Microphone"), "100 MiB"),
        (json!({"sample": {"label": 5}}), "the label is no text"),
        (json!({"startSnapshot": true}), "no camera"),
    ]
    .into_iter()
    .enumerate()
    {
        connection.send(&request);
        let pattern = match request.get("sample") {
            Some(_) => json!({"sample": false}),
            None => json!({"snapshotFailed": true}),
        };
        let nth = if request.get("sample").is_some() { nth } else { 0 };
        let failed = connection.wait_for_nth(&pattern, nth);
        assert!(error_of(&failed).contains(part), "{failed}");
    }
    let before = connection.count(&json!({"sample": false}));
    connection.send(&sample(1000.0, 0.0625, "Microphone"));
    connection.send(&sample(1000.0, 0.0625, "Microphone"));
    let busy = connection.wait_for_nth(&json!({"sample": false}), before);
    assert!(error_of(&busy).contains("a sample is being taken"), "{busy}");
    connection.wait_for(&json!({"sampleFinished": true}));
    daemon.stop();
    assert_eq!(upload(&bench.http, 0).data.len(), 44 + 32_000);
    assert_eq!(bench.http.count("/files"), 1);
}

#[test]
fn a_sample_outlives_the_connection_over_which_it_was_asked_for() {
    let bench = Bench::new(Vec::new());
    let daemon = bench.run(microphone);
    let sample = json!({"sample": {"label": "noise", "length": 4000, "path": "/api/testing/data", "interval": 0.0625, "sensor": "Microphone"}});
    let (connection, _) = bench.remote.hello(0);
    connection.send(&sample);
    connection.wait_for(&json!({"sampleStarted": true}));
    connection.cut();
    // The next connection is there before the recording has ended.
    let (connection, _) = bench.remote.hello(1);
    connection.wait_for(&json!({"sampleFinished": true}));
    assert_eq!(upload(&bench.http, 0).data.len(), 44 + 128_000);
    connection.send(&sample);
    connection.wait_for_nth(&json!({"sampleFinished": true}), 1);
    daemon.stop();
    assert_eq!(bench.http.count("/files"), 2);
}

#[test]
fn a_studio_that_reads_nothing_does_not_hold_up_the_inference() {
    use crate::support::mosquitto::Mosquitto;
    use crate::support::observer::Observer;
    let bench = Bench::new(Vec::new());
    let broker = Mosquitto::start();
    let observer = Observer::connect(broker.port, bench.site.device());
    let daemon = bench.run(|command| {
        camera(command);
        let endpoint = format!("iot_endpoint={}", broker.url());
        command.args(["--set", &endpoint, "--set", "iotcore_backoff=1"]);
    });
    let (connection, _) = bench.remote.hello(0);
    connection.send(&json!({"startSnapshot": true, "resolution": "high"}));
    connection.wait_for(&json!({"snapshotFrame": "*"}));
    connection.freeze();
    let before = observer.all("inference/output").len();
    observer.wait_for_count("inference/output", before + 90);
    let log = daemon.stop();
    assert!(!log.contains("The source failed"), "{log}");
}

#[test]
fn a_video_ends_after_its_length_where_an_encoder_is_installed() {
    ei_greengrass::capture::init().unwrap();
    let can_encode = ei_greengrass::capture::can_encode_video();
    let bench = Bench::new(Vec::new());
    let daemon = bench.run(camera);
    let (connection, hello) = bench.remote.hello(0);
    let sensors = hello["hello"]["sensors"].as_array().unwrap();
    let is_offered = sensors.iter().any(|sensor| sensor["name"] == "Video (1280x720)");
    assert_eq!(is_offered, can_encode, "{sensors:?}");
    let video = |length: u64| json!({"sample": {"label": "v", "length": length, "path": "/api/training/data", "interval": 0, "sensor": "Video (1280x720)"}});
    connection.send(&video(301_000));
    let failed = connection.wait_for(&json!({"sample": false}));
    assert!(error_of(&failed).contains("up to 300 s"), "{failed}");
    connection.send(&video(1500));
    if !can_encode {
        let failed = connection.wait_for_nth(&json!({"sample": false}), 1);
        assert!(error_of(&failed).contains("gstreamer1.0-plugins-ugly"), "{failed}");
        daemon.stop();
        return;
    }
    connection.wait_for(&json!({"sampleProcessing": true}));
    connection.wait_for(&json!({"sampleFinished": true}));
    daemon.stop();
    let part = upload(&bench.http, 0);
    assert_eq!((part.file_name.as_str(), part.kind.as_str()), ("v.mp4", "video/mp4"));
    assert_eq!(&part.data[4..8], b"ftyp");
    let has = |name: &[u8]| part.data.windows(4).any(|window| window == name);
    assert!(has(b"moov") && has(b"avc1") && has(b"mdat"));
    assert!((1.0..3.0).contains(&seconds(&part.data)), "{}", seconds(&part.data));
}

/// The duration in the movie header (`mvhd`, version 0) of an MP4 file.
fn seconds(file: &[u8]) -> f64 {
    let at = file.windows(4).position(|window| window == b"mvhd").expect("mvhd");
    let number = |offset: usize| u32::from_be_bytes(file[at + offset..at + offset + 4].try_into().unwrap());
    f64::from(number(20)) / f64::from(number(16))
}

#[test]
fn the_snapshot_stream_shows_the_camera_and_ends_with_the_connection() {
    use base64::Engine;
    let bench = Bench::new(Vec::new());
    let daemon = bench.run(camera);
    let (connection, _) = bench.remote.hello(0);
    let frame = json!({"snapshotFrame": "*", "fileName": "*"});
    for (resolution, size) in [("low", (128, 96)), ("high", (640, 480))] {
        let before = connection.count(&frame);
        connection.send(&json!({"startSnapshot": true, "resolution": resolution}));
        let picture = connection.wait_for_nth(&frame, before + 1);
        let jpeg = base64::engine::general_purpose::STANDARD
            .decode(picture["snapshotFrame"].as_str().unwrap())
            .unwrap();
        let picture = image::load_from_memory(&jpeg).expect("a picture");
        assert_eq!((picture.width(), picture.height()), size);
        let stopped = connection.count(&json!({"snapshotStopped": true}));
        connection.send(&json!({"stopSnapshot": true}));
        connection.wait_for_nth(&json!({"snapshotStopped": true}), stopped);
    }
    connection.send(&json!({"startSnapshot": true}));
    connection.wait_for_nth(&json!({"snapshotStarted": true}), 2);
    connection.close();
    let (connection, _) = bench.remote.hello(1);
    ask_for_picture(&connection);
    connection.wait_for(&json!({"sampleFinished": true}));
    assert_eq!(connection.count(&frame), 0);
    daemon.stop();
}
