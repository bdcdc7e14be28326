//! A recording of the spool: three runs of the real program without a broker, the second of which gets one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::promises::{Promises, Sample};
use super::recorder::Recorder;
use super::trace::Trace;
use super::tree::Tree;
use crate::support::broker::{Behaviour, MockBroker};
use crate::support::daemon::{Daemon, LIMIT, Site};
use crate::support::inferences::{inferences, on_disk};
use crate::support::ports::free_port;
use crate::support::scripts::{boxed, cycle, frames};

const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,format=RGB,width=64,height=48,framerate=60/1";

/// What was recorded.
pub struct Outage {
    /// The recorded directory.
    pub root: PathBuf,
    pub site: Site,
    pub trace: Trace,
    /// Files that are written once, as they are in the end.
    pub small_files: Tree,
    pub promises: Promises,
    /// All messages that were written to disk, in the order of publication.
    pub messages: Vec<String>,
}

/// A run against `broker`, with its work directory apart from the other files of the test, and everything on that uses the disk.
pub fn command(site: &Site, work_dir: &Path, model: &Path, broker: &str, source: &str) -> Command {
    let mut command = site.command("run");
    command
        .args(["--mqtt", broker, "--unthrottled", "--gst", source, "--model"])
        .arg(model);
    for set in [
        format!("work_dir={}", work_dir.display()),
        format!("cache_file_directory={}", work_dir.join("files").display()),
        "enable_cache_to_file=yes".to_owned(),
        "cache_file_max_mb=1".to_owned(),
        "iotcore_backoff=1".to_owned(),
        "ei_shutdown_behavior=wait_for_restart".to_owned(),
        "metrics_sleeptime_ms=200".to_owned(),
    ] {
        command.args(["--set", &set]);
    }
    command
}

/// The recorded program and what its broker has.
struct Observed {
    site: Site,
    broker: MockBroker,
    recorder: Recorder,
    promises: Promises,
    model: PathBuf,
    client: reqwest::Client,
    /// Messages of earlier runs, in the order of publication.
    earlier: usize,
}

impl Observed {
    async fn new() -> Self {
        let site = Site::new();
        let work_dir = site.path().join("work");
        std::fs::create_dir(&work_dir).expect("a directory");
        let mut broker = MockBroker::start(Behaviour::default()).await;
        broker.down().await;
        Self {
            recorder: Recorder::new(&work_dir, site.path().join("trace")),
            promises: Promises::default(),
            model: site.scripted_model(&cycle(&[boxed(0.9)])),
            client: reqwest::Client::builder().no_proxy().build().expect("a client"),
            earlier: 0,
            site,
            broker,
        }
    }

    /// Starts a recorded run, which writes to disk after a while, and waits until it has reported `messages` as written.
    async fn run_offline(&mut self, messages: usize) -> (Daemon, String) {
        let port = free_port();
        let mut command = command(&self.site, self.recorder.root(), &self.model, &self.broker.url(), LIVE);
        command.args(["--set", "preview=on", "--set", &format!("preview_port={port}")]);
        self.recorder.watch(&mut command);
        let daemon = Daemon::start(command);
        let page = format!("http://127.0.0.1:{port}/api/status");
        let begun = Instant::now();
        while self
            .look(&page)
            .await
            .is_none_or(|written| written < self.earlier + messages)
        {
            assert!(
                begun.elapsed() < LIMIT,
                "timed out: {messages} messages are written\n{}",
                daemon.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (daemon, page)
    }

    /// Looks at what the program reports, at the length of the trace, and at what the broker has, in this order.
    async fn look(&mut self, page: &str) -> Option<usize> {
        let status = self.client.get(page).send().await.ok()?.text().await.ok()?;
        let status: Value = serde_json::from_str(&status).ok()?;
        let written = self.earlier + status["counters"]["spooled"].as_u64()? as usize;
        self.add_sample(written);
        Some(written)
    }

    fn add_sample(&mut self, written: usize) {
        let position = self.recorder.position();
        self.promises.add(Sample {
            written,
            position,
            delivered: inferences(&self.broker.log()).len(),
        });
    }

    /// Lets the broker have everything, and waits until the file with the messages is removed.
    async fn deliver(&mut self, written: usize) {
        self.broker.up().await;
        let spool = spool_file(self.recorder.root());
        let begun = Instant::now();
        while spool.exists() || inferences(&self.broker.log()).len() < written {
            assert!(begun.elapsed() < LIMIT, "timed out: everything is delivered");
            self.add_sample(written);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.add_sample(written);
    }

    /// Ends a run in order. Afterwards every message of it is at the broker or on the disk.
    fn stop(&mut self, daemon: Daemon) {
        let log = daemon.stop();
        let line = log
            .lines()
            .find(|line| line.contains("wait on disk for the next start"));
        let waiting = line.map_or(0, |line| field(line, "messages"));
        self.earlier = inferences(&self.broker.log()).len() + waiting;
        self.add_sample(self.earlier);
    }
}

/// Records three runs: one that is killed while it has no broker; one that continues, gets its broker and ends; and one that ends
/// without a broker.
pub async fn record() -> Outage {
    let mut observed = Observed::new().await;
    let (killed, _) = observed.run_offline(40).await;
    observed.recorder.kill(killed);
    // What the killed process has not reported as written may be on disk too.
    observed.earlier = on_disk(&spool_file(observed.recorder.root())).len();
    let (second, page) = observed.run_offline(30).await;
    let written = observed.look(&page).await.expect("a status");
    observed.deliver(written).await;
    observed.stop(second);
    observed.broker.down().await;
    let (third, _) = observed.run_offline(20).await;
    observed.stop(third);
    observed.finish().await
}

impl Observed {
    /// Delivers what is left, from a copy of the directory, so that all messages are known.
    async fn finish(mut self) -> Outage {
        let trace = Trace::read(self.recorder.trace(), self.recorder.root());
        let copy = self.site.path().join("copy");
        std::fs::create_dir(&copy).expect("a directory");
        let end = Tree::read(self.recorder.root());
        end.write(&copy);
        let is_small = |path: &String| path.ends_with("/preview_token") || path.ends_with("/identity");
        let small_files = Tree(end.0.into_iter().filter(|(path, _)| is_small(path)).collect());
        assert_eq!(small_files.0.len(), 2, "{}", small_files.summary());
        self.broker.up().await;
        let all = self.earlier;
        let last = Daemon::start(command(&self.site, &copy, &self.model, &self.broker.url(), &frames(1)));
        let begun = Instant::now();
        while inferences(&self.broker.log()).len() <= all {
            assert!(
                begun.elapsed() < LIMIT,
                "timed out: the rest is delivered\n{}",
                last.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        last.stop();
        let mut messages = inferences(&self.broker.log());
        messages.truncate(all);
        Outage {
            root: self.recorder.root().to_owned(),
            site: self.site,
            trace,
            small_files,
            promises: self.promises,
            messages,
        }
    }
}

/// The spool of the only device in a work directory; a file that does not exist before there is one.
pub fn spool_file(work_dir: &Path) -> PathBuf {
    let entries = std::fs::read_dir(work_dir).expect("a directory").flatten();
    let device = entries
        .map(|entry| entry.path())
        .find(|path| path.join("preview_token").exists());
    device.unwrap_or_default().join("spool.redb")
}

fn field(line: &str, name: &str) -> usize {
    let value = line.split_once(&format!("{name}=")).expect("the field").1;
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}
