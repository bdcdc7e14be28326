//! The model process: started with a clean environment, ended with SIGINT or SIGKILL. `client` decides which program is
//! started.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tracing::{debug, error, warn};

use super::output::Output;
use super::runtime_dir::signal_to_end;
use super::sandbox::{Confined, Sandbox, SandboxError};
use super::tvm;

/// A wait for the process checks it this often.
const POLL_INTERVAL: Duration = Duration::from_millis(3);
/// Time for the process to end after SIGINT, and after SIGKILL.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Variables that a model inherits: those that locate libraries and accelerators, and none that could hold a credential
/// (such as `AWS_*`, `SVCUID` and `CONFIG_PARAMETERS` of Greengrass).
const INHERITED: [&str; 9] = [
    "PATH",
    "HOME",
    "LANG",
    "LD_LIBRARY_PATH",
    "TMPDIR",
    "TVM_HOME",
    "TZ",
    "USER",
    "XDG_RUNTIME_DIR",
];
/// Prefixes of more such variables: locale, accelerators, and settings of Edge Impulse.
const INHERITED_PREFIXES: [&str; 9] = ["LC_", "CUDA", "NVIDIA", "TVM", "QNN", "ADSP", "TENSORRT", "OMP_", "EI_"];
/// Variables with these words in their names are never inherited.
const NEVER_INHERITED: [&str; 6] = ["KEY", "SECRET", "TOKEN", "PASSW", "CREDENTIAL", "AUTH"];

/// Whether the shared-memory segments of a process are known when it is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentNames {
    /// The hello has named them.
    Known,
    /// There was no hello: the process is frozen for a moment and its segments are read from `/proc`.
    Unknown,
}

/// A running model process. Dropping it [ends](ModelProcess::end) the process.
#[derive(Debug)]
pub struct ModelProcess {
    /// `None`: abandoned.
    child: Option<Child>,
    output: Output,
}

impl ModelProcess {
    /// Starts `program` with `arguments` in its sandbox; `home` is the directory for what it keeps there.
    ///
    /// # Errors
    /// [`SandboxError`]
    pub fn start(
        program: &Path,
        arguments: &[&OsStr],
        sandbox: &Sandbox,
        confined: Option<Confined<'_>>,
    ) -> Result<Self, SandboxError> {
        // A bare file name would be searched in PATH.
        let program = std::path::absolute(program)?;
        let (reader, writer) = io::pipe()?;
        let output = Output::follow(reader)?;
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| is_inherited(name)))
            .envs(tvm::variables(Path::new(tvm::HOME), &|name| std::env::var_os(name)))
            // Its own, so that what it has started ends with it.
            .process_group(0);
        if let Some(confined) = confined.filter(|_| sandbox.hides_files()) {
            command.envs([("HOME", confined.cache), ("TMPDIR", confined.cache)]);
        }
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        if program == Path::new("/proc/self/exe") {
            command.arg0("ei-greengrass");
        }
        let child = sandbox.spawn(command, confined)?;
        Ok(Self {
            child: Some(child),
            output,
        })
    }

    /// The pid.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The exit status, if the process ends within `limit`.
    pub fn exit_status(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            let child = self.child.as_mut()?;
            if has_exited(child) {
                end_group(child);
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// The last lines the process printed.
    pub fn last_lines(&self) -> Vec<String> {
        self.output.last_lines(Duration::from_millis(200))
    }

    /// Ends the process with SIGINT, after a second with SIGKILL. Takes little more than two seconds at most. Returns
    /// the segments that were found where [`SegmentNames::Unknown`] is given.
    ///
    /// The process is frozen only then: if this program were killed at that moment, the model would stay frozen until
    /// the next start.
    pub fn end(&mut self, segment_names: SegmentNames) -> Vec<String> {
        let mut segments = Vec::new();
        for signal in [Signal::INT, Signal::KILL] {
            if self.has_ended(Duration::ZERO) {
                return segments;
            }
            let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) else {
                return segments;
            };
            // A child that was not reaped: no other process can have the pid.
            let sent = match segment_names {
                SegmentNames::Known => kill_process(pid, signal).map(|()| Vec::new()).map_err(io::Error::from),
                SegmentNames::Unknown => signal_to_end(pid, signal),
            };
            match sent {
                Ok(found) => segments.extend(found),
                Err(error) => warn!(?signal, %error, "A signal could not be sent to the model process"),
            }
            if self.has_ended(END_TIMEOUT) {
                return segments;
            }
        }
        // Probably blocked in a driver. A thread reaps it when it ends.
        if let Some(mut child) = self.child.take() {
            error!(
                pid = child.id(),
                "The model process does not end, not even after SIGKILL; a driver may hang"
            );
            let _ = thread::Builder::new()
                .name("model-reaper".into())
                .spawn(move || child.wait());
        }
        segments
    }

    /// Whether the process ends within `limit`.
    fn has_ended(&mut self, limit: Duration) -> bool {
        if let Some(status) = self.exit_status(limit) {
            debug!(status = describe(status), "The model process has ended");
            self.child = None;
        }
        self.child.is_none()
    }
}

