//! The sandbox of the model process. A model is a program from the network that nobody has examined, so it gets what it
//! needs to infer and nothing else: [`paths`] says which files those are, [`filter`] which system calls are refused,
//! [`limits`] how much of the machine it may use. [`refusals`] logs the files that were refused.
//!
//! A thread restricts itself, starts the model and ends. A child has the restrictions of the thread that starts it, so
//! nothing has to run between fork and exec except what sets the limits.

mod capabilities;
mod error;
mod files;
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")),
    path = "no_filter.rs"
)]
mod filter;
mod limits;
mod paths;
mod refusals;
mod support;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sandbox_calls::Listener;
use tracing::warn;

use super::file::ProgramKind;
use crate::config::{ModelSandboxConfig, SandboxMode};
pub use error::SandboxError;
use refusals::LoggedPaths;
pub use support::SandboxSupport;

/// The configured sandbox and what the kernel has for it. Clones share that they have said what is missing.
#[derive(Debug, Clone)]
pub struct Sandbox {
    config: ModelSandboxConfig,
    support: SandboxSupport,
    has_warned: Arc<AtomicBool>,
    logged_paths: LoggedPaths,
}

/// The program to start and the directories that belong to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Confined<'a> {
    /// The model file.
    pub program: &'a Path,
    /// What kind of program it is.
    pub kind: &'a ProgramKind,
    /// The directory of its socket.
    pub socket_dir: &'a Path,
    /// Its `HOME`, in which it may keep files.
    pub cache: &'a Path,
    /// Directories that it does not see, even where they are below one that it sees.
    pub hidden: &'a [PathBuf],
}

impl Sandbox {
    /// A sandbox of the kernel with this support.
    pub fn new(config: ModelSandboxConfig, support: SandboxSupport) -> Self {
        Self {
            config,
            support,
            has_warned: Arc::default(),
            logged_paths: LoggedPaths::default(),
        }
    }

    /// No restrictions.
    pub fn off() -> Self {
        let config = ModelSandboxConfig {
            mode: SandboxMode::Off,
            allow: Vec::new(),
        };
        Self::new(config, SandboxSupport::NONE)
    }

    /// Whether the model sees only the files that it needs, and so has a `HOME` of its own.
    pub(super) fn hides_files(&self) -> bool {
        self.is_on() && self.support.hides_files()
    }

    /// Whether models of this machine keep files beside themselves, where a sandbox does not let them write.
    pub(super) fn models_keep_files_beside_them(&self) -> bool {
        self.hides_files() && paths::has_tensorrt(Path::new("/"))
    }

    fn is_on(&self) -> bool {
        self.config.mode != SandboxMode::Off
    }

    /// What a model gets on this machine, as a sentence for `check`.
    pub fn describe(&self) -> String {
        if !self.is_on() {
            return "model_sandbox is off: the model can do what this program can".to_owned();
        }
        match self.support.missing() {
            None => "the model runs in a sandbox: its own files, accelerators and memory, no network".to_owned(),
            Some(missing) => format!("the sandbox of the model is incomplete: {missing}"),
        }
    }

    /// Starts the model.
    ///
    /// # Errors
    /// [`SandboxError`]
    pub(super) fn spawn(&self, mut command: Command, confined: Option<Confined<'_>>) -> Result<Child, SandboxError> {
        let Some(confined) = confined.filter(|_| self.is_on()) else {
            return Ok(spawn_when_not_busy(&mut command)?);
        };
        let filter = match confined.kind {
            // The numbers of its system calls differ, and the filter would end it at the first one.
            ProgramKind::Foreign { .. } => None,
            _ if !self.support.filters => None,
            _ => filter::program(self.support.landlock)?,
        };
        if let Some(missing) = self.missing(filter.is_some()) {
            if self.config.mode == SandboxMode::Strict {
                return Err(SandboxError::Incomplete(missing));
            }
            if !self.has_warned.swap(true, Ordering::Relaxed) {
                warn!(
                    missing,
                    "The sandbox of the model is incomplete, and what there is of it is used"
                );
            }
        }
        limits::apply(&mut command);
        let variables: Vec<_> = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        let grants = paths::grants(&confined, &self.config.allow, &variables, Path::new("/"));
        let hides_files = self.support.hides_files();
        let waiting = filter
            .as_ref()
            .filter(|_| hides_files)
            .and_then(|_| refusals::program());
        // Not a child of the restricted thread, which would wait for itself.
        let listeners = refusals::start_logging(grants.clone(), self.logged_paths.clone())?;
        let restrict = move || -> Result<(), SandboxError> {
            rustix::thread::set_no_new_privs(true).map_err(io::Error::from)?;
            if hides_files {
                files::restrict(&grants)?;
            }
            capabilities::drop_most()?;
            // Only the log misses something without it.
            if let Some(listener) = waiting.and_then(|waiting| Listener::install(&waiting).ok()) {
                let _ = listeners.send(listener);
            }
            filter.map_or(Ok(()), |filter| Ok(sandbox_calls::install_filter(&filter)?))
        };
        let start = thread::Builder::new().name("model-start".into()).spawn(move || {
            restrict()?;
            Ok(spawn_when_not_busy(&mut command)?)
        })?;
        start.join().unwrap_or_else(|_| Err(SandboxError::Panicked))
    }

    fn missing(&self, has_filter: bool) -> Option<String> {
        self.support.missing().or_else(|| {
            (!has_filter)
                .then(|| "it is a program for another instruction set, whose system calls are not filtered".to_owned())
        })
    }
}

/// Time for a file that was just written to become executable ("text file busy").
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two attempts.
const BUSY_PAUSE: Duration = Duration::from_millis(3);

fn spawn_when_not_busy(command: &mut Command) -> io::Result<Child> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match command.spawn() {
            // A thread that forks while the file is being written keeps it open for a moment.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                thread::sleep(BUSY_PAUSE);
            }
            other => return other,
        }
    }
}
