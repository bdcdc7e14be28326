//! Monitoring of the running model: the whole component against a stand-in of remote management.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::assert_no_secret;
use crate::support::daemon::{Daemon, LIMIT, Site};
use crate::support::exchange::ExchangeStudio;
use crate::support::http::HttpServer;
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::remote_management::{Connection, OnHello, RemoteManagement};
use crate::support::scripts::{boxed, classified, frames, hearing, script};
use crate::support::studio::{self as stand_in, good_secret};

const CAMERA: &str = "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=30/1";
const MICROPHONE: &str = "audiotestsrc is-live=true";
const ENDED: &str = "Edge Impulse Studio refuses an inference, and the stream ends";

/// A component with a scripted model, whose Studio is the stand-in.
struct Bench {
    site: Site,
    broker: Mosquitto,
    observer: Observer,
    secrets: HttpServer,
    studio: HttpServer,
    model: PathBuf,
}

impl Bench {
    fn new(script: &Value) -> Self {
        let (site, broker) = (Site::new(), Mosquitto::start());
        Self {
            observer: Observer::connect(broker.port, site.device()),
            secrets: stand_in::secrets(&good_secret()),
            studio: stand_in::studio(&stand_in::state(Vec::new())),
            model: site.scripted_model(script),
            site,
            broker,
        }
    }

    fn run(&self, remote: &str, source: &str, change: impl FnOnce(&mut Command)) -> Daemon {
        let mut command = self.site.command("run");
        command.args(["--mqtt", &self.broker.url(), "--gst", source, "--model"]);
        command.arg(&self.model);
        command.args(["--set", "monitor=yes"]);
        command.args([
            "--set",
            "iotcore_backoff=1",
            "--set",
            "ei_shutdown_behavior=wait_for_restart",
        ]);
        stand_in::surround(&mut command, &self.secrets.url(), &self.studio.url());
        command.env("EI_REMOTE_MGMT_URL", remote).env("RUST_LOG", "debug");
        change(&mut command);
        Daemon::start(command)
    }

    /// Infers these frames and stops; nothing listens at the address of Studio.
    fn infer_offline(&self, count: u32, number: usize) {
        let daemon = self.run("ws://127.0.0.1:9", &frames(count), |_| {});
        self.observer.wait_for_status("paused", number);
        assert_no_secret(&daemon.stop());
    }
}

fn stream() -> Value {
    json!({"startInferenceStream": true})
}

fn record() -> Value {
    json!({"impulseRecord": "*"})
}

fn summary() -> Value {
    json!({"inferenceSummary": "*"})
}

fn index(record: &Value) -> u64 {
    record["index"].as_u64().expect("an index")
}

fn range(summary: &Value) -> (u64, u64) {
    let at = |point: &str| index(&summary["inferenceSummary"][point]);
    (at("start"), at("end"))
}

/// Starts the stream and waits for its nth record.
fn streamed(connection: &Arc<Connection>, nth: usize) -> Value {
    connection.send(&stream());
    connection.wait_for(&json!({"inferenceStreamStarted": true}));
    connection.wait_for_nth(&record(), nth)
}

#[test]
fn a_stream_ends_at_a_refused_record_and_a_stop_sends_the_last_window_as_in_exchange_f() {
    // The first inference comes when Studio watches already, and the second one not before the first one is sent: only
    // the newest waits for the connection.
    let late = |ms: u64| json!({"delay_ms": ms, "then": boxed(0.75)});
    let bench = Bench::new(&script(&[late(5000), late(3000), boxed(0.75)]));
    let studio = ExchangeStudio::new("F");
    let daemon = bench.run(&studio.remote.url(), CAMERA, |_| {});
    studio.play_with(|step| {
        if !step["d"]["inferenceSummary"].is_null() {
            daemon.wait_for_line(ENDED);
            let seen = bench.observer.all("inference/output").len();
            let (connection, _) = studio.remote.hello(0);
            let records = connection.count(&record());
            bench.observer.wait_for_count("inference/output", seen + 10);
            assert!(connection.count(&record()) <= records + 2, "the stream has ended");
            daemon.signal(rustix::process::Signal::TERM);
        }
    });
    let (connection, hello) = studio.remote.hello(0);
    let hello = &hello["hello"];
    assert_eq!(
        (&hello["sensors"], &hello["supportsSnapshotStreaming"]),
        (&json!([]), &json!(false))
    );
    assert_eq!(
        hello["inferenceInfo"],
        json!({"projectId": 1, "projectName": "Scripted", "projectOwner": "tests", "deploymentVersion": 7,
               "modelType": "object_detection"})
    );
    let streamed = connection.wait_for(&record());
    assert_eq!(streamed["impulseRecord"]["result"], boxed(0.75));
    let picture = STANDARD
        .decode(streamed["rawData"]["bufferBase64"].as_str().unwrap())
        .unwrap();
    let picture = image::load_from_memory(&picture).expect("a picture");
    assert_eq!((picture.width(), picture.height()), (32, 24), "the size of the model");
    let summary = connection.wait_for(&summary());
    let (first, last) = range(&summary);
    assert!(first == 1 && last > 10, "{summary}");
    let inferences = last;
    let content = &summary["inferenceSummary"];
    assert_eq!(
        content["classificationCounter"],
        json!([{"label": "thing", "value": inferences}]),
        "every inference is counted"
    );
    assert_eq!(content["mean"], json!([{"label": "thing", "value": 0.75}]));
    assert_eq!(connection.count(&self::summary()), 1);
    assert_no_secret(&daemon.stop());
}

