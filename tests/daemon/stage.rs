//! What most tests need: a site, a broker, and a client that receives all messages.

use std::ffi::OsStr;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Site};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;

/// A camera of 64 x 48.
pub const CAMERA: &str = "videotestsrc is-live=true ! video/x-raw,format=RGB,width=64,height=48,framerate=30/1";

pub struct Stage {
    pub site: Site,
    pub broker: Mosquitto,
    pub observer: Observer,
}

impl Stage {
    pub fn new() -> Self {
        let (site, broker) = (Site::new(), Mosquitto::start());
        let observer = Observer::connect(broker.port, site.device());
        Self { site, broker, observer }
    }

    /// `run` with every inference published, metrics five times a second, and these settings.
    pub fn command(&self, model: impl AsRef<OsStr>, sets: &[&str]) -> Command {
        command(&self.site, &self.broker.url(), model, sets)
    }

    /// The same with a source, started.
    pub fn run(&self, model: impl AsRef<OsStr>, source: &str, sets: &[&str]) -> Daemon {
        let mut command = self.command(model, sets);
        command.args(["--gst", source]);
        Daemon::start(command)
    }

    /// The same, playing a file as fast as it can.
    pub fn run_unthrottled(&self, model: impl AsRef<OsStr>, source: &str, sets: &[&str]) -> Daemon {
        let mut command = self.command(model, sets);
        command.args(["--unthrottled", "--gst", source]);
        Daemon::start(command)
    }

    /// Waits for a metrics message whose `runner` object satisfies `wanted`, and gives that object.
    #[track_caller]
    pub fn wait_for_figures(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.observer
            .wait_for("model/metrics", what, |metrics| wanted(&metrics["runner"]))["runner"]
            .clone()
    }

    /// The kinds of everything the device published, in order: a status, `inference`, or nothing of the two.
    pub fn order(&self) -> Vec<String> {
        let kind = |seen: &crate::support::observer::Seen| {
            if seen.topic.ends_with("inference/output") {
                return Some("inference".to_owned());
            }
            Some(seen.json()["result"]["status"].as_str()?.to_owned())
        };
        self.observer.all("").iter().filter_map(kind).collect()
    }

    /// Waits until everything published before now was seen: a message of our own goes the same way.
    pub fn settle(&self) {
        let marker = json!({"marker": uuid::Uuid::new_v4().to_string()});
        self.observer.send_raw(marker.to_string(), false);
        self.observer
            .wait_for("command/input", "our marker", |seen| *seen == marker);
    }
}

/// See [`Stage::command`].
pub fn command(site: &Site, broker: &str, model: impl AsRef<OsStr>, sets: &[&str]) -> Command {
    let mut command = site.command("run");
    command.args(["--mqtt", broker, "--model"]).arg(model);
    for set in ["iotcore_backoff=1", "metrics_sleeptime_ms=200"].iter().chain(sets) {
        command.args(["--set", set]);
    }
    command
}

/// Log lines of this level that contain `text`.
pub fn lines<'a>(log: &'a str, level: &str, text: &str) -> Vec<&'a str> {
    let level = format!(" {level} ");
    log.lines()
        .filter(|line| line.contains(&level) && line.contains(text))
        .collect()
}
