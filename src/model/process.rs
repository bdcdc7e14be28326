//! The child process: started with a clean environment, watched, ended.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tracing::{debug, error, warn};

use super::output::Output;
use super::runtime_dir::signal_to_end;
use super::tvm;

/// How often a process is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(3);
/// How long a process gets to end after SIGINT, and after SIGKILL.
const END: Duration = Duration::from_secs(1);
/// How long a file that was written a moment ago may stay "busy".
const BUSY: Duration = Duration::from_secs(2);

/// Variables that a model gets from our environment: what finds libraries and accelerators, and nothing that could
/// hold a credential (`AWS_*`, `SVCUID` and `CONFIG_PARAMETERS` of Greengrass among them).
const PASSED_ON: [&str; 9] = [
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
/// The same for whole families of variables: locale, accelerators, and settings of Edge Impulse itself.
const PASSED_ON_PREFIXES: [&str; 9] = ["LC_", "CUDA", "NVIDIA", "TVM", "QNN", "ADSP", "TENSORRT", "OMP_", "EI_"];
/// Not even then.
const NEVER_PASSED_ON: [&str; 6] = ["KEY", "SECRET", "TOKEN", "PASSW", "CREDENTIAL", "AUTH"];

/// How the shared memory of a process becomes known that is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// It named its segments, or has none.
    Named,
    /// It did not live to name them: the process is frozen for a moment and looked at.
    LookFor,
}

/// A running model process. Dropping it [ends](Process::end) the process.
#[derive(Debug)]
pub struct Process {
    /// `None`: abandoned.
    child: Option<Child>,
    output: Output,
}

impl Process {
    /// Starts `program` with `arguments`.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start(program: &Path, arguments: &[&OsStr]) -> io::Result<Self> {
        // A bare file name would be looked for in PATH.
        let program = std::path::absolute(program)?;
        let (reader, writer) = io::pipe()?;
        let output = Output::follow(reader)?;
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| is_passed_on(name)))
            .envs(tvm::variables(Path::new(tvm::HOME), &|name| std::env::var_os(name)));
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        if program == Path::new("/proc/self/exe") {
            command.arg0("ei-greengrass");
        }
        let deadline = Instant::now() + BUSY;
        let child = loop {
            match command.spawn() {
                // Another thread that forks while a file is written keeps it open for a moment.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                    thread::sleep(LOOK);
                }
                other => break other?,
            }
        };
        Ok(Self {
            child: Some(child),
            output,
        })
    }

    /// The pid.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How the process ended, when it has; waits for that up to `limit`.
    pub fn ended(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Ok(Some(status)) = self.child.as_mut()?.try_wait() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(LOOK);
        }
    }

    /// The last lines the process printed.
    pub fn last_lines(&self) -> Vec<String> {
        self.output.last_lines(Duration::from_millis(200))
    }

    /// Ends the process: SIGINT, SIGKILL after a second. Takes two seconds and a little at most. Returns the names of
    /// the shared memory that was looked for and found.
    ///
    /// A process is frozen only where that is needed: were this program killed just then, the model would stay frozen
    /// until the next start.
    pub fn end(&mut self, memory: Memory) -> Vec<String> {
        let mut segments = Vec::new();
        for signal in [Signal::INT, Signal::KILL] {
            if self.has_ended(Duration::ZERO) {
                return segments;
            }
            let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) else {
                return segments;
            };
            // It is our child and not waited for yet: the pid cannot belong to anybody else.
            let sent = match memory {
                Memory::Named => kill_process(pid, signal).map(|()| Vec::new()).map_err(io::Error::from),
                Memory::LookFor => signal_to_end(pid, signal),
            };
            match sent {
                Ok(held) => segments.extend(held),
                Err(error) => warn!("the model process cannot be sent {signal:?}: {error}"),
            }
            if self.has_ended(END) {
                return segments;
            }
        }
        // Stuck in a driver. It goes when the driver lets go; somebody has to take its exit status then.
        if let Some(mut child) = self.child.take() {
            error!(
                "the model process {} does not end, not even after SIGKILL: a driver may hang",
                child.id()
            );
            let _ = thread::Builder::new()
                .name("model-reaper".into())
                .spawn(move || child.wait());
        }
        segments
    }

    /// Whether the process has ended, or does within `limit`; it is gone then.
    fn has_ended(&mut self, limit: Duration) -> bool {
        if let Some(status) = self.ended(limit) {
            debug!("the model process {}", describe(status));
            self.child = None;
        }
        self.child.is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Memory::LookFor);
    }
}

fn is_passed_on(name: &OsString) -> bool {
    let Some(name) = name.to_str() else { return false };
    let wanted = PASSED_ON.contains(&name) || PASSED_ON_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let upper = name.to_ascii_uppercase();
    wanted && !NEVER_PASSED_ON.iter().any(|word| upper.contains(word))
}

/// The end of a process in words that follow "the model".
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

/// Whether SIGHUP, SIGINT or SIGTERM was the reason, directly or as newer models say it.
pub fn is_stop_signal(status: ExitStatus) -> bool {
    matches!(status.signal(), Some(1 | 2 | 15)) || matches!(status.code(), Some(129 | 130 | 143))
}

fn signal_meaning(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP, terminal closed)",
        2 => " (SIGINT, asked to stop)",
        4 => " (SIGILL: built for a newer processor?)",
        6 => " (SIGABRT, it gave up)",
        7 => " (SIGBUS, bad memory access)",
        8 => " (SIGFPE, bad arithmetic)",
        9 => " (SIGKILL: out of memory? see dmesg)",
        11 => " (SIGSEGV, bad memory access)",
        13 => " (SIGPIPE, nobody listened)",
        15 => " (SIGTERM, asked to stop)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_may_hold_a_credential_reaches_the_model() {
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
            assert!(!is_passed_on(&name.into()), "{name}");
        }
        for name in [
            "PATH",
            "LD_LIBRARY_PATH",
            "LC_ALL",
            "CUDA_VISIBLE_DEVICES",
            "ADSP_LIBRARY_PATH",
            "EI_CACHE_DIR",
        ] {
            assert!(is_passed_on(&name.into()), "{name}");
        }
    }

    #[test]
    fn ends_are_told_in_words() {
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
        let mut process = Process::start(Path::new("/bin/sh"), &["-c".as_ref(), script.as_ref()]).unwrap();
        let pid = process.pid().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while process.output.last_lines(Duration::from_millis(5)).is_empty() {
            assert!(Instant::now() < deadline);
        }
        let begin = Instant::now();
        process.end(Memory::LookFor);
        assert!(begin.elapsed() >= END && begin.elapsed() < 3 * END);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
