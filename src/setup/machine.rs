//! The machine that is set up: its files, tools, users and groups. Tests use another root directory.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, MemfdFlags, access, memfd_create};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::report::StepReport;
use crate::util::text::clean;

/// Directories of `useradd` and `loginctl`; the `PATH` of a service may lack them.
const SYSTEM_TOOLS: &str = "/usr/local/sbin:/usr/sbin:/sbin";
/// Time limits of a command that normally ends at once: while there is time, and when the time of the step is used up.
const QUICK_LIMIT: Duration = Duration::from_secs(30);
const SHORTEST_LIMIT: Duration = Duration::from_secs(5);
/// Seconds between SIGTERM and SIGKILL for a command that exceeds its time limit.
const KILL_AFTER: &str = "30";
/// Exit codes of `timeout` after it ended the command with SIGTERM or SIGKILL.
const TIMED_OUT: [i32; 2] = [124, 137];
/// Only the last bytes of a command's output are searched for the reason of a failure.
const OUTPUT_TAIL_BYTES: u64 = 64 * 1024;
/// Most characters of a reason.
const REASON_CHARS: usize = 200;

/// The package manager that `install.sh` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PackageManager {
    /// Debian, Ubuntu, Raspberry Pi OS.
    Apt,
    /// Fedora, Amazon Linux 2023.
    Dnf,
    /// Amazon Linux 2.
    Yum,
    /// An image that is built as a whole, for example with Yocto.
    None,
}

pub(super) struct Host {
    root: PathBuf,
    tools: OsString,
    package_manager: Option<PackageManager>,
    dry_run: bool,
    deadline: Instant,
    has_warned_of_timeout: Cell<bool>,
}

impl Host {
    pub(super) fn new(
        root: Option<PathBuf>,
        package_manager: Option<PackageManager>,
        dry_run: bool,
        time_limit: Duration,
    ) -> Self {
        let mut tools = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        if root.is_none() {
            tools.push(":");
            tools.push(SYSTEM_TOOLS);
        }
        Self {
            root: root.unwrap_or_else(|| "/".into()),
            tools,
            package_manager,
            dry_run,
            deadline: Instant::now() + time_limit,
            has_warned_of_timeout: Cell::new(false),
        }
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// `None`: unknown, because the step was not started by `install.sh`.
    pub(super) fn package_manager(&self) -> Option<PackageManager> {
        self.package_manager
    }

    /// An absolute path below the root directory.
    pub(super) fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.root.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// The text of a file, empty when it cannot be read.
    pub(super) fn text(&self, absolute: &str) -> String {
        std::fs::read(self.path(absolute))
            .map_or_else(|_| String::new(), |text| String::from_utf8_lossy(&text).into_owned())
    }

    /// The family of the board: `jetson`, `raspberry-pi` or `other`.
    pub(super) fn board(&self) -> &'static str {
        let is_jetson = self.path("/etc/nv_tegra_release").exists()
            || self.text("/proc/device-tree/compatible").contains("nvidia,tegra");
        match is_jetson {
            true => "jetson",
            false if self.text("/proc/device-tree/model").starts_with("Raspberry Pi") => "raspberry-pi",
            false => "other",
        }
    }

    /// Whether the distribution is `id` (for example `ubuntu`) or derived from it.
    pub(super) fn is_distribution(&self, id: &str) -> bool {
        let release = self.text("/etc/os-release");
        let mut values = release
            .lines()
            .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")));
        values.any(|value| {
            value
                .trim_matches(['"', '\''])
                .split_whitespace()
                .any(|word| word == id)
        })
    }

    /// Whether a tool is installed.
    pub(super) fn has(&self, tool: &str) -> bool {
        std::env::split_paths(&self.tools)
            .map(|directory| directory.join(tool))
            .any(|path| path.is_file() && access(&path, Access::EXEC_OK).is_ok())
    }

