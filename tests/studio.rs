//! The API key from Secrets Manager and the model from Edge Impulse Studio, against stand-ins on loopback.

mod channel;
mod channel_daemon;
mod client;
mod collect;
mod command_line;
mod daemon;
mod faults;
mod frames;
mod ingestion;
mod linux;
mod monitor;
mod on_demand;
mod records;
use crate::support;
mod trouble;
mod updates;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::daemon::Site;

/// Where version `version` of the stand-in's model goes.
fn place(work_dir: &Path, version: u64) -> PathBuf {
    let directory = format!("v{version}-float32-{}-tflite-impulse1", support::studio::TARGET);
    work_dir.join("models/Tutorial-42").join(directory).join("model.eim")
}

/// The scripted model looks for its script beside itself: it is there before the model is.
fn write_script(work_dir: &Path, version: u64, script: &serde_json::Value) {
    let model = place(work_dir, version);
    std::fs::create_dir_all(model.parent().unwrap()).unwrap();
    std::fs::write(model.with_extension("eim.json"), script.to_string()).unwrap();
}

/// All parts of a half download, of which there must be none.
fn leftovers(work_dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(work_dir.join("models")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        // A build job that goes on is no leftover.
        .filter(|path| path.is_file() && !path.ends_with("build-job.json"))
        .collect()
}

/// `model fetch` in this site, with the most talkative log.
fn fetch(site: &Site, secrets: &str, studio: &str, change: impl FnOnce(&mut Command)) -> Output {
    let mut command = site.bare_command();
    command.args(["model", "fetch", "--set"]);
    command.arg(format!("work_dir={}", site.path().display()));
    support::studio::surround(&mut command, secrets, studio);
    command.env("RUST_LOG", "trace");
    change(&mut command);
    command.output().expect("the program runs")
}

/// Everything printed, which never holds a secret.
#[track_caller]
fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr]
        .map(String::from_utf8_lossy)
        .join("\n");
    assert_no_secret(&text);
    text
}

#[track_caller]
fn assert_no_secret(text: &str) {
    assert_none_of(&[support::studio::API_KEY, support::studio::SECRET_ACCESS_KEY], text);
}

#[track_caller]
fn assert_none_of(secrets: &[impl AsRef<str>], text: &str) {
    for secret in secrets.iter().map(AsRef::as_ref) {
        if let Some(line) = text.lines().find(|line| line.contains(secret)) {
            panic!("a secret is in the log: {line}");
        }
    }
}
