//! How long things take as seen from outside: a frame to its message, a command to its answer, a start to its first
//! inference.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::{Client, Event, MqttOptions, NetworkOptions, Packet, QoS};
use serde_json::json;

use super::bare;
use super::percentile;
use super::reach::{Reach, short};
use super::scene::Scene;
use super::support::daemon::Site;
use super::support::events::Events;
use super::support::mosquitto::Mosquitto;
use super::support::observer::Observer;
use super::support::ports::free_port;
use super::viewer::Viewer;
use super::watcher::Served;

/// Messages looked at for latencies: ten seconds' worth.
const MESSAGES: usize = 300;
const COMMANDS: usize = 300;
const STARTS: usize = 9;

/// Prints the table.
pub fn print(broker: &Mosquitto, reach: &mut Reach) {
    println!("\nTimes in ms, seen from outside\n");
    println!("| what | p50 | p95 | p99 | most | machine's limit, p50 / p99 |\n| --- | --- | --- | --- | --- | --- |");
    let loopback = loopback(broker);
    let limit = format!(
        "{} / {} (a message through the broker and back)",
        short(percentile(&loopback, 50)),
        short(percentile(&loopback, 99))
    );
    let (times, skipped) = frame_to_message(broker, &[], false);
    row(
        &format!("frame made to message at an observer, 30/s ({skipped} frames skipped)"),
        &times,
        &limit,
    );
    reach.at_most("frame to message, p50, ms", percentile(&times, 50), 4.0);
    reach.at_most("frame to message, p99, ms", percentile(&times, 99), 10.0);
    let cache = tempfile::tempdir().expect("a directory");
    let directory = format!("cache_file_directory={}", cache.path().display());
    for (what, settings, is_watched) in [
        (
            "the picture in each message",
            &["publish_inference_base64_image=yes"][..],
            false,
        ),
        (
            "each pair in the file cache",
            &["enable_cache_to_file=yes", &directory],
            false,
        ),
        ("somebody looking at the page", &[], true),
    ] {
        let settings: Vec<_> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let (times, skipped) = frame_to_message(broker, &settings, is_watched);
        row(
            &format!("the same with {what} ({skipped} frames skipped)"),
            &times,
            &limit,
        );
    }
    let times = command_to_answer(broker);
    row("command to answer", &times, &limit);
    reach.at_most("command to answer, p50, ms", percentile(&times, 50), 5.0);
    reach.at_most("command to answer, p99, ms", percentile(&times, 99), 20.0);
    let (ours, bare) = start(broker);
    let limit = format!(
        "{} / {} (a process with GStreamer to its first frame)",
        short(percentile(&bare, 50)),
        short(percentile(&bare, 99))
    );
    row("start of the process to first inference, at an observer", &ours, &limit);
    reach.at_most("start to first inference, s", percentile(&ours, 50) / 1e3, 0.15);
}

fn row(what: &str, times: &[f64], limit: &str) {
    let [p50, p95, p99, most] = [50, 95, 99, 100].map(|percent| short(percentile(times, percent)));
    println!("| {what} | {p50} | {p95} | {p99} | {most} | {limit} |");
}

