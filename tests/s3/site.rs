//! A daemon with the S3 cache on, its broker and somebody who watches.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Site};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::s3::Storage;
use crate::support::scripts::{boxed, cycle, frames, nothing};

pub const BUCKET: &str = "photos";
/// The scripted model is called so.
pub const PREFIX: &str = "Scripted_v7/";

pub struct Place {
    pub site: Site,
    pub broker: Mosquitto,
    pub observer: Observer,
    pub storage: Storage,
}

impl Place {
    pub fn new() -> Self {
        Self::with(Site::new())
    }

    /// The same device on another disk, with another broker and another S3.
    pub fn with(site: Site) -> Self {
        let broker = Mosquitto::start();
        let observer = Observer::connect(broker.port, site.device());
        Self {
            observer,
            broker,
            site,
            storage: Storage::new(),
        }
    }

    /// `run` of a source, every frame of it however busy the machine is, with the S3 cache on and further settings.
    pub fn command(&self, answers: &[Value], source: &str, sets: &[&str]) -> Command {
        let model = self.site.scripted_model(&cycle(answers));
        let mut command = self.site.command("run");
        command
            .args([
                "--mqtt",
                &self.broker.url(),
                "--unthrottled",
                "--gst",
                source,
                "--model",
            ])
            .arg(model);
        let bucket = format!("s3_bucket={BUCKET}");
        for set in [
            "enable_cache_to_s3=yes",
            &bucket,
            "ei_shutdown_behavior=wait_for_restart",
        ] {
            command.args(["--set", set]);
        }
        for set in sets {
            command.args(["--set", set]);
        }
        self.storage.environment(&mut command);
        command
    }

    /// Runs a source of `count` frames that are all published, and waits for its end: `count` pairs. At most 8, since so
    /// many pictures are encoded at once.
    pub fn run_pairs(&self, count: u32, sets: &[&str]) -> Daemon {
        let mut all = vec!["iotcore_backoff=1"];
        all.extend(sets);
        let daemon = Daemon::start(self.command(&[boxed(0.9)], &frames(count), &all));
        self.observer.wait_for_count("inference/output", count as usize);
        daemon
    }

    /// A daemon that infers one empty frame and then only sends what waits.
    pub fn run_idle(&self) -> Daemon {
        Daemon::start(self.command(&[nothing()], &frames(1), &[]))
    }

    /// Ids of the inferences published so far, in order.
    pub fn ids(&self) -> Vec<String> {
        let messages = self.observer.all("inference/output");
        let id = |seen: &Value| seen["id"].as_str().expect("an id").to_owned();
        messages.iter().map(|seen| id(&seen.json())).collect()
    }

    /// Where pairs wait.
    pub fn pending(&self) -> PathBuf {
        self.site.path().join(self.observer.device_name()).join("s3-pending")
    }

    /// Names of the messages that wait.
    pub fn waiting(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(self.pending()) else {
            return Vec::new();
        };
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.ends_with(".json")).collect();
        names.sort();
        names
    }

    /// `clear_cache`, answered.
    pub fn clear(&self) -> Value {
        let answer = self
            .observer
            .command(&json!({"cmd": "clear_cache"}), |a| !a["clear_cache"].is_null());
        answer["clear_cache"].clone()
    }

    /// `clear_cache_file`, answered.
    pub fn clear_file(&self, id: &str) -> Value {
        let command = json!({"cmd": "clear_cache_file", "value": id});
        let answer = self.observer.command(&command, |a| !a["clear_cache_file"].is_null());
        answer["clear_cache_file"].clone()
    }
}
