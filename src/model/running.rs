//! A model that runs: started, asked, ended.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tracing::{debug, info, warn};

use super::answer::{self, Answer};
use super::connection::{Connection, ConnectionError, Progress};
use super::error::ModelError;
use super::file::{self, Usable};
use super::framing::excerpt;
use super::hello::{self, Hello, MAX_FEATURES};
use super::interrupt::Interrupt;
use super::process::{Memory, Process};
use super::protocol::{InferenceResult, ModelInfo, ModelInput};
use super::runtime_dir::RuntimeDir;
use super::settings::{Limits, Settings};
use super::{builtin, request, shm};
use crate::config::{ModelSource, ShmBehavior, Threshold};
use crate::status::stats::Stats;

const STARTING: &str = "while it was starting";
const HELLO: &str = "when asked what it is";
const WORKING: &str = "while it was working";

/// How often a socket that is not there yet is tried.
const CONNECT_PAUSE: Duration = Duration::from_millis(3);
/// How long an exit status is waited for after the connection was closed.
const STATUS: Duration = Duration::from_millis(500);

/// A model process, or a connection to one that somebody else started. Dropping it ends the process.
#[derive(Debug)]
pub struct Model {
    link: Link,
    info: Arc<ModelInfo>,
    /// The segment of the model, when it is used.
    shm: Option<shm::Features>,
    /// Features that go as JSON: all without a segment, else those too many for it.
    private: Vec<f32>,
    /// Whether the features handed out last are in `private`.
    use_private: bool,
    freeform: Vec<shm::Output>,
    stats: Arc<Stats>,
}

/// The connection with what belongs to its other end. Fields are dropped in this order: the connection is closed, the
/// process ends, then its directory and segments are removed.
#[derive(Debug)]
struct Link {
    connection: Connection,
    process: Option<Process>,
    directory: Option<RuntimeDir>,
    /// Whether the shared memory of the process is known.
    memory: Memory,
    limits: Limits,
    /// The request being answered.
    id: i32,
    /// Reused for every request.
    request: Vec<u8>,
}

impl Model {
    /// Starts the model (or connects to a running one), asks what it is, opens its shared memory and sets thresholds.
    /// Where [`ModelInfo::slow_first_inference`] is set, [`warm_up`](Self::warm_up) comes next.
    ///
    /// # Errors
    /// [`ModelError`]; nothing is left behind then.
    pub fn start(settings: &Settings, interrupt: &Interrupt) -> Result<Self, ModelError> {
        let mut link = Link::open(settings, interrupt)?;
        let hello = link.hello()?;
        let (shm, freeform) = open_shm(settings.shm, &hello)?;
        let mut model = Self {
            link,
            info: Arc::new(hello.info),
            shm,
            private: Vec::new(),
            use_private: false,
            freeform,
            stats: Arc::clone(&settings.stats),
        };
        model.set_thresholds(&settings.thresholds)?;
        Ok(model)
    }

    /// Starts the model, asks what it is, and ends it.
    ///
    /// # Errors
    /// [`ModelError`]; nothing is left behind either way.
    pub fn ask(settings: &Settings, interrupt: &Interrupt) -> Result<ModelInfo, ModelError> {
        Ok(Link::open(settings, interrupt)?.hello()?.info)
    }

