//! All ways to stop the component.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

use super::stage::{CAMERA, Stage, command, lines};
use crate::support::broker::{Acks, Behaviour, Entry, MockBroker, OnConnect};
use crate::support::daemon::{Daemon, LIMIT, Site};
use crate::support::leftovers::{children_of, is_running, model_of, run_directories, scripted_segments, wait_until};
use crate::support::ports::free_port;
use crate::support::scripts::{boxed, script};

/// Greengrass sends SIGKILL 5 s after SIGTERM. A stop takes at most 4 s; the rest is for a busy machine.
const GREENGRASS: Duration = Duration::from_secs(5);

/// Frames go on to the model; the other branch sleeps for half a minute with each frame, and nothing stops it.
const HANGING_CAMERA: &str = "videotestsrc is-live=true ! video/x-raw,format=RGB,width=64,height=48,framerate=30/1 ! tee name=t \
     t. ! queue ! identity sleep-time=30000000 ! fakesink t. ! queue leaky=downstream";

fn lock_file(site: &Site) -> Option<PathBuf> {
    let entries = std::fs::read_dir(site.path()).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("lock_"))
}

#[track_caller]
fn ends_in_order(daemon: &mut Daemon, site: &Site) {
    let (status, took) = daemon.wait_for_end(LIMIT);
    assert_eq!(status.code(), Some(0));
    assert!(took < GREENGRASS, "{took:?}");
    assert_eq!(lock_file(site), None);
    assert_eq!(run_directories(site), Vec::<PathBuf>::new());
}

/// `end` ends the running component; then the notice and the exit code are checked.
fn ends_with_a_notice(end: impl FnOnce(&Stage, &Daemon)) {
    let stage = Stage::new();
    let mut daemon = stage.run("builtin:nop", CAMERA, &["sleep_time_sec=1"]);
    stage.observer.wait_for_count("inference/output", 3);
    assert!(lock_file(&stage.site).is_some());
    end(&stage, &daemon);
    ends_in_order(&mut daemon, &stage.site);
    stage.settle();
    let order = stage.order();
    assert_eq!(order.last().map(String::as_str), Some("stopped"), "{order:?}");
    assert!(!order.contains(&"offline".to_owned()), "no last will: {order:?}");
    let log = daemon.log();
    assert_eq!(lines(&log, "WARN", "model"), Vec::<&str>::new());
    assert_eq!(lines(&log, "ERROR", ""), Vec::<&str>::new());
}

#[test]
fn sigterm_stops_the_component() {
    ends_with_a_notice(|_, daemon| daemon.signal(Signal::TERM));
}

#[test]
fn sigint_stops_the_component() {
    ends_with_a_notice(|_, daemon| daemon.signal(Signal::INT));
}

#[test]
fn sighup_stops_the_component() {
    ends_with_a_notice(|_, daemon| daemon.signal(Signal::HUP));
}

#[test]
fn removing_the_lock_file_stops_the_component() {
    ends_with_a_notice(|stage, _| std::fs::remove_file(lock_file(&stage.site).unwrap()).unwrap());
}

#[test]
fn the_subcommand_stop_stops_the_component_and_waits_for_its_end() {
    ends_with_a_notice(|stage, daemon| {
        let output = stage.site.command("stop").output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stdout).contains("stopped"));
        assert!(!is_running(daemon.pid()), "stop waits until it is gone");
    });
}

#[test]
fn a_signal_to_the_process_group_is_not_reported_as_a_fault_of_the_model() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let stage = Stage::new();
        let scripted = stage.site.scripted_model(&script(&[boxed(0.5)]));
        for model in [PathBuf::from("builtin:nop"), scripted] {
            let mut command = stage.command(&model, &[]);
            command.args(["--gst", CAMERA]).process_group(0);
            let mut daemon = Daemon::start(command);
            daemon.wait_for_line("is loaded");
            let model = model_of(daemon.pid());
            let group = Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap();
            kill_process_group(group, signal).unwrap();
            ends_in_order(&mut daemon, &stage.site);
            assert!(!is_running(model));
            let log = daemon.log();
            for level in ["WARN", "ERROR"] {
                assert_eq!(lines(&log, level, "model"), Vec::<&str>::new());
            }
        }
    }
}

