//! The spool with an unreliable broker and with killed processes.

use crate::support;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ei_greengrass::config::Qos;
use ei_greengrass::device::Topics;
use ei_greengrass::status::stats::Stats;
use ei_greengrass::uplink::outbox::OutboxBounds;
use ei_greengrass::uplink::{
    self, ConnectionTimes, Message, Outbox, RateLimits, Settings, Spool, SpoolPolicy, SpoolSettings, Uplink,
};
use ei_greengrass::util::backoff::BackoffPolicy;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::broker::{Behaviour, MockBroker};
use support::daemon::{Daemon, LIMIT, Site};
use support::inferences::{inferences, on_disk};
use support::leftovers::{is_running, model_of, wait_until};
use support::ports::free_port;
use support::scripts::{boxed, cycle, frames};
use support::small_disk::SmallDisk;

/// The spool file, if it exists.
fn spool_file(site: &Site) -> Option<PathBuf> {
    spool_file_in(site.path())
}

fn spool_file_in(work_dir: &Path) -> Option<PathBuf> {
    let directories = fs::read_dir(work_dir).expect("a directory").flatten();
    directories
        .map(|entry| entry.path().join("spool.redb"))
        .find(|path| path.exists())
}

/// Runs the daemon on a source with one box in each frame, all of them published.
fn daemon(site: &Site, broker: &str, source: &str, more: &[&str]) -> Daemon {
    daemon_with(site, broker, &cycle(&[boxed(0.9)]), source, more)
}

fn daemon_with(site: &Site, broker: &str, script: &Value, source: &str, more: &[&str]) -> Daemon {
    let model = site.scripted_model(script);
    let mut arguments = vec![
        "--unthrottled",
        "--model",
        model.to_str().expect("a path"),
        "--gst",
        source,
    ];
    for set in [
        "ei_shutdown_behavior=wait_for_restart",
        "iotcore_backoff=1",
        "metrics_sleeptime_ms=200",
    ]
    .iter()
    .chain(more)
    {
        arguments.extend(["--set", set]);
    }
    site.run(broker, &arguments)
}

fn unreachable_broker() -> String {
    format!("mqtt://127.0.0.1:{}", free_port())
}

fn totals(payloads: &[String]) -> Vec<u64> {
    let total = |payload: &String| parse_json(payload)["total_inferences"].as_u64().expect("a total");
    payloads.iter().map(total).collect()
}

fn parse_json(payload: &str) -> Value {
    serde_json::from_str(payload).expect("JSON")
}

async fn wait_for_inferences(broker: &MockBroker, count: usize) {
    // Only new entries are looked at, because the log grows with each message.
    let (mut seen, mut looked_at) = (HashSet::new(), 0);
    broker
        .wait_for(&format!("{count} inferences"), LIMIT, |log| {
            seen.extend(inferences(&log[looked_at..]));
            looked_at = log.len();
            seen.len() >= count
        })
        .await;
}