    /// What the model said about itself.
    pub fn info(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    /// Room for the values of one request ([`ModelInfo::features`]): the model's own memory when it shares it. Write
    /// it only between [`receive`](Self::receive) and [`send`](Self::send), the model reads it in between.
    pub fn features(&mut self) -> &mut [f32] {
        let elements = self.info.features;
        self.room(elements)
    }

    /// Room for another number of values, after [`set_parameter`](Self::set_parameter) changed what the model takes.
    /// More than the model's memory holds go as JSON.
    ///
    /// # Errors
    /// More than 64 Mi values.
    pub fn features_for(&mut self, elements: usize) -> Result<&mut [f32], ModelError> {
        match u64::try_from(elements) {
            Ok(wanted) if wanted <= MAX_FEATURES => Ok(self.room(elements)),
            _ => Err(ModelError::TooManyValues {
                elements,
                accepted: MAX_FEATURES as usize,
            }),
        }
    }

    fn room(&mut self, elements: usize) -> &mut [f32] {
        let shared = self
            .shm
            .as_mut()
            .map(shm::Features::values)
            .filter(|values| values.len() >= elements);
        self.use_private = shared.is_none();
        match shared {
            Some(values) => &mut values[..elements],
            None => {
                if self.private.len() < elements {
                    self.private.resize(elements, 0.0);
                }
                &mut self.private[..elements]
            }
        }
    }

    /// Asks the model to classify the first `elements` values of [`features`](Self::features). For an audio model in
    /// continuous mode `elements` is the slice size. Exactly one [`receive`](Self::receive) must follow.
    ///
    /// # Errors
    /// [`ModelError`]; see [`ModelError::is_fatal`].
    pub fn send(&mut self, elements: usize) -> Result<(), ModelError> {
        let continuous =
            matches!(self.info.input, ModelInput::Audio { continuous: true, slice_size, .. } if slice_size == elements);
        let id = self.link.next_id();
        let request = &mut self.link.request;
        match &mut self.shm {
            Some(shared) if !self.use_private => {
                let accepted = shared.values().len();
                if elements > accepted {
                    return Err(ModelError::TooManyValues { elements, accepted });
                }
                request::classify_shm(request, id, elements, continuous);
            }
            _ => {
                let accepted = self.private.len();
                let features = self
                    .private
                    .get(..elements)
                    .ok_or(ModelError::TooManyValues { elements, accepted })?;
                request::classify(request, id, features, continuous);
            }
        }
        self.link.send()
    }

    /// Waits for the answer to [`send`](Self::send).
    ///
    /// # Errors
    /// [`ModelError`]; see [`ModelError::is_fatal`].
    pub fn receive(&mut self) -> Result<InferenceResult, ModelError> {
        let limit = self.link.limits.classify;
        self.receive_within(limit, None)
    }

    /// [`send`](Self::send) and [`receive`](Self::receive).
    ///
    /// # Errors
    /// As those.
    pub fn classify(&mut self, elements: usize) -> Result<InferenceResult, ModelError> {
        self.send(elements)?;
        self.receive()
    }

    /// Sets one key of one block, as `--thresholds` does.
    ///
    /// # Errors
    /// [`ModelError::Refused`] with the model's words, [`ModelError::Unsendable`], or a fatal one.
    pub fn set_threshold(&mut self, threshold: &Threshold) -> Result<(), ModelError> {
        let Threshold { id: block, key, value } = threshold;
        let id = self.link.next_id();
        request::set_threshold(&mut self.link.request, id, *block, key, *value)
            .ok_or_else(|| ModelError::Unsendable(format!("threshold {block}.{key}={value}")))?;
        self.link.send()?;
        self.link.acknowledged("a threshold")
    }

    /// Sets these thresholds; one that the model refuses is told in the log.
    ///
    /// # Errors
    /// A fatal one.
    pub fn set_thresholds(&mut self, thresholds: &[Threshold]) -> Result<(), ModelError> {
        for threshold in thresholds {
            match self.set_threshold(threshold) {
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => warn!(
                    "threshold {}.{}: {error}; this model has {}",
                    threshold.id,
                    threshold.key,
                    thresholds_of(&self.info)
                ),
                Ok(()) => debug!("threshold {}.{} is {}", threshold.id, threshold.key, threshold.value),
            }
        }
        Ok(())
    }

    /// Sets parameters of the model, e.g. `image_resize_mode`. Many models refuse.
    ///
    /// # Errors
    /// As [`set_threshold`](Self::set_threshold).
    pub fn set_parameter(&mut self, parameters: &Map<String, Value>) -> Result<(), ModelError> {
        let id = self.link.next_id();
        request::set_parameter(&mut self.link.request, id, parameters)
            .ok_or_else(|| ModelError::Unsendable(Value::Object(parameters.clone()).to_string()))?;
        self.link.send()?;
        self.link.acknowledged("a parameter")
    }

    /// The process, when it is ours and was not reaped.
    pub fn pid(&self) -> Option<u32> {
        self.link.process.as_ref().and_then(Process::pid)
    }

    /// Whether features go through shared memory.
    pub fn uses_shared_memory(&self) -> bool {
        self.shm.is_some()
    }

    /// Ends the process: the connection is closed, SIGINT, SIGKILL after a second; then its shared memory and its
    /// directory are removed. A model that somebody else started only loses the connection.
    pub fn stop(self) {
        drop(self);
    }

    fn receive_within(
        &mut self,
        limit: Duration,
        progress: Option<Progress<'_>>,
    ) -> Result<InferenceResult, ModelError> {
        let answer = self.link.receive(WORKING, limit, progress, answer::parse)?;
        self.accept(answer)
    }

    /// [`classify`](Self::classify), with `timing` exactly as the model sent it: the answer is read twice, so not for
    /// frame after frame.
    ///
    /// # Errors
    /// As [`classify`](Self::classify).
    pub fn classify_with_timing(&mut self, elements: usize) -> Result<(InferenceResult, Value), ModelError> {
        self.send(elements)?;
        let limit = self.link.limits.classify;
        let mut timing = Value::Null;
        let answer = self.link.receive(WORKING, limit, None, |frame| {
            timing = answer::timing(frame);
            answer::parse(frame)
        })?;
        Ok((self.accept(answer)?, timing))
    }

    /// Takes the result out of an answer, with what is in shared memory.
    fn accept(&mut self, answer: Answer) -> Result<InferenceResult, ModelError> {
        let Answer {
            id,
            result,
            freeform_in_shm,
            mut cleaned,
        } = answer;
        self.link.check_id(id, result.is_err())?;
        let mut result = result.map_err(|reason| ModelError::Refused {
            request: "the features",
            reason,
        })?;
        if freeform_in_shm {
            if self.freeform.is_empty() {
                cleaned += 1;
            } else {
                result.freeform = Some(
                    self.freeform
                        .iter()
                        .map(|output| finite(output.copy(), &mut cleaned))
                        .collect(),
                );
            }
        }
        self.stats.answers_cleaned.add(cleaned);
        Ok(result)
    }

    /// Asks for a first answer and waits very long for it, with progress in the log: engines for GPUs build themselves
    /// then (TensorRT takes many minutes).
    ///
    /// # Errors
    /// [`ModelError`], when the model is of no use any more.
    pub fn warm_up(&mut self) -> Result<(), ModelError> {
        info!("the first answer of this model may take very long (up to an hour); it is asked for now");
        let elements = self.info.features;
        self.room(elements).fill(0.0);
        self.send(elements)?;
        let Limits {
            slow_first,
            progress: interval,
            ..
        } = self.link.limits;
        let mut report =
            |waited: Duration| info!("the model is preparing its first answer, {} s so far", waited.as_secs());
        let begin = Instant::now();
        match self.receive_within(
            slow_first,
            Some(Progress {
                interval,
                report: &mut report,
            }),
        ) {
            Ok(_) => info!("the model is ready after {:.1} s", begin.elapsed().as_secs_f64()),
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => warn!("the model's first answer: {error}"),
        }
        Ok(())
    }
}

fn thresholds_of(info: &ModelInfo) -> String {
    match info.thresholds_in_words() {
        none if none.is_empty() => "none that can be set".to_owned(),
        words => words.join(", "),
    }
}

fn finite(mut values: Vec<f32>, cleaned: &mut u64) -> Vec<f32> {
    for value in values.iter_mut().filter(|value| !value.is_finite()) {
        *value = 0.0;
        *cleaned += 1;
    }
    values
}

/// The segments of a hello, as far as they are wanted and usable.
fn open_shm(behavior: ShmBehavior, hello: &Hello) -> Result<(Option<shm::Features>, Vec<shm::Output>), ModelError> {
    if behavior == ShmBehavior::Never || matches!(hello.info.input, ModelInput::Unsupported(_)) {
        return Ok((None, Vec::new()));
    }
    let opened = match (&hello.features_shm, &hello.features_shm_error) {
        (Some(segment), _) if !segment.is_float32 => Err("the model's shared memory does not hold float32".to_owned()),
        (Some(segment), _) if segment.elements < hello.info.features as u64 => Err(format!(
            "the model's shared memory holds {} values of {}",
            segment.elements, hello.info.features
        )),
        (Some(segment), _) if segment.size_bytes / 4 < segment.elements => Err(format!(
            "the model's shared memory has {} bytes for {} values",
            segment.size_bytes, segment.elements
        )),
        (Some(segment), _) => shm::Features::open(&segment.name, segment.elements).map_err(|error| error.to_string()),
        (None, Some(error)) => Err(format!("the model has no shared memory: {error}")),
        (None, None) if behavior == ShmBehavior::Auto => return Ok((None, Vec::new())),
        (None, None) => Err("the model has no shared memory (built before 2025?)".to_owned()),
    };
    let features = match opened {
        Ok(features) => features,
        Err(reason) if behavior == ShmBehavior::Always => return Err(ModelError::SharedMemory(reason)),
        Err(reason) => {
            warn!("{reason}; the features are sent as JSON, which is slower");
            return Ok((None, Vec::new()));
        }
    };
    let outputs = hello
        .freeform_shm
        .iter()
        .map(|segment| shm::Output::open(&segment.name, segment.elements));
    match outputs.collect() {
        Ok(outputs) => Ok((Some(features), outputs)),
        // With JSON requests the values come in the answer.
        Err(error) if behavior == ShmBehavior::Always => Err(ModelError::SharedMemory(error.to_string())),
        Err(error) => {
            warn!("{error}; features and results are sent as JSON, which is slower");
            Ok((None, Vec::new()))
        }
    }
}

impl Link {
    /// Starts the process, if there is one to start, and connects.
    fn open(settings: &Settings, interrupt: &Interrupt) -> Result<Self, ModelError> {
        let (program, arguments): (PathBuf, Vec<String>) = match &settings.source {
            ModelSource::Builtin(name) => {
                builtin::check_name(name)?;
                (
                    settings.builtin_program.clone(),
                    vec!["builtin-model".into(), name.clone()],
                )
            }
            ModelSource::File(path) => match file::check(path, &settings.work_dir)? {
                Usable::Program(program) => (program, Vec::new()),
                Usable::Socket(socket) => return Self::connect(&socket, None, None, settings.limits, interrupt),
            },
        };
        let mut directory =
            RuntimeDir::create(&settings.run_bases, &settings.device).map_err(ModelError::RuntimeDir)?;
        let socket = directory.socket();
        let mut words: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
        words.push(socket.as_os_str());
        let process = Process::start(&program, &words).map_err(|source| ModelError::Spawn { path: program, source })?;
        if let Some(pid) = process.pid() {
            directory.note_model(pid);
        }
        Self::connect(&socket, Some(process), Some(directory), settings.limits, interrupt)
    }

