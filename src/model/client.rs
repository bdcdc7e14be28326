//! A client of the model protocol: the model process, the connection to it, requests and answers.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tracing::info;

use super::builtin;
use super::cache_dir::CacheDir;
use super::connection::{ModelConnection, ModelConnectionError, WaitProgress};
use super::error::ModelError;
use super::executable;
use super::file::{self, ModelFileError, ModelTarget};
use super::framing::excerpt;
use super::hello::{self, Hello};
use super::interrupt::Interrupt;
use super::lenient::cut;
use super::process::{ModelProcess, SegmentNames};
use super::request;
use super::runtime_dir::RuntimeDir;
use super::sandbox::{Confined, SandboxError};
use super::settings::{ModelSettings, ModelTimeouts};
use crate::config::ModelSource;
use crate::util::clock::rounded;
use crate::util::digest::sha256;

/// The steps that error messages name.
const STARTING: &str = "while it was starting";
const HELLO: &str = "when asked what it is";
pub(super) const WORKING: &str = "while it was working";

/// Pause between two attempts to connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(3);
/// Wait for an exit status after the connection was closed.
const EXIT_STATUS_TIMEOUT: Duration = Duration::from_millis(500);

/// The model process and the connection to it. Dropping it closes the connection, ends the process, and then removes
/// the directory and the segments of the process.
#[derive(Debug)]
pub(super) struct ModelClient {
    connection: ModelConnection,
    process: Option<ModelProcess>,
    directory: Option<RuntimeDir>,
    segment_names: SegmentNames,
    pub(super) timeouts: ModelTimeouts,
    /// The id of the last request.
    id: i32,
    /// Buffer of the next request, reused.
    pub(super) request: Vec<u8>,
}

impl ModelClient {
    /// Starts the process, unless the source is a socket, and connects.
    ///
    /// # Errors
    /// [`ModelError`]; nothing is left behind then.
    pub(super) fn open(settings: &ModelSettings, interrupt: &Interrupt) -> Result<Self, ModelError> {
        let create_directory =
            || RuntimeDir::create(&settings.run_bases, &settings.device).map_err(ModelError::RuntimeDir);
        let (program, arguments, mut directory): (PathBuf, Vec<String>, _) = match &settings.source {
            ModelSource::Builtin(name) => {
                builtin::check_name(name)?;
                let arguments = vec!["builtin-model".into(), name.clone()];
                (settings.builtin_program.clone(), arguments, create_directory()?)
            }
            ModelSource::File(path) => {
                let target = if settings.may_change_files {
                    executable::prepare(path, &settings.work_dir)?
                } else {
                    file::examine(path)?
                };
                if let (ModelTarget::Program(_), Some(expected)) = (&target, &settings.sha256) {
                    check_digest(path, expected)?;
                }
                match target {
                    ModelTarget::Socket(socket) => {
                        return Self::connect(&socket, None, None, settings.timeouts, interrupt);
                    }
                    ModelTarget::Program(program) if file::is_executable(&program) => {
                        (program, Vec::new(), create_directory()?)
                    }
                    ModelTarget::Program(program) => {
                        let (copy, directory) = copy_temporarily(&program, settings)?;
                        (copy, Vec::new(), directory)
                    }
                }
            }
        };
        let socket = directory.socket();
        let mut argv: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
        argv.push(socket.as_os_str());
        let process = Self::start_process(&program, &argv, &directory, settings)?;
        if let Some(pid) = process.pid() {
            directory.record_model(pid);
        }
        Self::connect(&socket, Some(process), Some(directory), settings.timeouts, interrupt)
    }

    fn start_process(
        program: &Path,
        arguments: &[&OsStr],
        directory: &RuntimeDir,
        settings: &ModelSettings,
    ) -> Result<ModelProcess, ModelError> {
        let started = || {
            let kind = file::kind(program)?;
            let cache = CacheDir::prepare(settings, directory.path());
            let may_keep_files = kind.is_native() && matches!(settings.source, ModelSource::File(_));
            let program = &*if may_keep_files && settings.sandbox.models_keep_files_beside_them() {
                cache.place(program)
            } else {
                program.to_owned()
            };
            let hidden = hidden_directories(&settings.work_dir);
            let confined = Confined {
                program,
                kind: &kind,
                socket_dir: directory.path(),
                cache: cache.path(),
                hidden: &hidden,
            };
            ModelProcess::start(program, arguments, &settings.sandbox, Some(confined))
        };
        started().map_err(|error| match error {
            SandboxError::Start(source) => ModelError::Spawn {
                path: program.to_owned(),
                source,
            },
            other => ModelError::Sandbox(other),
        })
    }

