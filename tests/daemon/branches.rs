//! Launch lines with a second branch.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::daemon::{LIMIT, Site};
use crate::support::mosquitto::Mosquitto;

/// Waits until the file has more than `more_than` bytes. Returns its size.
#[track_caller]
fn wait_for_size(file: &Path, more_than: u64) -> u64 {
    let begun = Instant::now();
    loop {
        let size = std::fs::metadata(file).map_or(0, |meta| meta.len());
        if size > more_than {
            return size;
        }
        assert!(begun.elapsed() < LIMIT, "{} stays at {size} bytes", file.display());
        // Not every file system reports when a file grows.
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_second_branch_keeps_running_while_the_model_is_started_again() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let recording = site.path().join("recording");
    let line = format!(
        "videotestsrc is-live=true ! video/x-raw,format=GRAY8,width=64,height=48,framerate=30/1 ! tee name=t \
         t. ! queue ! filesink buffer-mode=unbuffered location={} t. ! queue ! videoconvert",
        recording.display()
    );
    let daemon = site.run(&broker.url(), &["--model", "builtin:crash=3", "--gst", &line]);
    daemon.wait_for_line("The model failed and restarts");
    let before = wait_for_size(&recording, 0);
    // Half a second of frames. The model is away for at least one second.
    let during = wait_for_size(&recording, before + 15 * 64 * 48);
    daemon.wait_for_lines("is loaded", 2);
    wait_for_size(&recording, during + 64 * 48);
    let log = daemon.stop();
    assert_eq!(
        log.matches("Capture started").count(),
        1,
        "the pipeline was never stopped:\n{log}"
    );
}

#[test]
fn a_failing_source_stops_its_other_branches_and_the_log_shows_it() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let line = "videotestsrc is-live=true ! identity error-after=20 ! tee name=t t. ! queue ! fakesink t. ! queue ! videoconvert";
    let daemon = site.run(&broker.url(), &["--model", "builtin:ball", "--gst", line]);
    daemon.wait_for_line("The other branches of the pipeline restart together with the source");
    daemon.wait_for_lines("Capture started", 2);
    daemon.stop();
}
