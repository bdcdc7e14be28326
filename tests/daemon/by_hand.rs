//! Runs a command of the program to its end and collects its output.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::daemon::{LIMIT, Site};

/// Result of a program that ended by itself.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Finished {
    /// Both outputs.
    pub fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn finish(mut command: Command) -> Finished {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    let read = |mut stream: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = read(Box::new(child.stdout.take().expect("stdout")));
    let err = read(Box::new(child.stderr.take().expect("stderr")));
    let end = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            panic!("{command:?} does not end: {}", out.join().unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Finished {
        code: status.code(),
        out: out.join().unwrap(),
        err: err.join().unwrap(),
    }
}

/// A subcommand with nothing but these arguments.
pub fn bare(site: &Site, arguments: &[&str]) -> Command {
    let mut command = site.bare_command();
    command.args(arguments);
    command
}

/// `check` with the settings of the site and these arguments.
pub fn check(site: &Site, arguments: &[&str]) -> Finished {
    let mut command = site.command("check");
    command.args(arguments);
    finish(command)
}

/// The lines below a title of `check`, without their indentation.
pub fn section(report: &str, title: &str) -> Vec<String> {
    let lines = report.lines().skip_while(|line| *line != title).skip(1);
    lines
        .take_while(|line| line.starts_with("  "))
        .map(|line| line.trim().to_owned())
        .collect()
}

/// The settings of a report of `check`: key, value, and where it comes from.
pub fn settings(report: &str) -> BTreeMap<String, (String, String)> {
    let lines = section(report, "Settings").into_iter();
    lines
        .map(|line| {
            let (key, rest) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
            let (value, origin) = rest.rsplit_once("  (").unwrap_or_else(|| panic!("{line}"));
            let origin = origin.trim_end_matches(')').split(';').next().unwrap_or_default();
            (key.trim().to_owned(), (value.trim().to_owned(), origin.to_owned()))
        })
        .collect()
}

pub fn tutorial() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tutorial-config.json")
}

/// The recipe that is shipped.
pub fn recipe() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/EdgeImpulseLinuxRunnerServiceComponent.yaml")
}

pub fn warnings(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
        .collect()
}