    fn connect(
        socket: &Path,
        mut process: Option<ModelProcess>,
        mut directory: Option<RuntimeDir>,
        timeouts: ModelTimeouts,
        interrupt: &Interrupt,
    ) -> Result<Self, ModelError> {
        let deadline = Instant::now() + timeouts.socket;
        let failed = loop {
            match ModelConnection::open(socket, interrupt) {
                Ok(connection) => {
                    return Ok(Self {
                        connection,
                        process,
                        directory,
                        segment_names: SegmentNames::Unknown,
                        timeouts,
                        id: 0,
                        request: Vec::new(),
                    });
                }
                Err(error) if is_not_listening_yet(&error) => {}
                Err(source) => {
                    break ModelError::Connect {
                        path: socket.to_owned(),
                        source,
                    };
                }
            }
            if let Some(status) = process.as_mut().and_then(|process| process.exit_status(Duration::ZERO)) {
                let output = last_lines(&process);
                break ModelError::Ended {
                    during: STARTING,
                    status: Some(status),
                    output,
                };
            }
            if Instant::now() >= deadline {
                break ModelError::NoSocket {
                    limit: timeouts.socket,
                    output: last_lines(&process),
                };
            }
            if interrupt.pause(CONNECT_PAUSE) {
                break ModelError::Interrupted;
            }
        };
        end(&mut process, &mut directory, SegmentNames::Unknown);
        Err(failed)
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(ModelProcess::pid)
    }

    pub(super) fn next_id(&mut self) -> i32 {
        self.id = if self.id == i32::MAX { 1 } else { self.id + 1 };
        self.id
    }

    /// Sends the content of `request`.
    pub(super) fn send(&mut self) -> Result<(), ModelError> {
        let limit = self.timeouts.classify;
        let sent = self.connection.send(&self.request, Instant::now() + limit);
        sent.map_err(|error| self.model_error(error, WORKING, limit))
    }

    /// Waits for an answer to a request that was sent `during` this step.
    pub(super) fn receive<T>(
        &mut self,
        during: &'static str,
        limit: Duration,
        progress: Option<WaitProgress<'_>>,
        parse: impl FnOnce(&[u8]) -> serde_json::Result<T>,
    ) -> Result<T, ModelError> {
        let parse = |frame: &[u8]| parse(frame).map_err(|error| format!("{:?} ({error})", excerpt(frame)));
        match self.connection.receive(Instant::now() + limit, progress, parse) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(what)) => Err(self.malformed(during, what)),
            Err(error) => Err(self.model_error(error, during, limit)),
        }
    }

    /// Sends the hello request and records the segments that the answer names.
    pub(super) fn hello(&mut self) -> Result<Hello, ModelError> {
        let id = self.next_id();
        request::hello(&mut self.request, id);
        self.send()?;
        let limit = self.timeouts.hello;
        let progress = WaitProgress {
            interval: self.timeouts.progress,
            report: &mut |waited| info!(waited = ?rounded(waited), "The model is loading"),
        };
        let answer: Map<String, Value> =
            self.receive(HELLO, limit, Some(progress), |frame| serde_json::from_slice(frame))?;
        if let Some(directory) = &mut self.directory {
            directory.record_segments(hello::segment_names(&answer));
        }
        self.segment_names = SegmentNames::Known;
        let failed = answer.get("success").and_then(Value::as_bool) != Some(true);
        self.check_id(answer.get("id").and_then(Value::as_i64), failed)?;
        Ok(hello::parse(answer)?)
    }

    /// Waits for an answer without a result.
    pub(super) fn receive_acknowledgement(&mut self, request: &'static str) -> Result<(), ModelError> {
        #[derive(serde::Deserialize)]
        struct Acknowledgement {
            id: Option<i64>,
            #[serde(default)]
            success: bool,
            #[serde(default)]
            error: Value,
        }
        let limit = self.timeouts.classify;
        let answer: Acknowledgement = self.receive(WORKING, limit, None, |frame| serde_json::from_slice(frame))?;
        self.check_id(answer.id, !answer.success)?;
        if answer.success {
            return Ok(());
        }
        let reason = answer.error.as_str().unwrap_or("no reason given");
        Err(ModelError::Refused {
            request,
            reason: cut(reason, 1024).to_owned(),
        })
    }

    /// An answer must have the id of its request; only an error may come without one.
    pub(super) fn check_id(&self, id: Option<i64>, failed: bool) -> Result<(), ModelError> {
        match id {
            Some(id) if id == i64::from(self.id) => Ok(()),
            None if failed => Ok(()),
            Some(id) => Err(self.malformed(WORKING, format!("an answer to request {id} instead of {}", self.id))),
            None => Err(self.malformed(WORKING, "an answer without an id".to_owned())),
        }
    }

    fn malformed(&self, during: &'static str, what: String) -> ModelError {
        ModelError::Malformed {
            during,
            what,
            output: last_lines(&self.process),
        }
    }

    /// Adds what is known about the process to an error of the connection.
    fn model_error(&mut self, error: ModelConnectionError, during: &'static str, limit: Duration) -> ModelError {
        match error {
            ModelConnectionError::Interrupted => ModelError::Interrupted,
            ModelConnectionError::TimedOut => ModelError::TimedOut {
                during,
                limit,
                output: last_lines(&self.process),
            },
            ModelConnectionError::Malformed(what) => self.malformed(during, what.to_string()),
            ModelConnectionError::Closed => {
                let process = self.process.as_mut();
                ModelError::Ended {
                    during,
                    status: process.and_then(|process| process.exit_status(EXIT_STATUS_TIMEOUT)),
                    output: last_lines(&self.process),
                }
            }
        }
    }
}