#[test]
fn summaries_survive_an_outage_and_restarts_and_arrive_once_and_in_order() {
    let bench = Bench::new(&script(&[boxed(0.5)]));
    bench.infer_offline(5, 1);
    bench.infer_offline(7, 2);
    let remote = RemoteManagement::start(OnHello::Accept);
    let daemon = bench.run(&remote.url(), &frames(3), |_| {});
    let (connection, hello) = remote.hello(0);
    assert_eq!(hello["hello"]["mode"], "inference");
    connection.wait_for_nth(&summary(), 1);
    bench.observer.wait_for_status("paused", 3);
    daemon.stop();
    connection.wait_for_nth(&summary(), 2);
    let daemon = bench.run(&remote.url(), &frames(2), |_| {});
    bench.observer.wait_for_status("paused", 4);
    let (again, _) = remote.hello(1);
    daemon.stop();
    again.wait_for(&summary());
    let ranges = |connection: &Arc<Connection>| {
        let all = connection.messages.with(<[_]>::to_vec);
        let summaries = all.iter().filter(|message| message.get("inferenceSummary").is_some());
        summaries.map(range).collect::<Vec<_>>()
    };
    assert_eq!(ranges(&connection), [(1, 5), (6, 12), (13, 15)]);
    assert_eq!(ranges(&again), [(16, 17)], "each once");
}

#[test]
fn a_summary_that_a_dead_connection_swallows_is_sent_again() {
    let bench = Bench::new(&script(&[boxed(0.5)]));
    let remote = RemoteManagement::start(OnHello::Accept);
    let daemon = bench.run(&remote.url(), CAMERA, |_| {});
    let (connection, _) = remote.hello(0);
    let last = index(&streamed(&connection, 3));
    connection.freeze();
    // Inference goes on while nobody reads the stream.
    let seen = bench.observer.all("inference/output").len();
    bench.observer.wait_for_count("inference/output", seen + 30);
    let begun = std::time::Instant::now();
    daemon.stop();
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    assert_eq!(connection.count(&summary()), 0);
    let daemon = bench.run(&remote.url(), CAMERA, |_| {});
    let (connection, _) = remote.hello(1);
    let sent = connection.wait_for(&summary());
    assert!(range(&sent).0 == 1 && range(&sent).1 > last, "{sent}");
    daemon.stop();
}

#[test]
fn a_killed_process_uses_no_index_again() {
    let bench = Bench::new(&script(&[boxed(0.5)]));
    let remote = RemoteManagement::start(OnHello::Accept);
    let mut daemon = bench.run(&remote.url(), CAMERA, |_| {});
    let (connection, _) = remote.hello(0);
    let last = streamed(&connection, 5);
    let timing = &last["impulseRecord"]["timing"];
    assert_eq!((&timing["dsp"], &timing["classification"]), (&json!(1), &json!(2)));
    daemon.signal(rustix::process::Signal::KILL);
    daemon.wait_for_end(LIMIT);
    let all = connection.messages.with(<[_]>::to_vec);
    let highest = all
        .iter()
        .filter_map(|message| message["index"].as_u64())
        .max()
        .unwrap();
    let daemon = bench.run(&remote.url(), CAMERA, |_| {});
    let (connection, _) = remote.hello(1);
    let first = index(&streamed(&connection, 0));
    assert!(first > highest, "{first} after {highest}");
    let second = index(&connection.wait_for_nth(&record(), 1));
    assert!(second > first);
    daemon.stop();
}