/// Whether the process has ended and was not reaped yet.
fn has_exited(child: &Child) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(Pid::from_child(child)), options).is_ok_and(|status| status.is_some())
}

/// Ends what the model has started and left behind. The model itself was not reaped: no other group can have its number.
fn end_group(child: &Child) {
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
}

impl Drop for ModelProcess {
    fn drop(&mut self) {
        self.end(SegmentNames::Unknown);
    }
}

fn is_inherited(name: &OsString) -> bool {
    let Some(name) = name.to_str() else { return false };
    let is_listed = INHERITED.contains(&name) || INHERITED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let upper = name.to_ascii_uppercase();
    is_listed && !NEVER_INHERITED.iter().any(|word| upper.contains(word))
}

/// The exit status as a predicate of "the model".
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended (exit status 0)".to_owned(),
        (Some(code), _) => format!("failed with exit status {code}"),
        (None, Some(signal)) => {
            let core = if status.core_dumped() { ", core dumped" } else { "" };
            format!("was ended by signal {signal}{}{core}", signal_meaning(signal))
        }
        (None, None) => format!("ended: {status}"),
    }
}

/// Whether SIGHUP, SIGINT or SIGTERM ended the process. Newer models handle them and exit with 128 + the signal.
pub fn is_stop_signal(status: ExitStatus) -> bool {
    matches!(status.signal(), Some(1 | 2 | 15)) || matches!(status.code(), Some(129 | 130 | 143))
}

fn signal_meaning(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP, terminal closed)",
        2 => " (SIGINT, asked to stop)",
        4 => " (SIGILL: built for a newer processor?)",
        6 => " (SIGABRT, it aborted)",
        7 => " (SIGBUS, bad memory access)",
        8 => " (SIGFPE, bad arithmetic)",
        9 => " (SIGKILL: out of memory? see dmesg)",
        11 => " (SIGSEGV, bad memory access)",
        13 => " (SIGPIPE, write to a closed pipe or socket)",
        15 => " (SIGTERM, asked to stop)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_variable_that_may_hold_a_credential_reaches_the_model() {
        for name in [
            "AWS_ACCESS_KEY_ID",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN",
            "SVCUID",
            "CONFIG_PARAMETERS",
            "EI_API_KEY",
            "EI_PROJECT_SECRET",
            "QNN_LICENSE_TOKEN",
            "SSH_AUTH_SOCK",
        ] {
            assert!(!is_inherited(&name.into()), "{name}");
        }
        for name in [
            "PATH",
            "LD_LIBRARY_PATH",
            "LC_ALL",
            "CUDA_VISIBLE_DEVICES",
            "ADSP_LIBRARY_PATH",
            "EI_CACHE_DIR",
        ] {
            assert!(is_inherited(&name.into()), "{name}");
        }
    }

    #[test]
    fn exit_statuses_are_described() {
        assert_eq!(describe(ExitStatus::from_raw(3 << 8)), "failed with exit status 3");
        assert_eq!(
            describe(ExitStatus::from_raw(11)),
            "was ended by signal 11 (SIGSEGV, bad memory access)"
        );
        assert!(is_stop_signal(ExitStatus::from_raw(143 << 8)));
        assert!(is_stop_signal(ExitStatus::from_raw(2)));
        assert!(!is_stop_signal(ExitStatus::from_raw(9)));
    }

    #[test]
    fn a_process_that_ignores_the_request_is_killed() {
        let script = "trap '' INT; echo ready; while :; do sleep 0.05; done";
        let mut process = ModelProcess::start(
            Path::new("/bin/sh"),
            &["-c".as_ref(), script.as_ref()],
            &Sandbox::off(),
            None,
        )
        .unwrap();
        let pid = process.pid().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while process.output.last_lines(Duration::from_millis(5)).is_empty() {
            assert!(Instant::now() < deadline);
        }
        let begin = Instant::now();
        process.end(SegmentNames::Unknown);
        assert!(begin.elapsed() >= END_TIMEOUT && begin.elapsed() < 3 * END_TIMEOUT);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
