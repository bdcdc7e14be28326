//! An S3 that is away, slow, or somebody else's.

use std::time::Duration;

use crate::s3::pairs::assert_picture_first;
use crate::s3::site::Place;
use crate::support::daemon::{Daemon, LIMIT};
use crate::support::s3::Behaviour;
use crate::support::scripts::{boxed, frames};

const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=30/1";

#[test]
fn when_s3_comes_up_later_everything_arrives_oldest_first() {
    let place = Place::new();
    let daemon = place.run_pairs(6, &[]);
    let line = daemon.wait_for_line("S3 request failed");
    assert!(line.contains("cannot be reached") && line.contains("refused"), "{line}");
    let s3 = place.storage.serve();
    let keys = s3.wait_for_pairs(6);
    assert_picture_first(&keys);
    let ids = place.ids();
    assert!(keys[0].contains(&ids[0]), "{keys:?} does not begin with {}", ids[0]);
    daemon.stop();
    assert!(place.waiting().is_empty());
}

#[test]
fn an_s3_that_cannot_be_reached_shows_in_the_health_until_it_takes_pairs() {
    let place = Place::new();
    let daemon = place.run_pairs(1, &["metrics_sleeptime_ms=200"]);
    let metrics = place.observer.wait_for("model/metrics", "an S3 that fails", |metrics| {
        metrics["runner"]["health"]["cache_s3"] == "failing"
    });
    let problem = metrics["runner"]["problems"][0].as_str().unwrap();
    assert!(
        problem.starts_with("cache_s3: ") && problem.contains("cannot be reached"),
        "{problem}"
    );
    let s3 = place.storage.serve();
    s3.wait_for_pairs(1);
    let seen = place.observer.all("model/metrics").len();
    let metrics = place
        .observer
        .wait_for_nth("model/metrics", "an S3 that works", seen, |metrics| {
            metrics["runner"]["health"]["cache_s3"] == "ok"
        });
    assert_eq!(metrics["runner"]["problems"], serde_json::json!([]));
    daemon.stop();
}

#[test]
fn an_s3_that_asks_to_slow_down_gets_everything_later() {
    let place = Place::new();
    let s3 = place.storage.serve();
    s3.behave(Behaviour::Fault(503, "SlowDown"));
    let daemon = place.run_pairs(6, &[]);
    daemon.wait_for_line("asks to slow down (503");
    s3.behave(Behaviour::Normal);
    assert_picture_first(&s3.wait_for_pairs(6));
    daemon.stop();
}

#[test]
fn an_s3_that_hangs_holds_up_neither_inference_nor_the_end_and_the_next_start_sends() {
    let place = Place::new();
    let s3 = place.storage.serve();
    // The bucket is found; then nothing is answered any more.
    let mut daemon = place.run_pairs(1, &[]);
    s3.wait_for_pairs(1);
    daemon.signal(rustix::process::Signal::TERM);
    daemon.wait_for_end(LIMIT);
    s3.behave(Behaviour::Hang);

    let mut daemon =
        Daemon::start(place.command(&[boxed(0.9)], LIVE, &["iotcore_backoff=1", "metrics_sleeptime_ms=200"]));
    s3.wait_for("a request that hangs", |answered| {
        answered.iter().any(|a| a.status == 0).then_some(())
    });
    place.observer.wait_for_count("inference/output", 60);
    daemon.signal(rustix::process::Signal::TERM);
    let (status, took) = daemon.wait_for_end(LIMIT);
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(4), "{took:?}");
    let published = place.ids().len() - 1;
    let waiting = place.waiting();
    assert_eq!(waiting.len(), published, "the log:\n{}", daemon.log());

    s3.behave(Behaviour::Normal);
    let daemon = place.run_idle();
    let keys = s3.wait_for_pairs(1 + published);
    assert_picture_first(&keys);
    daemon.stop();
    assert!(place.waiting().is_empty());
}

#[test]
fn what_waits_survives_a_sigkill() {
    let place = Place::new();
    let daemon = place.run_pairs(5, &[]);
    daemon.wait_for_line("S3 request failed");
    // Those that came before the first failure are on disk as soon as it was noticed; clear files show that.
    let end = std::time::Instant::now() + LIMIT;
    while place.waiting().len() < 5 {
        assert!(std::time::Instant::now() < end, "{:?}", place.waiting());
        std::thread::sleep(Duration::from_millis(5));
    }
    // Dropping kills.
    drop(daemon);
    let s3 = place.storage.serve();
    let daemon = place.run_idle();
    assert_picture_first(&s3.wait_for_pairs(5));
    daemon.stop();
}

#[test]
fn a_bucket_of_somebody_else_is_named_and_local_work_goes_on() {
    for (head, words) in [
        (403, "s3:ListBucket on arn:aws:s3:::photos"),
        (404, "belongs to another AWS account; bucket names are unique"),
    ] {
        let place = Place::new();
        let s3 = place.storage.serve();
        s3.behave(Behaviour::SomebodyElses { head });
        let local = place.site.path().join("local");
        let directory = format!("cache_file_directory={}", local.display());
        let daemon = place.run_pairs(4, &["enable_cache_to_file=yes", &directory]);
        let line = daemon.wait_for_line("The S3 cache does not work");
        assert!(line.contains(words) && line.contains("retry_in=300s"), "{line}");
        daemon.stop();
        assert_eq!(std::fs::read_dir(&local).unwrap().count(), 8);
        assert_eq!(place.waiting().len(), 4);
    }
}

#[test]
fn a_clock_that_is_off_and_a_host_without_address_are_told_and_the_pairs_wait() {
    let place = Place::new();
    let s3 = place.storage.serve();
    s3.behave(Behaviour::AnotherTime);
    let daemon = place.run_pairs(3, &[]);
    let line = daemon.wait_for_line("The S3 cache does not work");
    assert!(
        line.contains("this machine's clock is") && line.contains("set the clock"),
        "{line}"
    );
    daemon.stop();
    assert_eq!(place.waiting().len(), 3);

    let place = Place::new();
    let mut command = place.command(&[boxed(0.9)], &frames(3), &["iotcore_backoff=1"]);
    command.env("AWS_ENDPOINT_URL_S3", "http://s3.invalid");
    let daemon = Daemon::start(command);
    let line = daemon.wait_for_line("S3 request failed");
    assert!(
        line.contains("S3 cannot be reached") && line.contains("the DNS server"),
        "{line}"
    );
    place.observer.wait_for_count("inference/output", 3);
    daemon.stop();
    assert_eq!(place.waiting().len(), 3);
}