#[test]
fn the_stream_ends_at_a_stop_and_with_the_connection() {
    let bench = Bench::new(&script(&[boxed(0.5)]));
    let remote = RemoteManagement::start(OnHello::Accept);
    let daemon = bench.run(&remote.url(), CAMERA, |_| {});
    let (connection, _) = remote.hello(0);
    streamed(&connection, 1);
    connection.send(&json!({"stopInferenceStream": true}));
    connection.wait_for(&json!({"inferenceStreamStopped": true}));
    connection.send(&stream());
    connection.wait_for_nth(&json!({"inferenceStreamStarted": true}), 1);
    connection.cut();
    let (connection, _) = remote.hello(1);
    let seen = bench.observer.all("inference/output").len();
    bench.observer.wait_for_count("inference/output", seen + 15);
    assert_eq!(connection.count(&record()), 0, "nobody has asked on this connection");
    // An acknowledgement of what was never streamed ends nothing.
    streamed(&connection, 0);
    connection.send(&json!({"impulseRecordAck": false, "index": 999_999_999, "error": "who"}));
    let records = connection.count(&record());
    connection.wait_for_nth(&record(), records + 5);
    daemon.stop();
}

#[test]
fn the_sound_of_an_inference_is_a_wav_file() {
    let hello = hearing(16_000, 16_000, 4000, false);
    let bench = Bench::new(&json!({"hello": hello, "answers": [classified(0.75)], "repeat": "last", "shm": true}));
    let remote = RemoteManagement::start(OnHello::Accept);
    let daemon = bench.run(&remote.url(), MICROPHONE, |_| {});
    let (connection, hello) = remote.hello(0);
    assert_eq!(hello["hello"]["inferenceInfo"]["modelType"], "classification");
    let streamed = streamed(&connection, 0);
    assert_eq!(streamed["rawData"]["type"], "wav");
    let wav = STANDARD
        .decode(streamed["rawData"]["bufferBase64"].as_str().unwrap())
        .unwrap();
    assert_eq!((&wav[..4], &wav[8..12]), (&b"RIFF"[..], &b"WAVE"[..]));
    assert_eq!(wav.len(), 44 + 32_000, "the window");
    daemon.stop();
    let summary = connection.wait_for(&summary());
    assert_eq!(
        summary["inferenceSummary"]["mean"][0],
        json!({"label": "yes", "value": 0.75})
    );
}

#[test]
fn monitoring_alone_takes_no_samples_and_together_with_collect_it_does() {
    let bench = Bench::new(&script(&[boxed(0.5)]));
    let remote = RemoteManagement::start(OnHello::Accept);
    let daemon = bench.run(&remote.url(), CAMERA, |_| {});
    let (connection, _) = remote.hello(0);
    connection.send(
        &json!({"sample": {"label": "x", "length": 100, "path": "/api/training/data", "interval": 1,
                                       "sensor": "Camera (64x48)"}}),
    );
    let refused = connection.wait_for(&json!({"sample": false}));
    assert!(refused["error"].as_str().unwrap().contains("collect"), "{refused}");
    connection.send(&json!({"newModelAvailable": true, "deploymentVersion": 8}));
    let refused = connection.wait_for(&json!({"modelUpdateSuccess": false}));
    assert!(
        refused["error"].as_str().unwrap().contains("ei_local_model_file"),
        "{refused}"
    );
    connection.send(&json!({"newModelAvailable": true, "deploymentVersion": "newest"}));
    let refused = connection.wait_for_nth(&json!({"modelUpdateSuccess": false}), 1);
    assert!(refused["error"].as_str().unwrap().contains("newest"), "{refused}");
    daemon.stop();

    let daemon = bench.run(&remote.url(), CAMERA, |command| {
        command.args(["--set", "collect=yes"]);
    });
    let hello = remote.connections.wait_for("a hello with the camera", LIMIT, |all| {
        let hellos = all
            .iter()
            .skip(1)
            .flat_map(|connection| connection.messages.with(<[_]>::to_vec));
        let mut hellos = hellos.filter(|message| message["hello"]["sensors"][0].is_object());
        hellos.next()
    });
    assert_eq!(hello["hello"]["mode"], "inference");
    assert_eq!(hello["hello"]["sensors"][0]["name"], "Camera (64x48)");
    daemon.stop();
}

