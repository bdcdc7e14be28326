//! Everything the soak runs: broker, network, daemon, subscriber; and what each daemon said it published.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;

use crate::camera::Camera;
use crate::faults::Kind;
use crate::gate::Gate;
use crate::ledger::Ledger;
use crate::process::{DISK, Daemon, Figures, Launch, OnDisk, Usage, on_disk, spool_file, wait};
use crate::support::clock::Clock;
use crate::support::daemon::Site;
use crate::support::mosquitto::Mosquitto;
use crate::support::small_disk::SmallDisk;
use crate::wire::Subscriber;

const TOPICS: &str = "/edgeimpulse/device/#";
/// How often the daemon is asked for its counters.
const POLL: Duration = Duration::from_millis(200);
/// How often memory and open files are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// A source that ended is started again by a command; so often until it works.
const REPEAT: Duration = Duration::from_secs(10);
/// The daemon's page may be late on a busy machine, but not this late.
const SILENT: Duration = Duration::from_secs(20);
/// Enough for the spool of a day's longest outage.
const DISK_SIZE: &str = "64m";

/// One life of the counters: a process, or what follows a `restart` command.
#[derive(Debug, Clone)]
pub struct Run {
    /// No message of it is older.
    pub begun_ts: u64,
    /// Which process, from 0.
    pub process: usize,
    /// What it said last.
    pub published: u64,
    /// Dropped and counted by it.
    pub dropped: u64,
    /// How it ended.
    pub end: End,
}

/// What must have arrived in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything it said it published.
    Orderly,
    /// Killed: what the disk held at that moment, up to this number.
    Killed { on_disk: u64, by: Kind },
}

/// Of the process, now and then.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub process: usize,
    pub usage: Usage,
}

/// What surrounds the device of a day.
pub struct Surroundings {
    pub camera: Camera,
    /// The disk of its work directory; `None`: the user may not mount one.
    pub disk: Option<SmallDisk>,
    pub clock: Clock,
}

impl Surroundings {
    /// A camera that is plugged in, an empty disk and the true time.
    pub fn new(site: &Site) -> Self {
        Self {
            camera: Camera::start(),
            disk: SmallDisk::mount(&site.path().join(DISK), DISK_SIZE),
            clock: Clock::new(site.path()),
        }
    }
}

pub struct World {
    pub random: StdRng,
    pub broker: Mosquitto,
    pub gate: Gate,
    pub subscriber: Subscriber,
    pub ledger: Arc<Mutex<Ledger>>,
    pub site: Site,
    pub daemon: Daemon,
    launch: Launch,
    /// The camera, the disk and the clock of the daemon, if they are its own.
    pub surroundings: Option<Surroundings>,
    pub runs: Vec<Run>,
    pub figures: Figures,
    pub samples: Vec<Sample>,
    /// What should not have happened.
    pub problems: Vec<String>,
    /// Sources that ended and were started again.
    pub source_ends: u64,
    pub spool_peak: u64,
    pub log: PathBuf,
    pub interrupted: Arc<AtomicBool>,
    /// Prints a row of the table each minute.
    pub prints_minutes: bool,
    started: Instant,
    processes: usize,
    polled: Instant,
    answered: Instant,
    looked: Instant,
    minutes: u64,
    restart_sent: Option<(Instant, u64)>,
}

pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