    fn connect(
        socket: &Path,
        mut process: Option<Process>,
        mut directory: Option<RuntimeDir>,
        limits: Limits,
        interrupt: &Interrupt,
    ) -> Result<Self, ModelError> {
        let deadline = Instant::now() + limits.socket;
        let failed = loop {
            match Connection::open(socket, interrupt) {
                Ok(connection) => {
                    return Ok(Self {
                        connection,
                        process,
                        directory,
                        memory: Memory::LookFor,
                        limits,
                        id: 0,
                        request: Vec::new(),
                    });
                }
                Err(error) if is_not_there_yet(&error) => {}
                Err(source) => {
                    break ModelError::Connect {
                        path: socket.to_owned(),
                        source,
                    };
                }
            }
            if let Some(status) = process.as_mut().and_then(|process| process.ended(Duration::ZERO)) {
                let output = last_lines(&process);
                break ModelError::Ended {
                    during: STARTING,
                    status: Some(status),
                    output,
                };
            }
            if Instant::now() >= deadline {
                break ModelError::NoSocket {
                    limit: limits.socket,
                    output: last_lines(&process),
                };
            }
            if interrupt.pause(CONNECT_PAUSE) {
                break ModelError::Interrupted;
            }
        };
        end(&mut process, &mut directory, Memory::LookFor);
        Err(failed)
    }