const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=60/1";

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_while_offline_loses_at_most_the_last_commit() {
    let site = Site::new();
    let mut random = StdRng::seed_from_u64(7);
    let mut committed: Vec<String> = Vec::new();
    for run in 0..4 {
        let begun = SystemTime::now();
        let offline = daemon(&site, &unreachable_broker(), LIVE, &[]);
        wait_until("messages are written after the grace period", || {
            let written = spool_file(&site).and_then(|path| path.metadata().and_then(|meta| meta.modified()).ok());
            written.is_some_and(|at| at > begun + Duration::from_secs(2))
        });
        // The kill comes at a random time within several commits.
        std::thread::sleep(Duration::from_millis(random.random_range(300..1_200)));
        let killed = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a time")
            .as_millis() as u64;
        offline.signal(Signal::KILL);
        drop(offline);
        let now = on_disk(&spool_file(&site).expect("a spool"));
        assert_eq!(
            now[..committed.len()],
            committed[..],
            "run {run}: earlier messages are still there"
        );
        let fresh = &now[committed.len()..];
        assert_eq!(totals(fresh), (1..=fresh.len() as u64).collect::<Vec<_>>(), "run {run}");
        let last = fresh
            .last()
            .map(|payload| parse_json(payload)["ts"].as_u64().expect("a time"));
        assert!(
            last.is_some_and(|last| killed - last < 1_500),
            "run {run}: killed at {killed}, last committed {last:?}"
        );
        committed = now;
    }
    let broker = MockBroker::start(Behaviour::default()).await;
    let online = daemon(&site, &broker.url(), &frames(50), &[]);
    wait_for_inferences(&broker, committed.len() + 50).await;
    let seen = inferences(&broker.log());
    assert_eq!(seen[..committed.len()], committed[..]);
    assert_eq!(totals(&seen[committed.len()..]), (1..=50).collect::<Vec<_>>());
    wait_until("the empty spool is removed", || spool_file(&site).is_none());
    online.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_offline_loses_no_message() {
    let site = Site::new();
    let offline = daemon(&site, &unreachable_broker(), LIVE, &[]);
    wait_until("the spool file is created", || spool_file(&site).is_some());
    let log = offline.stop();
    assert!(log.contains("wait on disk for the next start"), "{log}");
    assert!(!log.contains("are lost"), "{log}");
    let kept = on_disk(&spool_file(&site).expect("a spool"));
    assert_eq!(totals(&kept), (1..=kept.len() as u64).collect::<Vec<_>>());
    let broker = MockBroker::start(Behaviour::default()).await;
    let online = daemon(&site, &broker.url(), &frames(50), &[]);
    wait_for_inferences(&broker, kept.len() + 50).await;
    assert_eq!(inferences(&broker.log())[..kept.len()], kept[..]);
    online.stop();
    assert_eq!(spool_file(&site), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_of_one_mebibyte_keeps_the_newest_messages_in_order() {
    let site = Site::new();
    let count = 6_000;
    let offline = daemon(&site, &unreachable_broker(), &frames(count), &["spool_max_mb=1"]);
    offline.wait_for_line("The source ended");
    let log = offline.stop();
    assert!(
        log.contains("ERROR") && log.contains("The spool on disk is full"),
        "{log}"
    );
    let kept = on_disk(&spool_file(&site).expect("a spool"));
    let bytes: usize = kept.iter().map(String::len).sum();
    assert!((900 << 10..=1 << 20).contains(&bytes), "{bytes} bytes");
    let last = totals(&kept).pop().expect("some are kept");
    assert!(
        last + 1 >= u64::from(count),
        "the last frame may not be finished at the stop"
    );
    assert_eq!(totals(&kept), (last + 1 - kept.len() as u64..=last).collect::<Vec<_>>());
    let broker = MockBroker::start(Behaviour::default()).await;
    let online = daemon(&site, &broker.url(), &frames(1), &["spool_max_mb=1"]);
    wait_for_inferences(&broker, kept.len() + 1).await;
    assert_eq!(inferences(&broker.log())[..kept.len()], kept[..]);
    online.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_spool_is_logged_once_and_all_messages_are_delivered() {
    const COUNT: u32 = 3_000;
    let site = Site::new();
    let Some(disk) = SmallDisk::mount(&site.path().join("disk"), "512k") else {
        eprintln!("SKIPPED: a_full_disk_under_the_spool needs the right to mount a tmpfs");
        return;
    };
    let mut broker = MockBroker::start(Behaviour::default()).await;
    broker.down().await;
    let work_dir = format!("work_dir={}", disk.path().display());
    let daemon = daemon(&site, &broker.url(), &frames(COUNT), &[&work_dir]);
    let line = daemon.wait_for_line("No space left on device");
    for part in ["ERROR", "The spool ", "wait in memory", "retry_in=5s", "free space"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    daemon.wait_for_line("The source ended");
    broker.up().await;
    wait_for_inferences(&broker, COUNT as usize).await;
    let log = daemon.stop();
    assert_eq!(
        totals(&inferences(&broker.log())),
        (1..=u64::from(COUNT)).collect::<Vec<_>>()
    );
    let lines = log.lines().filter(|line| line.contains("No space left on device"));
    assert_eq!(lines.count(), 1, "{log}");
    assert!(!log.contains(" are lost"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_on_a_full_disk_are_sent_before_those_in_memory() {
    const BOXES: usize = 40;
    let site = Site::new();
    let Some(disk) = SmallDisk::mount(&site.path().join("disk"), "512k") else {
        eprintln!("SKIPPED: messages_on_a_full_disk_are_sent_before_those_in_memory needs the right to mount a tmpfs");
        return;
    };
    let mut broker = MockBroker::start(Behaviour::default()).await;
    broker.down().await;
    let work_dir = format!("work_dir={}", disk.path().display());
    // A message of some kilobytes: the disk is full after a few commits.
    let found = json!({"label": "thing", "value": 0.9, "x": 1, "y": 2, "width": 3, "height": 4});
    let script = cycle(&[json!({"bounding_boxes": vec![found; BOXES]})]);
    let daemon = daemon_with(&site, &broker.url(), &script, LIVE, &[&work_dir]);
    daemon.wait_for_line("No space left on device");
    let kept = on_disk(&spool_file_in(disk.path()).expect("a spool")).len();
    assert!(kept > 0, "{}", daemon.log());
    broker.up().await;
    wait_for_inferences(&broker, 2 * kept + 100).await;
    daemon.stop();
    let seen = totals(&inferences(&broker.log()));
    let expected = (1..=seen.len()).map(|number| (number * BOXES) as u64);
    assert_eq!(seen, expected.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_written_to_disk_while_connected() {
    let site = Site::new();
    let broker = MockBroker::start(Behaviour::default()).await;
    let daemon = daemon(&site, &broker.url(), LIVE, &[]);
    for count in [50, 150, 250] {
        wait_for_inferences(&broker, count).await;
        assert_eq!(spool_file(&site), None);
    }
    let log = broker.log();
    let metrics = log.iter().rev().filter_map(|entry| entry.published());
    let metrics: Vec<_> = metrics
        .filter(|publish| publish.topic.ends_with("model/metrics"))
        .collect();
    let runner = &parse_json(&String::from_utf8_lossy(&metrics[0].payload))["runner"];
    assert_eq!(runner["spooled"], 0);
    assert!(
        runner["waiting"].as_u64().is_some_and(|waiting| waiting < 20),
        "{runner}"
    );
    daemon.stop();
    assert_eq!(spool_file(&site), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_while_connected_loses_at_most_the_in_flight_window() {
    const WINDOW: usize = 16;
    let (site, mut random) = (Site::new(), StdRng::seed_from_u64(11));
    for run in 0..5 {
        let broker = MockBroker::start(Behaviour::default()).await;
        let requests = site.path().join(format!("requests-{run}"));
        let mut script = cycle(&[boxed(0.9)]);
        script["record"] = requests.display().to_string().into();
        let daemon = daemon_with(&site, &broker.url(), &script, LIVE, &[]);
        wait_for_inferences(&broker, random.random_range(20..120)).await;
        let model = model_of(daemon.pid());
        daemon.signal(Signal::KILL);
        drop(daemon);
        wait_until("the model ends", || !is_running(model));
        let recorded = fs::read_to_string(&requests).expect("requests");
        let inferred = recorded.lines().filter(|line| line.contains("classify")).count();
        wait_for_inferences(&broker, inferred.saturating_sub(WINDOW)).await;
        let received = totals(&inferences(&broker.log()));
        assert_eq!(received, (1..=received.len() as u64).collect::<Vec<_>>(), "run {run}");
        assert_eq!(spool_file(&site), None, "run {run}");
        println!("run {run}: {inferred} inferences, {} received", received.len());
    }
    // Removes what the killed processes have left in memory.
    let last = daemon(&site, &unreachable_broker(), &frames(1), &[]);
    last.wait_for_line("The source ended");
    last.stop();
}

/// An uplink with its spool and short delays.
struct UplinkFixture {
    topics: Topics,
    outbox: Arc<Outbox>,
    stats: Arc<Stats>,
    _uplink: Uplink,
    _spool: Spool,
}

impl UplinkFixture {
    fn new(url: &str, directory: &Path, grace: Duration) -> Self {
        let stats = Arc::new(Stats::default());
        let outbox = Arc::new(Outbox::new(OutboxBounds::default(), Arc::clone(&stats)));
        let spool = SpoolSettings {
            path: directory.join("device/spool.redb"),
            max_bytes: 64 << 20,
            policy: SpoolPolicy {
                grace,
                ..SpoolPolicy::default()
            },
        };
        let spool = Spool::start(spool, Arc::clone(&outbox)).expect("a thread");
        let settings = Settings {
            address: url.parse().expect("an address"),
            client_id: "cam".into(),
            topics: Topics::new("cam"),
            qos: Qos::AtLeastOnce,
            refusal_answer: ei_greengrass::commands::refusal_answer,
            ca: None,
            rate_limits: RateLimits::UNLIMITED,
            limits: ConnectionTimes {
                backoff: BackoffPolicy {
                    min: Duration::from_millis(5),
                    max: Duration::from_millis(40),
                    ..BackoffPolicy::default()
                },
                ..ConnectionTimes::default()
            },
        };
        let topics = settings.topics.clone();
        let (uplink, _) = uplink::start(settings, Arc::clone(&outbox), Arc::clone(&stats));
        Self {
            topics,
            outbox,
            stats,
            _uplink: uplink,
            _spool: spool,
        }
    }

    fn push(&self, payload: String) {
        self.outbox
            .push(Message::inference(&self.topics, payload, Qos::AtLeastOnce));
    }

    async fn wait_until_drained(&self) {
        let begun = Instant::now();
        while self.outbox.waiting() > 0 {
            assert!(begun.elapsed() < LIMIT, "{} messages are left", self.outbox.waiting());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_fifty_outages_receives_all_messages_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut broker = MockBroker::start(Behaviour::default()).await;
    let uplink = Arc::new(UplinkFixture::new(
        &broker.url(),
        directory.path(),
        Duration::from_millis(20),
    ));
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let pushing = tokio::spawn({
        let uplink = Arc::clone(&uplink);
        async move {
            let mut pushed = 0_u32;
            while stopped.try_recv().is_err() {
                uplink.push(pushed.to_string());
                pushed += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            pushed
        }
    });
    let mut random = StdRng::seed_from_u64(50);
    for outage in 1..=50 {
        tokio::time::sleep(Duration::from_millis(random.random_range(1..80))).await;
        broker.down().await;
        tokio::time::sleep(Duration::from_millis(random.random_range(1..120))).await;
        // Each tenth outage lasts until messages are on disk. The others may be shorter than the grace period.
        if outage % 10 == 0 {
            let before = uplink.stats.spooled.get();
            wait_until("something is written", || uplink.stats.spooled.get() > before + 10);
        }
        broker.up().await;
    }
    stop.send(()).expect("still pushing");
    let pushed = pushing.await.expect("the number pushed");
    uplink.wait_until_drained().await;
    let expected: Vec<_> = (0..pushed).map(|number| number.to_string()).collect();
    assert_eq!(inferences(&broker.log()), expected);
    let sent = broker.published(&uplink.topics.inference_output).len();
    println!(
        "offered {pushed}, delivered {}, sent again {}, spooled {}, lost 0",
        expected.len(),
        sent - expected.len(),
        uplink.stats.spooled.get()
    );
    assert!(uplink.stats.spooled.get() > 50, "{}", uplink.stats.spooled.get());
    assert_eq!(
        (uplink.stats.outbox_dropped.get(), uplink.stats.spool_dropped.get()),
        (0, 0)
    );
}

/// CPU time that this process has used.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("statistics");
    let fields: Vec<_> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|i| fields[*i].parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 10)
}

/// `cargo test --release --test integration figures -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures; to be run by hand on a release build"]
async fn figures_of_the_spool() {
    const COUNT: u32 = 20_000;
    let directory = tempfile::tempdir().expect("a directory");
    let mut broker = MockBroker::start(Behaviour::default()).await;
    broker.down().await;
    let uplink = UplinkFixture::new(&broker.url(), directory.path(), Duration::ZERO);
    let (begun, used) = (Instant::now(), cpu_time());
    for number in 0..COUNT {
        uplink.push(format!("{number:0300}"));
        while uplink.outbox.bytes() > 2 << 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    while uplink.outbox.undelivered().in_memory > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let rate = |begun: Instant| f64::from(COUNT) / begun.elapsed().as_secs_f64();
    println!(
        "spooled: {:.0} messages/s, {:?} CPU in all",
        rate(begun),
        cpu_time() - used
    );
    let file = directory.path().join("device/spool.redb");
    println!(
        "file: {} bytes for {COUNT} payloads of 300",
        file.metadata().expect("a file").len()
    );
    let (begun, used) = (Instant::now(), cpu_time());
    broker.up().await;
    uplink.wait_until_drained().await;
    println!(
        "replayed: {:.0} messages/s, {:?} CPU in all, the broker of the test included",
        rate(begun),
        cpu_time() - used
    );
    let (begun, used) = (Instant::now(), cpu_time());
    for second in 0..50 {
        for number in 0..6 {
            uplink.push(format!("live {second} {number}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!(
        "live, 60 messages/s: {:.2} % of a core",
        (cpu_time() - used).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0
    );
}