    /// A command with the tools of this machine and English messages.
    pub(super) fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command.env("PATH", &self.tools).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    /// Runs a command and returns its trimmed stdout; `None` if it fails, or does not end in time.
    pub(super) fn query(&self, command: &mut Command) -> Option<String> {
        let mut output = output_file().ok()?;
        let mut child = command
            .stdout(output.try_clone().ok()?)
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let status = wait_within(&mut child, self.quick_limit()).ok()??;
        output.rewind().ok()?;
        let mut text = Vec::new();
        output.read_to_end(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        status.success().then_some(text)
    }

    /// Time limit of a command that normally ends at once. It can hang when accounts come from a server.
    fn quick_limit(&self) -> Duration {
        let left = self.deadline.saturating_duration_since(Instant::now());
        left.clamp(SHORTEST_LIMIT, QUICK_LIMIT)
    }

    /// The fields of an entry of `passwd` or `group`, by name or number.
    pub(super) fn lookup(&self, database: &str, key: &str) -> Option<Vec<String>> {
        let entry = if self.has("getent") {
            self.query(self.command("getent").args([database, key]))?
        } else {
            let text = self.text(&format!("/etc/{database}"));
            let mut lines = text.lines().map(str::to_owned);
            lines.find(|line| {
                let mut fields = line.split(':');
                fields.next() == Some(key) || fields.nth(1) == Some(key)
            })?
        };
        Some(entry.lines().next()?.split(':').map(str::to_owned).collect())
    }

    /// Runs a command that changes the machine; does nothing in a dry run.
    ///
    /// # Errors
    /// Why it failed: the last line of its output.
    pub(super) fn change(&self, command: &mut Command) -> Result<(), String> {
        if self.dry_run {
            Ok(())
        } else {
            run(command, Some(self.quick_limit())).map_err(|failure| failure.reason)
        }
    }

    /// Like [`Self::change`], with a time limit in seconds.
    pub(super) fn change_within(
        &self,
        seconds: u64,
        command: &mut Command,
        report: &mut StepReport,
    ) -> Result<(), String> {
        if self.dry_run {
            return Ok(());
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        let limit = left.min(Duration::from_secs(seconds)).as_secs();
        if limit == 0 {
            return Err("the time limit of the install step has passed".to_owned());
        }
        if !self.has("timeout") {
            if !self.has_warned_of_timeout.replace(true) {
                report.warning(
                    "the tool timeout (coreutils) is missing: if a command hangs, only Greengrass can end it, together with this step",
                );
            }
            return self.change(command);
        }
        // `timeout` ends the whole process group, also after this process was killed.
        let mut limited = self.command("timeout");
        limited.args(["-k", KILL_AFTER, &limit.to_string()]);
        limited.arg(command.get_program()).args(command.get_args());
        run(&mut limited, None).map_err(|failure| match failure.code {
            Some(code) if TIMED_OUT.contains(&code) => format!("it did not end within {limit} s"),
            _ => failure.reason,
        })
    }
}

struct Failure {
    code: Option<i32>,
    reason: String,
}

/// `limit`: `None` for a command that limits itself.
fn run(command: &mut Command, limit: Option<Duration>) -> Result<(), Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| Failure {
        code: None,
        reason: format!("{name}: {error}"),
    };
    let mut output = output_file().map_err(failed)?;
    let mut child = output
        .try_clone()
        .and_then(|stdout| Ok((stdout, output.try_clone()?)))
        .and_then(|(stdout, stderr)| command.stdout(stdout).stderr(stderr).spawn())
        .map_err(failed)?;
    let status = match limit {
        Some(limit) => wait_within(&mut child, limit).map_err(failed)?.ok_or_else(|| Failure {
            code: None,
            reason: format!("it did not end within {} s", limit.as_secs()),
        })?,
        None => child.wait().map_err(failed)?,
    };
    if status.success() {
        return Ok(());
    }
    Err(Failure {
        code: status.code(),
        reason: last_line(&mut output).unwrap_or_else(|| "no output".to_owned()),
    })
}

/// A file, not a pipe: a background process of the command would keep a pipe open.
fn output_file() -> io::Result<File> {
    Ok(File::from(memfd_create("output", MemfdFlags::CLOEXEC)?))
}

/// Waits for the end of a process, and kills it after the limit; then the result is `None`. Kernels before 5.3 cannot wait for a
/// limited time, so there is no limit.
fn wait_within(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    if let Ok(process) = pidfd_open(Pid::from_child(child), PidfdFlags::empty()) {
        let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        if retry_on_intr(|| poll(&mut ended, Some(&timeout)))? == 0 {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
    }
    child.wait().map(Some)
}

fn last_line(output: &mut File) -> Option<String> {
    let length = output.metadata().ok()?.len();
    output
        .seek(SeekFrom::Start(length.saturating_sub(OUTPUT_TAIL_BYTES)))
        .ok()?;
    let mut tail = Vec::new();
    output.read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let line = tail.lines().rfind(|line| !line.trim().is_empty())?;
    Some(clean(line, REASON_CHARS))
}

/// Whether a name is safe as an argument of `usermod` and in a udev rule.
pub(super) fn is_valid_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'))
}

/// `NAME=VALUE` for `env`.
pub(super) fn assignment(name: &str, value: &OsStr) -> OsString {
    let mut text = OsString::from(name);
    text.push("=");
    text.push(value);
    text
}

#[cfg(test)]
mod tests {
    use super::is_valid_name;

    #[test]
    fn a_name_that_could_be_an_option_or_a_pattern_is_not_valid() {
        for name in ["video", "_apt", "i2c-1"] {
            assert!(is_valid_name(name), "{name}");
        }
        for name in ["", "-G", "*", "Video", "a.b", "1a", "a b", "a;b"] {
            assert!(!is_valid_name(name), "{name}");
        }
    }
}