    fn next_id(&mut self) -> i32 {
        self.id = if self.id == i32::MAX { 1 } else { self.id + 1 };
        self.id
    }

    /// Sends what is in `request`.
    fn send(&mut self) -> Result<(), ModelError> {
        let limit = self.limits.classify;
        match self.connection.send(&self.request, Instant::now() + limit) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.explain(error, WORKING, limit)),
        }
    }

    fn receive<T>(
        &mut self,
        during: &'static str,
        limit: Duration,
        progress: Option<Progress<'_>>,
        parse: impl FnOnce(&[u8]) -> serde_json::Result<T>,
    ) -> Result<T, ModelError> {
        let parse = |frame: &[u8]| parse(frame).map_err(|error| format!("{:?} ({error})", excerpt(frame)));
        match self.connection.receive(Instant::now() + limit, progress, parse) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(what)) => Err(self.nonsense(during, what)),
            Err(error) => Err(self.explain(error, during, limit)),
        }
    }

    fn hello(&mut self) -> Result<Hello, ModelError> {
        let id = self.next_id();
        request::hello(&mut self.request, id);
        self.send()?;
        let limit = self.limits.hello;
        let mut report = |waited: Duration| info!("the model is loading, {} s so far", waited.as_secs());
        let progress = Progress {
            interval: self.limits.progress,
            report: &mut report,
        };
        let answer: Map<String, Value> =
            self.receive(HELLO, limit, Some(progress), |frame| serde_json::from_slice(frame))?;
        if let Some(directory) = &mut self.directory {
            directory.note_segments(hello::segment_names(&answer));
        }
        self.memory = Memory::Named;
        let failed = answer.get("success").and_then(Value::as_bool) != Some(true);
        self.check_id(answer.get("id").and_then(Value::as_i64), failed)?;
        Ok(hello::parse(answer)?)
    }

    /// Waits for a plain yes or no.
    fn acknowledged(&mut self, request: &'static str) -> Result<(), ModelError> {
        #[derive(serde::Deserialize)]
        struct Acknowledgement {
            id: Option<i64>,
            #[serde(default)]
            success: bool,
            #[serde(default)]
            error: Value,
        }
        let limit = self.limits.classify;
        let answer: Acknowledgement = self.receive(WORKING, limit, None, |frame| serde_json::from_slice(frame))?;
        self.check_id(answer.id, !answer.success)?;
        if answer.success {
            return Ok(());
        }
        let reason = answer.error.as_str().unwrap_or("no reason given");
        Err(ModelError::Refused {
            request,
            reason: answer::cut(reason, 1024).to_owned(),
        })
    }

    /// An answer must carry the id of its request; only an error may come without one.
    fn check_id(&self, id: Option<i64>, failed: bool) -> Result<(), ModelError> {
        match id {
            Some(id) if id == i64::from(self.id) => Ok(()),
            None if failed => Ok(()),
            Some(id) => Err(self.nonsense(WORKING, format!("an answer to request {id} instead of {}", self.id))),
            None => Err(self.nonsense(WORKING, "an answer without an id".to_owned())),
        }
    }

    fn nonsense(&self, during: &'static str, what: String) -> ModelError {
        ModelError::Nonsense {
            during,
            what,
            output: last_lines(&self.process),
        }
    }

    fn explain(&mut self, error: ConnectionError, during: &'static str, limit: Duration) -> ModelError {
        match error {
            ConnectionError::Interrupted => ModelError::Interrupted,
            ConnectionError::TimedOut => ModelError::Silent {
                during,
                limit,
                output: last_lines(&self.process),
            },
            ConnectionError::Nonsense(what) => self.nonsense(during, what.to_string()),
            ConnectionError::Closed => {
                let status = self.process.as_mut().and_then(|process| process.ended(STATUS));
                ModelError::Ended {
                    during,
                    status,
                    output: last_lines(&self.process),
                }
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.close();
        end(&mut self.process, &mut self.directory, self.memory);
    }
}

/// Ends the process and removes what it leaves, also the memory of one that did not live to name it.
fn end(process: &mut Option<Process>, directory: &mut Option<RuntimeDir>, memory: Memory) {
    let held = process.take().map(|mut process| process.end(memory));
    // Only now: what the directory removes must not be made again by the process.
    if let Some(mut directory) = directory.take() {
        directory.note_segments(held.into_iter().flatten());
    }
}

fn last_lines(process: &Option<Process>) -> Vec<String> {
    process.as_ref().map(Process::last_lines).unwrap_or_default()
}

fn is_not_there_yet(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, NotFound, WouldBlock};
    matches!(error.kind(), ConnectionRefused | Interrupted | NotFound | WouldBlock)
}