#[test]
fn the_option_of_the_runner_monitors_too_and_false_does_not() {
    let bench = Bench::new(&script(&[boxed(0.5)]));
    let remote = RemoteManagement::start(OnHello::Accept);
    let run = |option: &str| {
        let eiparams = format!("eiparams=--greengrass {option}");
        bench.run(&remote.url(), CAMERA, |command| {
            command.args(["--set", "monitor=__none__", "--set", &eiparams]);
        })
    };
    let daemon = run("--monitor=false --monitor-max-storage-size 5");
    bench.observer.wait_for_count("inference/output", 3);
    let log = daemon.stop();
    assert!(
        log.contains("--monitor-max-storage-size") && log.contains("monitoring is off"),
        "{log}"
    );
    assert_eq!(remote.connections.with(<[_]>::len), 0);
    for (number, option) in ["--monitor", "--monitor true", "--monitor=true"]
        .into_iter()
        .enumerate()
    {
        let daemon = run(option);
        let (_, hello) = remote.hello(number);
        assert_eq!(hello["hello"]["mode"], "inference", "{option}");
        daemon.stop();
    }
}

#[test]
fn stored_inferences_are_sent_on_request_and_one_in_an_interval_is_stored() {
    let bench = Bench::new(&script(&[boxed(0.5)]));
    let remote = RemoteManagement::start(OnHello::Accept);
    let daemon = bench.run(&remote.url(), CAMERA, |_| {});
    let (connection, _) = remote.hello(0);
    bench.observer.wait_for_count("inference/output", 75);
    connection.send(&json!({"impulseRecordRequest": {"range": {"first": 1, "last": 75}}}));
    connection.wait_for(&json!({"impulseRecordsResponse": false}));
    let all = connection.messages.with(<[_]>::to_vec);
    let stored: Vec<_> = all
        .iter()
        .filter(|message| message["impulseRecordsResponse"] == true)
        .collect();
    assert!((1..=4).contains(&stored.len()), "about one a second: {}", stored.len());
    assert_eq!(stored[0]["record"]["result"], boxed(0.5));
    assert_eq!(index(stored[0]), 1);
    // The acknowledgement of a stored record does not end the stream.
    streamed(&connection, 0);
    connection.send(&json!({"impulseRecordAck": false, "index": 1, "error": "no"}));
    let records = connection.count(&record());
    connection.wait_for_nth(&record(), records + 5);
    daemon.stop();
    let last = range(&connection.wait_for(&summary())).1;
    assert!(last >= 75, "every inference is counted: {last}");

    let daemon = bench.run(&remote.url(), CAMERA, |_| {});
    let (_, hello) = remote.hello(1);
    let available = &hello["hello"]["availableRecords"];
    assert_eq!(available["firstIndex"], 1, "{available}");
    assert!(available["lastIndex"].as_u64().unwrap() > 1 && available["lastTimestamp"].as_u64().unwrap() > 0);
    daemon.stop();
}

#[test]
fn a_list_of_stored_inferences_is_answered_as_in_exchange_g() {
    let bench = Bench::new(&script(&[boxed(0.5)]));
    let studio = ExchangeStudio::new("G");
    let daemon = bench.run(&studio.remote.url(), CAMERA, |command| {
        command.args(["--set", "monitor_record_interval_ms=10"]);
    });
    let (connection, _) = studio.remote.hello(0);
    // Each index up to 2 is stored before it is asked for.
    streamed(&connection, 5);
    studio.play();
    daemon.stop();
}

#[test]
fn a_flood_of_huge_requests_for_records_disturbs_nothing() {
    let bench = Bench::new(&script(&[boxed(0.5)]));
    let remote = RemoteManagement::start(OnHello::Accept);
    let daemon = bench.run(&remote.url(), CAMERA, |command| {
        command.args(["--set", "monitor_record_interval_ms=10"]);
        command.env("RUST_LOG", "info");
    });
    let (connection, _) = remote.hello(0);
    streamed(&connection, 5);
    let request = |request: Value| connection.send(&json!({ "impulseRecordRequest": request }));
    for _ in 0..500 {
        request(json!({"range": {"first": 1, "last": (1_u64 << 53) - 1}}));
        request(json!({"list": "all"}));
    }
    request(json!({"list": vec![1; 1_000_000]}));
    let refusal = json!({"impulseRecordsResponse": false, "index": 1,
                         "error": "this device has too many requests for records at once"});
    connection.wait_for(&refusal);
    let inferred = bench.observer.all("inference/output").len();
    bench.observer.wait_for_count("inference/output", inferred + 60);
    assert_eq!(remote.connections.with(<[_]>::len), 1, "the connection stays");
    let log = daemon.stop();
    assert!(log.lines().count() < 100, "{} lines", log.lines().count());
}