impl World {
    /// Starts everything; the daemon is at work when this returns.
    pub fn new(
        seed: u64,
        log: PathBuf,
        interrupted: Arc<AtomicBool>,
        site: Site,
        launch: Launch,
        surroundings: Option<Surroundings>,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        // The subscriber is never too slow; nothing is dropped on its way.
        let broker = Mosquitto::start_with(directory, "max_queued_messages 0");
        let mut gate = Gate::new(broker.port);
        let ledger = Arc::<Mutex<Ledger>>::default();
        let noting = ledger.clone();
        let subscriber = Subscriber::start(broker.port, TOPICS, move |topic, payload| {
            noting.lock().note(topic, payload);
        });
        gate.open();
        let daemon = Daemon::start(&site, gate.port, &launch, &log);
        let now = Instant::now();
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            broker,
            gate,
            subscriber,
            ledger,
            site,
            daemon,
            launch,
            surroundings,
            runs: Vec::new(),
            figures: Figures::default(),
            samples: Vec::new(),
            problems: Vec::new(),
            source_ends: 0,
            spool_peak: 0,
            log,
            interrupted,
            prints_minutes: false,
            started: now,
            processes: 0,
            polled: now,
            answered: now,
            looked: now,
            minutes: 0,
            restart_sent: None,
        };
        world.new_run(now_ms() - 1000);
        world
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn is_over(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// What all runs said they published.
    pub fn published(&self) -> u64 {
        self.runs.iter().map(|run| run.published).sum()
    }

    fn new_run(&mut self, begun_ts: u64) {
        self.runs.push(Run {
            begun_ts,
            process: self.processes,
            published: 0,
            dropped: 0,
            end: End::Orderly,
        });
        self.figures = Figures::default();
    }

    /// The run at work.
    pub fn run(&mut self) -> &mut Run {
        self.runs.last_mut().expect("there is always one")
    }

    /// Lets time pass, and looks after everything meanwhile.
    pub fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.is_over() {
            self.tick();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets time pass until `condition` holds; how long it took.
    pub fn until(&mut self, limit: Duration, mut condition: impl FnMut(&mut Self) -> bool) -> Option<Duration> {
        let begun = Instant::now();
        loop {
            if condition(self) {
                return Some(begun.elapsed());
            }
            if begun.elapsed() > limit || self.is_over() {
                return None;
            }
            self.tick();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A time between these, in milliseconds.
    pub fn between(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.random.random_range(from..to))
    }

    fn tick(&mut self) {
        if self.polled.elapsed() >= POLL {
            self.poll();
            self.restart_ended_source();
        }
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            let sample = Sample {
                process: self.processes,
                usage: self.daemon.usage(),
            };
            self.samples.push(sample);
            let spool = spool_file(&self.site).and_then(|path| path.metadata().ok());
            self.spool_peak = self.spool_peak.max(spool.map_or(0, |meta| meta.len()));
        }
        let minutes = self.elapsed().as_secs() / 60;
        if minutes > self.minutes {
            self.minutes = minutes;
            if self.prints_minutes {
                self.print_minute();
            }
        }
    }

    /// Asks the daemon for its counters.
    pub fn poll(&mut self) {
        self.polled = Instant::now();
        if let Some(status) = self.daemon.ended() {
            self.problems.push(format!(
                "after {:?} the daemon ended by itself: {status}",
                self.elapsed()
            ));
            self.start_daemon();
            return;
        }
        let Some(figures) = self.daemon.figures() else {
            if self.answered.elapsed() > SILENT {
                self.problems.push(format!(
                    "after {:?} the daemon's page did not answer for {SILENT:?}",
                    self.elapsed()
                ));
                self.answered = Instant::now();
            }
            return;
        };
        self.answered = Instant::now();
        if figures.get("uptime_seconds") < self.figures.get("uptime_seconds") {
            match self.restart_sent.take() {
                Some((_, ts)) => self.new_run(ts),
                None => {
                    self.problems.push(format!(
                        "after {:?} the counters began anew by themselves",
                        self.elapsed()
                    ));
                    self.new_run(now_ms() - POLL.as_millis() as u64);
                }
            }
        }
        let run = self.run();
        run.published = run.published.max(figures.get("published"));
        run.dropped = figures.get("spool_dropped") + figures.get("outbox_dropped");
        if figures.get("outbox_dropped") > self.figures.get("outbox_dropped") {
            self.problems.push(format!(
                "after {:?} the outbox dropped {} messages although the disk works",
                self.elapsed(),
                figures.get("outbox_dropped")
            ));
        }
        self.figures = figures;
    }

    /// `ei_shutdown_behavior` is `wait_for_restart`: after its frames the source ends and waits for the command.
    fn restart_ended_source(&mut self) {
        let Some(frames) = self.launch.frames else { return };
        let ended = self.figures.get("frames_captured") >= u64::from(frames)
            && self.figures.get("mqtt_connected") == 1
            && self.restart_sent.is_none_or(|(at, _)| at.elapsed() > REPEAT);
        if ended {
            self.source_ends += 1;
            let inferred = self.figures.get("inferences") + self.figures.get("frames_dropped");
            // The last answers may be under way.
            if inferred + 2 < u64::from(frames) && self.restart_sent.is_some() {
                self.problems.push(format!(
                    "of {frames} frames {inferred} were inferred or counted as dropped"
                ));
            }
            self.send_restart();
        }
    }

    /// Sends the `restart` command.
    pub fn send_restart(&mut self) {
        self.restart_sent = Some((Instant::now(), now_ms()));
        let topic = {
            let ledger = self.ledger.lock();
            let device = ledger.device.clone().unwrap_or_default();
            format!("/edgeimpulse/device/{device}/command/input")
        };
        self.subscriber.publish(&topic, br#"{"cmd":"restart"}"#);
    }

    /// Starts the daemon where none runs.
    pub fn start_daemon(&mut self) {
        self.processes += 1;
        self.restart_sent = None;
        let begun_ts = now_ms();
        self.daemon = Daemon::start(&self.site, self.gate.port, &self.launch, &self.log);
        self.answered = Instant::now();
        self.new_run(begun_ts);
    }

    /// Starts a daemon that adds only one message where none runs.
    pub fn start_last_daemon(&mut self) {
        self.launch = Launch::full_speed(1);
        self.start_daemon();
    }

    /// Ends the daemon with SIGTERM; a problem if it does not end in order within `limit`.
    pub fn end_daemon(&mut self, limit: Duration) {
        self.daemon.signal(Signal::TERM);
        wait(limit, || self.daemon.ended().is_some());
        let status = self.daemon.ended();
        if status.is_none_or(|status| !status.success()) {
            self.problems.push(format!(
                "after {:?} a SIGTERM ended the daemon with {status:?}",
                self.elapsed()
            ));
            self.daemon.kill();
        }
    }

    /// Kills the daemon; what was on disk then.
    pub fn kill_daemon(&mut self, by: Kind) -> Option<(OnDisk, Duration)> {
        self.poll();
        self.daemon.kill();
        let killed = now_ms();
        let begun_ts = self.run().begun_ts;
        let on_disk = on_disk(&self.site);
        let ours = on_disk.filter(|on_disk| on_disk.last_ts >= begun_ts);
        self.run().end = End::Killed {
            on_disk: ours.map_or(0, |on_disk| on_disk.last),
            by,
        };
        ours.map(|on_disk| (on_disk, Duration::from_millis(killed.saturating_sub(on_disk.last_ts))))
    }

    fn print_minute(&mut self) {
        let usage = self.daemon.usage();
        let ledger = self.ledger.lock();
        let gaps: u64 = ledger.runs.iter().map(crate::ledger::Run::gaps).sum();
        let spool = spool_file(&self.site).and_then(|path| path.metadata().ok());
        println!(
            "| {} | {} | {} | {} | {gaps} | {} | {:.1} | {:.1} | {} | {} | {:.1} |",
            self.minutes,
            self.runs.iter().map(|run| run.published).sum::<u64>(),
            ledger.delivered,
            ledger.duplicates,
            self.figures.get("messages_waiting"),
            usage.rss_kib as f64 / 1024.0,
            usage.pss_kib as f64 / 1024.0,
            usage.files,
            usage.threads,
            spool.map_or(0, |meta| meta.len()) as f64 / f64::from(1 << 20),
        );
    }
}