#[test]
fn a_start_right_after_the_removal_of_the_lock_file_waits_for_the_earlier_run() {
    let stage = Stage::new();
    let mut first = stage.run("builtin:nop", CAMERA, &["sleep_time_sec=2"]);
    first.wait_for_line("Capture runs");
    std::fs::remove_file(lock_file(&stage.site).unwrap()).unwrap();
    let second = stage.run("builtin:nop", CAMERA, &["sleep_time_sec=2"]);
    let waiting = "An earlier run for this device";
    second.wait_for_line(waiting);
    let (status, _) = first.wait_for_end(LIMIT);
    assert_eq!(status.code(), Some(0));
    // Each line begins with its time.
    let started = second.wait_for_line("ei-greengrass starts");
    let log = first.log();
    assert!(Some(&*started) > log.lines().last(), "{started} and {log}");
    second.wait_for_line("Capture runs");
    second.stop();
}

#[test]
fn a_pipe_instead_of_the_lock_file_does_not_block() {
    let stage = Stage::new();
    let mut daemon = stage.run("builtin:nop", CAMERA, &[]);
    daemon.wait_for_line("Capture runs");
    let lock = lock_file(&stage.site).unwrap();
    daemon.signal(Signal::TERM);
    ends_in_order(&mut daemon, &stage.site);
    rustix::fs::mkfifoat(rustix::fs::CWD, &lock, rustix::fs::Mode::RWXU).unwrap();
    let output = stage.site.command("stop").output().unwrap();
    assert_ne!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("it is not a regular file"), "{said}");
}

#[test]
fn a_second_instance_ends_with_3_and_names_the_pid() {
    let stage = Stage::new();
    let daemon = stage.run("builtin:nop", CAMERA, &[]);
    daemon.wait_for_line("is loaded");
    let mut second = stage.run("builtin:nop", CAMERA, &[]);
    let (status, _) = second.wait_for_end(LIMIT);
    assert_eq!(status.code(), Some(3));
    assert!(
        second.log().contains(&format!("pid {}", daemon.pid())),
        "{}",
        second.log()
    );
    stage.observer.wait_for_count("inference/output", 3);
    daemon.stop();
}

#[test]
fn stop_succeeds_if_no_component_is_running() {
    let output = Site::new().command("stop").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("not running"));
}

#[test]
fn a_lock_file_of_a_dead_process_is_taken_over() {
    let stage = Stage::new();
    let mut first = stage.run("builtin:nop", CAMERA, &[]);
    first.wait_for_line("is loaded");
    first.signal(Signal::KILL);
    first.wait_for_end(LIMIT);
    let path = lock_file(&stage.site).expect("left behind");
    let daemon = stage.run("builtin:nop", CAMERA, &[]);
    daemon.wait_for_line("is loaded");
    let pid = std::fs::read_to_string(path).unwrap();
    assert_eq!(pid.trim(), daemon.pid().to_string());
    daemon.stop();
}

#[test]
fn stop_kills_a_component_that_does_not_react() {
    let stage = Stage::new();
    let mut daemon = stage.run("builtin:nop", CAMERA, &[]);
    daemon.wait_for_line("is loaded");
    daemon.signal(Signal::STOP);
    let begun = Instant::now();
    let output = stage.site.command("stop").output().unwrap();
    // Greengrass gives a shutdown script 15 s.
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("killed"));
    let (status, _) = daemon.wait_for_end(LIMIT);
    assert_eq!(status.signal(), Some(9));
    assert_eq!(lock_file(&stage.site), None);
}

