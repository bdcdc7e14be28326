//! The daemon of the soak, and what it says about itself besides MQTT.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use rustix::process::Signal;
use serde_json::Value;

use crate::camera::Camera;
use crate::support::clock::Clock;
use crate::support::daemon::Site;
use crate::support::ports::free_port;
use crate::support::small_disk::SmallDisk;

/// The release binary, or a copy of it, so that a build during an hour's run does not change it.
const BINARY_VARIABLE: &str = "SOAK_BINARY";
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How the source of a run ends: this many frames are about two minutes at full speed.
pub const FRAMES: u32 = 100_000;

/// Where the disk of the daemon is mounted in its site, if it has one.
pub const DISK: &str = "disk";

/// What a daemon is started with.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The source.
    line: String,
    /// Frames after which the source ends and waits for the command `restart`; `None`: it does not end.
    pub frames: Option<u32>,
    settings: Vec<String>,
    environment: Vec<(&'static str, PathBuf)>,
}

impl Launch {
    /// So many frames, as fast as they are inferred.
    pub fn full_speed(frames: u32) -> Self {
        Self {
            line: format!(
                "videotestsrc pattern=ball num-buffers={frames} ! video/x-raw,format=I420,width=320,height=240,framerate=30/1"
            ),
            frames: Some(frames),
            settings: vec!["ei_shutdown_behavior=wait_for_restart".to_owned()],
            environment: Vec::new(),
        }
    }

    /// At full speed without an end.
    pub fn endless() -> Self {
        Self {
            line: "videotestsrc pattern=ball ! video/x-raw,format=I420,width=320,height=240,framerate=30/1".to_owned(),
            frames: None,
            settings: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// A camera, with its work directory on a disk of its own and a wall clock of its own.
    pub fn camera(camera: &Camera, disk: Option<&SmallDisk>, clock: &Clock) -> Self {
        Self {
            line: camera.line(),
            frames: None,
            settings: disk
                .map(|disk| format!("work_dir={}", disk.path().display()))
                .into_iter()
                .collect(),
            environment: clock.variables().into(),
        }
    }
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    page: u16,
}

/// Its counters and gauges, by the names of `/metrics`.
#[derive(Debug, Clone, Default)]
pub struct Figures(HashMap<String, f64>);

impl Figures {
    /// 0 for what is not there.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0.0) as u64
    }
}

/// What the kernel says about it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub rss_kib: u64,
    /// The part of it that is no file: heap and stacks.
    pub anonymous_kib: u64,
    pub pss_kib: u64,
    pub files: usize,
    pub threads: u64,
}

impl Daemon {
    /// Starts it.
    pub fn start(site: &Site, broker: u16, launch: &Launch, log: &Path) -> Self {
        let page = free_port();
        let mut command = site.command("run");
        if let Some(binary) = std::env::var_os(BINARY_VARIABLE) {
            let mut other = std::process::Command::new(binary);
            other.args(command.get_args()).current_dir(site.path());
            command = other;
        }
        command.args(["--mqtt", &format!("mqtt://127.0.0.1:{broker}"), "--unthrottled"]);
        command.args(["--model", "builtin:ball", "--gst", &launch.line]);
        for set in [
            "iotcore_backoff=1",
            "preview=on",
            "preview_host=127.0.0.1",
            &format!("preview_port={page}"),
        ] {
            command.args(["--set", set]);
        }
        for set in &launch.settings {
            command.args(["--set", set]);
        }
        let log = File::options().create(true).append(true).open(log).expect("the log");
        let child = command
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(launch.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("start the program");
        Self { child, page }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        // Err: it ended by itself, which `ended` tells.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal);
    }

    /// Its end, if it came.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// `None`: it does not answer (yet).
    pub fn figures(&self) -> Option<Figures> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.page)).ok()?;
        stream.set_read_timeout(Some(ANSWER_LIMIT)).ok()?;
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n",
            self.page
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let figure = |line: &str| {
            let (name, value) = line.strip_prefix("ei_greengrass_")?.split_once(' ')?;
            Some((name.trim_end_matches("_total").to_owned(), value.parse().ok()?))
        };
        let figures: HashMap<_, _> = text.lines().filter_map(figure).collect();
        (!figures.is_empty()).then_some(Figures(figures))
    }

    pub fn usage(&self) -> Usage {
        let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", self.pid())).unwrap_or_default();
        let status = read("status");
        Usage {
            rss_kib: number(&status, "VmRSS:"),
            anonymous_kib: number(&status, "RssAnon:"),
            pss_kib: number(&read("smaps_rollup"), "Pss:"),
            files: fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count),
            threads: number(&status, "Threads:"),
        }
    }

    /// The time of processors that it used.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        // User and system time, in ticks of which a second has 100 on Linux.
        let ticks = after_name.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

fn number(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

/// The file of undelivered messages, if there is one.
pub fn spool_file(site: &Site) -> Option<PathBuf> {
    let work_dirs = [site.path().to_owned(), site.path().join(DISK)];
    work_dirs
        .iter()
        .filter_map(|work_dir| fs::read_dir(work_dir).ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| entry.path().join("spool.redb"))
        .find(|path| path.exists())
}

/// The newest message on disk after a kill.
#[derive(Debug, Clone, Copy)]
pub struct OnDisk {
    /// Its `total_inferences`.
    pub last: u64,
    /// Its `ts`.
    pub last_ts: u64,
}

/// Reads a copy: a database that was not closed is repaired when opened.
pub fn on_disk(site: &Site) -> Option<OnDisk> {
    let copy = site.path().join("soak-copy.redb");
    fs::copy(spool_file(site)?, &copy).ok()?;
    let found = read_spool(&copy);
    let _ = fs::remove_file(copy);
    found
}

fn read_spool(path: &Path) -> Option<OnDisk> {
    let table: TableDefinition<'_, u64, (&str, u8, &[u8])> = TableDefinition::new("inferences");
    let database = redb::Database::open(path).ok()?;
    let messages = database.begin_read().ok()?.open_table(table).ok()?;
    let (_, newest) = messages.last().ok()??;
    let newest: Value = serde_json::from_slice(newest.value().2).ok()?;
    Some(OnDisk {
        last: newest["total_inferences"].as_u64()?,
        last_ts: newest["ts"].as_u64()?,
    })
}

/// Waits until `condition` holds; false when it does not within `limit`.
pub fn wait(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
