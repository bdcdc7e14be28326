//! The health of each part in the metrics message, in `watch` and in `check`.

use serde_json::{Value, json};

use super::by_hand::{check, section};
use super::stage::{CAMERA, Stage};
use crate::support::daemon::{Daemon, LIMIT, Site};
use crate::support::ports::free_port;
use crate::support::scripts::{boxed, script};

/// A source that GStreamer can open but that fails at once.
const NO_FILM: &str = "filesrc location=/nowhere/film.mp4 ! decodebin";

#[test]
fn the_metrics_message_and_watch_show_why_there_is_no_picture() {
    let stage = Stage::new();
    let model = stage.site.scripted_model(&script(&[boxed(0.5)]));
    let mut command = stage.site.command("watch");
    command.args(["--mqtt", &stage.broker.url()]);
    let watch = Daemon::start(command);
    watch.wait_for_line("watching");
    let pairs = format!("cache_file_directory={}", stage.site.path().join("pairs").display());
    let daemon = stage.run(model, NO_FILM, &["enable_cache_to_file=yes", &pairs]);
    let runner = stage.wait_for_figures("a source that waits", |runner| {
        runner["health"]["source"] == "waiting" && runner["health"]["mqtt"] == "online"
    });
    assert_eq!(
        runner["health"],
        json!({
            "model": "running", "source": "waiting", "mqtt": "online", "spool": "ok", "cache_file": "ok", "cache_s3": "off", "event_clips": "off",
            "preview": "off",
            "configuration": "ok",
            "local_topics": "off",
            "studio": "off", "work_dir": "ok",
        })
    );
    let problems: Vec<&str> = runner["problems"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        matches!(problems[..], [problem] if problem.starts_with("source: ") && problem.contains("film.mp4")),
        "{problems:?}"
    );
    watch.wait_for_line("problem source: ");
    watch.wait_for_line("source restarts: ");
    daemon.stop();
}

#[test]
fn a_healthy_daemon_has_no_problems() {
    let stage = Stage::new();
    let model = stage.site.scripted_model(&script(&[boxed(0.5)]));
    let daemon = stage.run(model, CAMERA, &[]);
    let runner = stage.wait_for_figures("everything running", |runner| {
        runner["health"]["source"] == "running" && runner["health"]["mqtt"] == "online"
    });
    assert_eq!(runner["problems"], json!([]));
    daemon.stop();
}

#[test]
fn a_failing_file_cache_is_shown_in_the_health() {
    let stage = Stage::new();
    // A file in place of the cache's directory.
    let in_the_way = stage.site.write("taken", "");
    let directory = format!("cache_file_directory={}", in_the_way.display());
    let model = stage.site.scripted_model(&script(&[boxed(0.5)]));
    let daemon = stage.run(model, CAMERA, &["enable_cache_to_file=yes", &directory]);
    let runner = stage.wait_for_figures("a cache that fails", |runner| {
        runner["health"]["cache_file"] == "failing"
    });
    assert!(
        runner["problems"][0].as_str().unwrap().starts_with("cache_file: "),
        "{runner}"
    );
    daemon.stop();
}

#[test]
fn a_live_page_whose_port_is_in_use_is_shown_in_the_health() {
    let stage = Stage::new();
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let daemon = stage.run("builtin:nop", CAMERA, &["preview=on", &format!("preview_port={port}")]);
    let runner = stage.wait_for_figures("a page that fails", |runner| runner["health"]["preview"] == "failing");
    let problem = runner["problems"].to_string();
    assert!(
        problem.contains(&format!(":{port}")) && problem.contains("Set preview_port"),
        "{problem}"
    );
    daemon.stop();
}

/// The section `Running` of `check`, with these settings of the live page.
fn running(site: &Site, page: &str, port: &str) -> Vec<String> {
    section(&check(site, &["--set", page, "--set", port]).out, "Running")
}

#[test]
fn check_prints_the_health_of_each_part_of_the_running_daemon() {
    let site = Site::new();
    let port = format!("preview_port={}", free_port());
    assert_eq!(running(&site, "preview=on", &port), ["none runs for this device"]);

    let model = site.scripted_model(&script(&[boxed(0.5)]));
    let sets = [
        "--set",
        "preview=on",
        "--set",
        &port,
        "--gst",
        NO_FILM,
        "--model",
        model.to_str().unwrap(),
    ];
    let mut daemon = site.run("mqtt://127.0.0.1:9", &sets);
    daemon.wait_for_line("Listening server=\"live page\"");
    daemon.wait_for_line("The source failed and restarts");
    daemon.wait_for_line("is loaded");
    let lines = running(&site, "preview=on", &port);
    assert_eq!(lines[0], format!("pid {}", daemon.pid()));
    let has = |line: &str| lines.iter().any(|l| l.starts_with(line));
    assert!(
        has("source: waiting: ") && has("preview: on") && has("cache_s3: off"),
        "{lines:?}"
    );
    assert!(lines.iter().any(|l| l.contains("film.mp4")), "{lines:?}");

    let off = running(&site, "preview=off", &port);
    assert!(
        matches!(&off[..], [line] if line.starts_with(&lines[0]) && line.contains("is off (preview)")),
        "{off:?}"
    );
    let nobody = running(&site, "preview=on", &format!("preview_port={}", free_port()));
    assert!(
        matches!(&nobody[..], [line] if line.starts_with(&lines[0]) && line.contains("cannot be asked")),
        "{nobody:?}"
    );
    daemon.signal(rustix::process::Signal::TERM);
    daemon.wait_for_end(LIMIT);
    assert_eq!(running(&site, "preview=on", &port), ["none runs for this device"]);
}