/// A broker in this process with the runtime that it runs on.
struct Broker {
    runtime: tokio::runtime::Runtime,
    mock: MockBroker,
}

impl Broker {
    fn start(behaviour: Behaviour) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mock = runtime.block_on(MockBroker::start(behaviour));
        Self { runtime, mock }
    }
}

/// One inference, then silence, and signals have no effect.
fn hanging_model(site: &Site) -> PathBuf {
    let mut script = script(&[boxed(0.5), json!({"hang": true})]);
    script["ignore_signals"] = json!(true);
    site.scripted_model(&script)
}

fn ends_in_time_with_everything_hanging(behaviour: Behaviour) {
    let (site, broker) = (Site::new(), Broker::start(behaviour));
    let mut command = command(&site, &broker.mock.url(), hanging_model(&site), &[]);
    command.args(["--gst", HANGING_CAMERA]);
    let mut daemon = Daemon::start(command);
    daemon.wait_for_line("Capture runs");
    let model = model_of(daemon.pid());
    // The camera has got stuck, and the model has taken its second frame, when much more time has passed than three
    // frames take: neither tells anybody.
    std::thread::sleep(Duration::from_millis(500));
    daemon.signal(Signal::TERM);
    ends_in_order(&mut daemon, &site);
    assert!(!is_running(model));
    assert_eq!(scripted_segments(model), Vec::<PathBuf>::new());
    assert!(daemon.log().contains("stuck in its driver"), "the camera did hang");
    drop(broker.runtime);
}

#[test]
fn a_stop_is_in_time_if_model_and_camera_hang_and_the_broker_never_acknowledges() {
    ends_in_time_with_everything_hanging(Behaviour {
        acks: Acks::Stall,
        ..Behaviour::default()
    });
}

#[test]
fn a_stop_is_in_time_if_model_and_camera_hang_and_the_broker_sends_nothing() {
    ends_in_time_with_everything_hanging(Behaviour {
        on_connect: OnConnect::Silent,
        ..Behaviour::default()
    });
}

