//! `demo`: the whole program without other services.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::daemon::{Daemon, LIMIT, Site};
use crate::support::leftovers::{files_of, run_directories};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;

/// `demo` with its own temporary directory and device, so that the test can check what it leaves behind.
fn demo(site: &Site) -> Command {
    let mut command = site.bare_command();
    let device = format!("device_name={}", site.device());
    command.env("TMPDIR", site.path()).args(["demo", "--set", &device]);
    command
}

#[track_caller]
fn ends_and_leaves_nothing(mut daemon: Daemon, site: &Site) {
    daemon.signal(Signal::INT);
    let (status, took) = daemon.wait_for_end(LIMIT);
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(files_of(site), Vec::<PathBuf>::new());
    assert_eq!(run_directories(site), Vec::<PathBuf>::new());
    assert_eq!(
        std::fs::read_dir(site.path()).unwrap().count(),
        0,
        "no directory either"
    );
}

#[test]
fn the_demo_prints_each_message_with_a_box_and_ends_with_ctrl_c() {
    let site = Site::new();
    let daemon = Daemon::start(demo(&site));
    daemon.wait_for_lines("/inference/output {", 5);
    daemon.wait_for_line("\"status\":\"started\"");
    let log = daemon.log();
    let mut boxes = 0;
    for line in log.lines().filter(|line| line.contains("/inference/output ")) {
        let (topic, payload) = line.split_once(' ').unwrap();
        assert!(topic.starts_with("/edgeimpulse/device/test"), "{topic}");
        let message: Value = serde_json::from_str(payload).expect("JSON");
        assert_eq!(message["box"][0]["label"], "ball");
        assert!((0.5..=1.0).contains(&message["box"][0]["value"].as_f64().unwrap()));
        boxes += 1;
    }
    assert!(boxes >= 5);
    ends_and_leaves_nothing(daemon, &site);
}

#[test]
fn the_demo_publishes_to_a_given_broker() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let mut command = demo(&site);
    command.args(["--mqtt", &broker.url()]);
    let daemon = Daemon::start(command);
    observer.wait_for_status("started", 1);
    let messages = observer.wait_for_count("inference/output", 5);
    assert!(messages.iter().all(|message| message["box"][0]["label"] == "ball"));
    ends_and_leaves_nothing(daemon, &site);
    observer.wait_for_status("stopped", 1);
}

#[test]
fn the_demo_ends_when_its_output_is_closed() {
    let site = Site::new();
    let mut child = demo(&site)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Like `ei-greengrass demo | head`.
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    drop(reader);
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("it goes on and on");
        }
        // A child that was not reaped gives no event when it ends.
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(std::fs::read_dir(site.path()).unwrap().count(), 0);
    assert_eq!(run_directories(&site), Vec::<PathBuf>::new());
    let mut errors = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut errors).unwrap();
    assert_eq!(errors, "");
}