impl Drop for ModelClient {
    fn drop(&mut self) {
        self.connection.close();
        end(&mut self.process, &mut self.directory, self.segment_names);
    }
}

/// Refuses a file that is not the one that was downloaded.
fn check_digest(path: &Path, expected: &str) -> Result<(), ModelError> {
    let got = sha256(path).map_err(|source| ModelFileError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    if got == expected {
        return Ok(());
    }
    Err(ModelError::Changed {
        path: path.to_owned(),
        got,
        expected: expected.to_owned(),
    })
}

/// What a model must not read, even where it is below a directory of the system.
fn hidden_directories(work_dir: &Path) -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let directories = [Some(work_dir.to_owned()), home, Some("/greengrass".into())];
    let existing = directories
        .into_iter()
        .flatten()
        .filter_map(|path| fs::canonicalize(path).ok());
    existing.filter(|path| path != Path::new("/")).collect()
}

/// An executable copy of a model file in a new runtime directory.
///
/// # Errors
/// [`ModelFileError`](file::ModelFileError) where `run` could not make the file executable either, and
/// [`ModelError::NoTemporaryCopy`].
fn copy_temporarily(program: &Path, settings: &ModelSettings) -> Result<(PathBuf, RuntimeDir), ModelError> {
    executable::check_can_become_executable(program, &settings.work_dir)?;
    let mut last = io::Error::from(io::ErrorKind::PermissionDenied);
    for base in &settings.run_bases {
        let copied = RuntimeDir::create(std::slice::from_ref(base), &settings.device)
            .and_then(|directory| Ok((executable::copy_executable(program, directory.path())?, directory)));
        match copied {
            Ok(copied) => return Ok(copied),
            Err(error) => last = error,
        }
    }
    Err(ModelError::NoTemporaryCopy(last))
}

/// Ends the process, then removes its directory and its segments, including those that it has not named yet.
fn end(process: &mut Option<ModelProcess>, directory: &mut Option<RuntimeDir>, segment_names: SegmentNames) {
    let found = process.take().map(|mut process| process.end(segment_names));
    // After the end of the process, which could create them again.
    if let Some(mut directory) = directory.take() {
        directory.record_segments(found.into_iter().flatten());
    }
}

fn last_lines(process: &Option<ModelProcess>) -> Vec<String> {
    process.as_ref().map(ModelProcess::last_lines).unwrap_or_default()
}

fn is_not_listening_yet(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, NotFound, WouldBlock};
    matches!(error.kind(), ConnectionRefused | Interrupted | NotFound | WouldBlock)
}