/// Milliseconds from the moment the source pushes a frame until its message is at an observer, and the frames skipped.
///
/// A tee in the line sends a corner of each frame to us before the rest of the line gets it.
fn frame_to_message(broker: &Mosquitto, more: &[&str], is_watched: bool) -> (Vec<f64>, u64) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("its number").port();
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a limit");
    let frames: Arc<Events<Instant>> = Arc::default();
    let sink = frames.clone();
    let listening = std::thread::spawn(move || {
        let mut corner = [0; 2048];
        // Until nothing comes any more.
        while !(socket.recv(&mut corner).is_err() && sink.with(|frames| !frames.is_empty())) {
            sink.push(Instant::now());
        }
    });
    let scene = Scene::USUAL;
    let line = format!(
        "{} ! tee name=frames frames. ! videocrop right=624 bottom=478 ! udpsink host=127.0.0.1 port={port} sync=false async=false \
         frames. ! videoconvert ! jpegenc",
        scene.camera(true)
    );
    let site = Site::new();
    let observer = Observer::connect(broker.port, site.device());
    let mut arguments = scene.arguments(&line);
    arguments.extend(
        ["--set", "iotcore_backoff=1"]
            .iter()
            .chain(more)
            .map(|word| (*word).to_owned()),
    );
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (daemon, _site, viewer) = if is_watched {
        let served = Served::start_at(site, free_port(), &broker.url(), &arguments);
        let viewer = Viewer::of(&served);
        (served.daemon, served.site, Some(viewer))
    } else {
        (site.run(&broker.url(), &arguments), site, None)
    };
    // Only metrics are read here: reading every message again and again would hold up the next one.
    let metrics = observer.wait_for("model/metrics", "the last figures", |metrics| {
        metrics["runner"]["inferences"].as_u64() >= Some(MESSAGES as u64)
    });
    drop(viewer);
    daemon.stop();
    listening.join().expect("the listener ends");
    let skipped = metrics["runner"]["frames_skipped"].as_u64().unwrap_or(0);
    let frames = frames.with(<[Instant]>::to_vec);
    let messages = observer.all("inference/output").into_iter().map(|seen| seen.at);
    let times = messages.enumerate().filter_map(|(number, at)| {
        // With frames skipped, which one a message belongs to is not known: the newest before it.
        let newest = || frames.iter().rev().find(|frame| **frame <= at);
        let frame = if skipped == 0 { frames.get(number) } else { newest() };
        Some(at.saturating_duration_since(*frame?).as_secs_f64() * 1e3)
    });
    (times.collect(), skipped)
}

fn command_to_answer(broker: &Mosquitto) -> Vec<f64> {
    let site = Site::new();
    let observer = Observer::connect(broker.port, site.device());
    let daemon = Scene::USUAL.run(&site, broker, true, &[]);
    observer.wait_for_status("started", 1);
    let times = (0..COMMANDS).map(|_| {
        let begun = Instant::now();
        observer.command(&json!({"cmd": "get_threshold_filter_criteria"}), |answer| {
            !answer["criteria"].is_null()
        });
        begun.elapsed().as_secs_f64() * 1e3
    });
    let times = times.collect();
    daemon.stop();
    times
}

/// A message through the broker and back to who sent it.
fn loopback(broker: &Mosquitto) -> Vec<f64> {
    let mut options = MqttOptions::new(format!("loopback-{}", std::process::id()), "127.0.0.1", broker.port);
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut connection) = Client::new(options, 16);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    connection.eventloop.set_network_options(network);
    client.subscribe("loopback", QoS::AtLeastOnce).expect("a subscription");
    let mut sent = Instant::now();
    let mut times = Vec::new();
    for event in connection.iter() {
        match event.expect("the broker stays") {
            Event::Incoming(Packet::Publish(_)) => times.push(sent.elapsed().as_secs_f64() * 1e3),
            Event::Incoming(Packet::SubAck(_)) => {}
            _ => continue,
        }
        if times.len() == COMMANDS {
            break;
        }
        sent = Instant::now();
        client.publish("loopback", QoS::AtLeastOnce, false, "{}").expect("sent");
    }
    times
}

/// Milliseconds of each start: ours, and the bare one.
fn start(broker: &Mosquitto) -> (Vec<f64>, Vec<f64>) {
    let scene = Scene::USUAL;
    let rounds = (0..STARTS).map(|_| {
        let site = Site::new();
        let observer = Observer::connect(broker.port, site.device());
        let begun = Instant::now();
        let daemon = scene.run(&site, broker, true, &[]);
        observer.wait_for_status("started", 1);
        let ours = begun.elapsed();
        daemon.stop();
        let bare = bare::first_frame(&scene.bare(true));
        (ours.as_secs_f64() * 1e3, bare.as_secs_f64() * 1e3)
    });
    rounds.unzip()
}
