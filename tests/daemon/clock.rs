//! A wall clock that jumps: the device had no battery for it, and NTP came late.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::stage::{CAMERA, Stage};
use crate::support::clock::Clock;
use crate::support::daemon::Daemon;

const DAY: i64 = 24 * 3600;

/// How far the time in a message is from the true time, in whole days.
fn days_off(message: &Value) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    (message["ts"].as_i64().unwrap() - now + DAY * 500).div_euclid(DAY * 1000)
}

#[test]
fn a_clock_that_jumps_changes_the_time_in_messages_and_nothing_else() {
    let stage = Stage::new();
    let clock = Clock::new(stage.site.path());
    let mut command = stage.command("builtin:nop", &[]);
    command.args(["--gst", CAMERA]);
    command.envs(clock.variables());
    let daemon = Daemon::start(command);
    stage.observer.wait_for_status("started", 1);
    for days in [400, -400, 0] {
        clock.jump_to(days * DAY);
        // More than the time limits of the model and the source would need to see a jump as a hang.
        stage
            .observer
            .wait_for("inference/output", "the time after the jump", |message| {
                days_off(message) == days
            });
        stage
            .observer
            .wait_for("model/metrics", "the time after the jump", |message| {
                days_off(message) == days
            });
        stage
            .observer
            .command(&json!({"cmd": "get_threshold_filter_criteria"}), |answer| {
                !answer["criteria"].is_null()
            });
        let seen = stage.observer.all("inference/output").len();
        stage.observer.wait_for_count("inference/output", seen + 20);
    }
    let metrics = stage.observer.all("model/metrics");
    let runner = metrics.last().unwrap().json()["runner"].clone();
    for (figure, expected) in [
        ("capture_restarts", 0),
        ("model_restarts", 0),
        ("mqtt_connects", 1),
        ("outbox_dropped", 0),
    ] {
        assert_eq!(runner[figure], expected, "{figure}: {runner}");
    }
    assert!(runner["uptime_s"].as_u64() < Some(60), "{runner}");
    daemon.stop();
    let totals: Vec<_> = stage.observer.wait_for_count("inference/output", 60);
    let totals: Vec<_> = totals
        .iter()
        .filter_map(|message| message["total_inferences"].as_u64())
        .collect();
    assert_eq!(totals, (1..=totals.len() as u64).collect::<Vec<_>>());
}