#[test]
fn a_stop_is_in_time_during_a_restart_that_hangs() {
    let (site, broker) = (Site::new(), Broker::start(Behaviour::default()));
    let mut command = command(&site, &broker.mock.url(), hanging_model(&site), &[]);
    command.args(["--gst", HANGING_CAMERA]);
    let mut daemon = Daemon::start(command);
    daemon.wait_for_line("Capture runs");
    let connected = daemon.wait_for_line("Connected to");
    let (_, client_id) = connected.split_once("client_id=\"").expect("the client id");
    let device = client_id.split('"').next().expect("its end");
    let topic = format!("/edgeimpulse/device/{device}/command/input");
    std::thread::sleep(Duration::from_millis(500));
    let restart = r#"{"cmd":"restart"}"#;
    broker
        .mock
        .publish(&topic, restart, false, false, rumqttc::mqttbytes::QoS::AtLeastOnce);
    daemon.wait_for_line(r#"command={"cmd":"restart"}"#);
    broker.mock.behave(|behaviour| behaviour.acks = Acks::Stall);
    daemon.signal(Signal::TERM);
    ends_in_order(&mut daemon, &site);
    drop(broker.runtime);
}

/// A source that fails repeatedly and hangs at each stop.
const CAMERA_THAT_FAILS_AND_HANGS: &str = "videotestsrc is-live=true ! video/x-raw,format=RGB,width=64,height=48,framerate=30/1 \
     ! tee name=t t. ! queue ! identity sleep-time=60000000 ! fakesink async=false \
     t. ! queue leaky=downstream ! identity error-after=5";

#[test]
fn a_signal_during_the_stop_before_a_reexecution_stops_the_component() {
    let broker = Broker::start(Behaviour {
        acks: Acks::Stall,
        ..Behaviour::default()
    });
    let site = Site::new();
    let model = site.scripted_model(&script(&[boxed(0.5)]));
    let mut command = command(&site, &broker.mock.url(), model, &[]);
    command.args(["--gst", CAMERA_THAT_FAILS_AND_HANGS]);
    let mut daemon = Daemon::start(command);
    daemon.wait_for_line("Too many sources are stuck in their drivers count=3");
    let said_goodbye = |log: &[Entry]| {
        let notices = log.iter().filter_map(Entry::published);
        notices.into_iter().any(|notice| {
            let text = String::from_utf8_lossy(&notice.payload);
            text.contains(r#""status":"stopped""#)
        })
    };
    let goodbye = broker.mock.wait_for("the notice of the end", LIMIT, said_goodbye);
    broker.runtime.block_on(goodbye);
    daemon.signal(Signal::TERM);
    ends_in_order(&mut daemon, &site);
    assert!(!daemon.log().contains("Re-executing"));
    drop(broker.runtime);
}

#[test]
fn the_component_stops_while_the_source_blocks_in_its_start() {
    let stage = Stage::new();
    let pipe = stage.site.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let model = stage.site.scripted_model(&script(&[boxed(0.5)]));
    let source = format!("filesrc location={} ! decodebin", pipe.display());
    let mut daemon = stage.run(model, &source, &[]);
    daemon.wait_for_line("is loaded");
    daemon.signal(Signal::TERM);
    ends_in_order(&mut daemon, &stage.site);
    stage.observer.wait_for_status("stopped", 1);
}

#[test]
fn the_component_stops_while_the_model_is_loading() {
    for delay in ["startup_delay_ms", "hello_delay_ms"] {
        for deaf in [false, true] {
            let stage = Stage::new();
            let mut script = script(&[boxed(0.5)]);
            script[delay] = json!(20_000);
            script["ignore_signals"] = json!(deaf);
            let mut daemon = stage.run(stage.site.scripted_model(&script), CAMERA, &[]);
            daemon.wait_for_line("Connected to");
            let model = model_of(daemon.pid());
            daemon.signal(Signal::TERM);
            ends_in_order(&mut daemon, &stage.site);
            assert!(!is_running(model), "{delay}, deaf: {deaf}");
            assert_eq!(scripted_segments(model), Vec::<PathBuf>::new());
            stage.observer.wait_for_status("stopped", 1);
        }
    }
}

#[test]
fn the_component_stops_right_after_its_start() {
    let stage = Stage::new();
    for milliseconds in [0, 2, 5, 10, 15, 20, 30, 40, 50] {
        let mut daemon = stage.run("builtin:nop", CAMERA, &[]);
        // Not to wait for something: any moment of the start is to be hit.
        std::thread::sleep(Duration::from_millis(milliseconds));
        daemon.signal(Signal::TERM);
        let (status, took) = daemon.wait_for_end(LIMIT);
        assert!(took < GREENGRASS, "{took:?}");
        // A signal that comes before the program can listen ends the process; then it has begun nothing.
        let too_early = status.signal() == Some(15) && !daemon.log().contains("ei-greengrass starts");
        assert!(
            status.code() == Some(0) || too_early,
            "{milliseconds} ms: {status}\n{}",
            daemon.log()
        );
        assert_eq!(lock_file(&stage.site), None, "{milliseconds} ms");
        assert_eq!(run_directories(&stage.site), Vec::<PathBuf>::new());
        assert_eq!(children_of(daemon.pid()), Vec::<u32>::new());
    }
}

#[test]
fn signals_are_handled_before_the_first_log_line() {
    let stage = Stage::new();
    let mut daemon = stage.run("builtin:nop", CAMERA, &[]);
    daemon.wait_for_line("ei-greengrass starts");
    daemon.signal(Signal::TERM);
    ends_in_order(&mut daemon, &stage.site);
    stage.observer.wait_for_status("stopped", 1);
}

#[test]
fn a_second_signal_forces_the_end() {
    let (site, broker) = (Site::new(), Broker::start(Behaviour::default()));
    broker.mock.behave(|behaviour| behaviour.acks = Acks::Stall);
    let mut command = command(&site, &broker.mock.url(), hanging_model(&site), &[]);
    command.args(["--gst", CAMERA]);
    let mut daemon = Daemon::start(command);
    daemon.wait_for_line("Capture runs");
    let model = model_of(daemon.pid());
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("Stopping reason=SIGTERM received");
    // At first a second signal belongs to the same request.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1200) {
        daemon.signal(Signal::INT);
        std::thread::sleep(Duration::from_millis(20));
    }
    let (status, took) = daemon.wait_for_end(LIMIT);
    assert_eq!(status.code(), Some(1));
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert_eq!(lines(&daemon.log(), "ERROR", "messages in memory are lost").len(), 1);
    wait_until("the model has seen its client go", || !is_running(model));
    drop(broker.runtime);
}

/// The broker acknowledges nothing, so the stop takes long. `end` receives the component and its lock file.
fn a_slow_stop_loses_no_message(end: impl FnOnce(&mut Daemon, PathBuf)) {
    let (site, broker) = (Site::new(), Broker::start(Behaviour::default()));
    broker.mock.behave(|behaviour| behaviour.acks = Acks::Stall);
    let sets = ["sleep_time_sec=1", "iotcore_backoff=1"];
    let mut command = command(&site, &broker.mock.url(), "builtin:nop", &sets);
    command.args(["--gst", CAMERA]);
    let mut daemon = Daemon::start(command);
    let inferred = |log: &[Entry]| {
        let published = log.iter().filter_map(Entry::published);
        published
            .into_iter()
            .any(|message| message.topic.ends_with("/inference/output"))
    };
    let inference = broker.mock.wait_for("an inference", LIMIT, inferred);
    broker.runtime.block_on(inference);
    let lock = lock_file(&site).unwrap();
    end(&mut daemon, lock);
    ends_in_order(&mut daemon, &site);
    assert_eq!(lines(&daemon.log(), "", "wait on disk for the next start").len(), 1);
    drop(broker.runtime);
}

#[test]
fn two_signals_at_the_same_time_are_one_request() {
    a_slow_stop_loses_no_message(|daemon, _| {
        daemon.signal(Signal::TERM);
        daemon.wait_for_line("Stopping reason=SIGTERM received");
        daemon.signal(Signal::TERM);
        daemon.signal(Signal::INT);
    });
}

#[test]
fn a_signal_after_the_removal_of_the_lock_file_does_not_force_the_exit() {
    a_slow_stop_loses_no_message(|daemon, lock| {
        std::fs::remove_file(lock).unwrap();
        daemon.wait_for_line("Stopping reason=the lock file was removed");
        daemon.signal(Signal::TERM);
    });
}

#[test]
fn the_component_stops_at_once_without_a_broker() {
    let site = Site::new();
    let broker = format!("mqtt://127.0.0.1:{}", free_port());
    let mut command = command(&site, &broker, "builtin:nop", &[]);
    command.args(["--gst", CAMERA]);
    let mut daemon = Daemon::start(command);
    daemon.wait_for_line("Capture runs");
    daemon.signal(Signal::TERM);
    let (status, took) = daemon.wait_for_end(LIMIT);
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(!lines(&daemon.log(), "WARN", "before the stop").is_empty());
    assert!(lines(&daemon.log(), "ERROR", "").is_empty(), "nothing is lost");
}

#[test]
fn the_component_continues_and_stops_if_its_log_is_not_read() {
    let stage = Stage::new();
    let mut command = stage.command("builtin:crash=3", &[]);
    command
        .args(["--gst", CAMERA, "--verbose"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    stage.observer.wait_for_status("started", 2);
    let pid = Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
    stage.observer.wait_for_status("stopped", 1);
}
