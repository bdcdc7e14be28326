//! A wall clock that jumps: the device had no battery for it, and NTP came late.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::stage::{CAMERA, Stage};
use crate::support::daemon::Daemon;

const DAY: i64 = 24 * 3600;

/// Goes in front of the C library: what it says about the wall clock is moved by the seconds in a file.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("TEST_CLOCK");
    int file = name ? open(name, O_RDONLY) : -1;
    void *seconds = file < 0 ? MAP_FAILED : mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (seconds != MAP_FAILED) offset = seconds;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && offset && clock == CLOCK_REALTIME) time->tv_sec += *offset;
    return result;
}
"#;

/// The clock of one process.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    fn new(directory: &Path) -> Self {
        let (source, library) = (directory.join("clock.c"), directory.join("clock.so"));
        std::fs::write(&source, SHIM).unwrap();
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status();
        assert!(built.expect("cc").success());
        let clock = Self {
            library,
            file: directory.join("clock"),
        };
        clock.jump_to(0);
        clock
    }

    /// So many seconds away from the true time. In place: the file is mapped.
    fn jump_to(&self, seconds: i64) {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.file)
            .unwrap();
        file.write_all(&seconds.to_ne_bytes()).unwrap();
    }
}

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
    command.env("LD_PRELOAD", &clock.library).env("TEST_CLOCK", &clock.file);
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
