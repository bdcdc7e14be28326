//! The server side of the model protocol: one client, one request at a time.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::{Map, Value, json};

use super::detectors;
use super::error::BuiltinError;
use super::kind::{BuiltinKind, Fault, Task};
use crate::model::framing::{MAX_ANSWER, Splitter};
use crate::model::shm::{OwnedSegment, ShmError};

/// The process ends when no client connects within this time.
const WAIT_FOR_CLIENT: Duration = Duration::from_secs(60);
/// The block id of the ball detector's threshold.
const BLOCK: i64 = 1;

/// Binds `socket` and serves the one client.
pub fn serve(kind: &BuiltinKind, socket: &Path) -> Result<(), BuiltinError> {
    let failed = |source| BuiltinError::Socket {
        path: socket.to_owned(),
        source,
    };
    let mut server = Server::new(kind);
    match fs::remove_file(socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(failed)?;
    let Some(client) = accept(&listener).map_err(failed)? else {
        return Ok(());
    };
    drop(listener);
    match server.serve(&client) {
        // The normal end: the client has disconnected.
        Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => Err(failed(error)),
        _ => Ok(()),
    }
}

fn accept(listener: &UnixListener) -> io::Result<Option<UnixStream>> {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let timeout = Timespec::try_from(WAIT_FOR_CLIENT).ok();
    match poll(&mut fds, timeout.as_ref())? {
        0 => Ok(None),
        _ => listener.accept().map(|(client, _)| Some(client)),
    }
}

/// The features of a request.
struct Features {
    values: Vec<f32>,
    /// The shared memory for them, or the reason why there is none.
    segment: Result<OwnedSegment, ShmError>,
}

impl Features {
    fn new(elements: usize) -> Self {
        Self {
            values: vec![0.0; elements],
            segment: OwnedSegment::new(elements),
        }
    }

    /// Reads the first values from shared memory.
    fn read(&mut self, elements: usize) -> Result<(), String> {
        let segment = self.segment.as_ref().map_err(ToString::to_string)?;
        let values = &mut self.values[..elements];
        segment.segment.read(values).map_err(|error| error.to_string())
    }
}

struct Server<'a> {
    kind: &'a BuiltinKind,
    features: Features,
    has_hello: bool,
    answers: u64,
    min_score: f64,
    /// The last second of audio, slice by slice.
    recent_samples: VecDeque<f32>,
}

/// The answer to a request.
enum BuiltinReply {
    Json(Value),
    Raw(&'static [u8]),
    Nothing,
}

impl<'a> Server<'a> {
    fn new(kind: &'a BuiltinKind) -> Self {
        Self {
            kind,
            features: Features::new(kind.features()),
            has_hello: false,
            answers: 0,
            min_score: 0.5,
            recent_samples: VecDeque::new(),
        }
    }

    fn serve(&mut self, mut client: &UnixStream) -> io::Result<()> {
        let mut splitter = Splitter::new(MAX_ANSWER);
        let mut text = Vec::new();
        while splitter.fill(client)? > 0 {
            loop {
                let request = match splitter.next_object() {
                    Ok(Some(request)) => serde_json::from_slice(request),
                    Ok(None) => break,
                    Err(error) => return Err(io::Error::new(ErrorKind::InvalidData, error)),
                };
                let begin = Instant::now();
                text.clear();
                match request.map_or_else(
                    |error| failure(None, &error.to_string()),
                    |request| self.answer(request),
                ) {
                    BuiltinReply::Json(mut answer) => {
                        if let Some(timing) = answer.get_mut("timing") {
                            timing["classification"] = (begin.elapsed().as_millis() as u64).into();
                        }
                        serde_json::to_writer(&mut text, &answer)?;
                        text.extend_from_slice(b"\n\0");
                    }
                    BuiltinReply::Raw(bytes) => text.extend_from_slice(bytes),
                    BuiltinReply::Nothing => {}
                }
                client.write_all(&text)?;
            }
        }
        Ok(())
    }

    fn answer(&mut self, request: Map<String, Value>) -> BuiltinReply {
        let Some(id) = request.get("id").and_then(Value::as_i64) else {
            return failure(None, "Missing 'id' field");
        };
        if request.contains_key("hello") {
            return self.hello(id);
        }
        if !self.has_hello {
            return failure(Some(id), "The first message should be 'hello'");
        }
        if let Some(threshold) = request.get("set_threshold") {
            return self.set_threshold(id, threshold);
        }
        for (key, continuous) in [("classify_shm", false), ("classify_continuous_shm", true)] {
            if let Some(elements) = request.get(key) {
                // The client has opened the segment: from now on nothing can be left behind.
                if let Ok(segment) = &mut self.features.segment {
                    segment.unlink();
                }
                let elements = elements.get("elements").and_then(Value::as_u64).unwrap_or(0) as usize;
                return self.classify(id, elements, continuous, true);
            }
        }
        for (key, continuous) in [("classify", false), ("classify_continuous", true)] {
            if let Some(Value::Array(features)) = request.get(key) {
                for (value, feature) in self.features.values.iter_mut().zip(features) {
                    *value = feature.as_f64().unwrap_or(0.0) as f32;
                }
                return self.classify(id, features.len(), continuous, false);
            }
        }
        failure(Some(id), "Failed to handle message")
    }

    fn hello(&mut self, id: i64) -> BuiltinReply {
        if std::mem::replace(&mut self.has_hello, true) {
            return failure(Some(id), "'hello' was sent before");
        }
        let kind = self.kind;
        let features = kind.features();
        let mut answer = json!({
            "id": id,
            "success": true,
            "project": { "id": 0, "name": format!("builtin:{}", kind.name), "owner": "ei-greengrass", "deploy_version": 1 },
            "inferencing_engine": { "engine_type": 0, "properties": [] },
            "model_parameters": parameters(kind, self.min_score),
        });
        match &self.features.segment {
            Ok(segment) => {
                answer["features_shm"] = json!({
                    "name": segment.name(), "size_bytes": features * 4, "type": "float32", "elements": features,
                });
            }
            Err(error) => answer["features_shm_error"] = error.to_string().into(),
        }
        BuiltinReply::Json(answer)
    }

    fn set_threshold(&mut self, id: i64, threshold: &Value) -> BuiltinReply {
        let min_score = threshold.get("min_score").and_then(Value::as_f64);
        match (threshold.get("id").and_then(Value::as_i64), min_score) {
            (Some(BLOCK), Some(min_score)) if self.kind.task == Task::Ball => {
                self.min_score = min_score;
                BuiltinReply::Json(json!({ "id": id, "success": true }))
            }
            _ => failure(Some(id), "set_threshold: no such block or key"),
        }
    }

    fn classify(&mut self, id: i64, elements: usize, continuous: bool, is_shared: bool) -> BuiltinReply {
        let expected = if continuous {
            BuiltinKind::SLICE
        } else {
            self.kind.features()
        };
        if continuous && self.kind.task != Task::Tone {
            return failure(Some(id), "This model has no continuous mode");
        }
        if elements != expected {
            return failure(
                Some(id),
                &format!("Invalid number of features: {elements} instead of {expected}"),
            );
        }
        match self.kind.fault {
            Fault::Crash(answers) if self.answers >= answers => abort(),
            Fault::Hang(answers) if self.answers >= answers => return BuiltinReply::Nothing,
            Fault::Garbage => return BuiltinReply::Raw(b"\x07\xffthis is not what a model says}\n\0"),
            _ => {}
        }
        // The model `nop` does not read its features.
        if is_shared
            && self.kind.task != Task::Nothing
            && let Err(error) = self.features.read(elements)
        {
            return failure(Some(id), &error);
        }
        self.answers += 1;
        std::thread::sleep(self.kind.delay);
        let result = self.result(continuous);
        let timing = json!({ "dsp": 0, "classification": 0, "anomaly": 0 });
        BuiltinReply::Json(json!({ "id": id, "success": true, "result": result, "timing": timing }))
    }

    fn result(&mut self, continuous: bool) -> Value {
        let (kind, features) = (self.kind, self.features.values.as_slice());
        match kind.task {
            Task::Nothing => {
                let (width, height) = (kind.width.div_ceil(2), kind.height.div_ceil(2));
                json!({ "bounding_boxes": [{ "label": "ball", "value": 0.875, "x": 0, "y": 0, "width": width, "height": height }] })
            }
            Task::Ball => {
                let found = detectors::ball(features, kind.width).filter(|found| found.value >= self.min_score);
                json!({ "bounding_boxes": found.into_iter().collect::<Vec<_>>() })
            }
            Task::Quarter => scores(kind, &detectors::quarters(features, kind.width)),
            Task::Tone if continuous => {
                let missing = BuiltinKind::FREQUENCY - BuiltinKind::SLICE;
                let surplus = self.recent_samples.len().saturating_sub(missing);
                self.recent_samples.drain(..surplus);
                self.recent_samples.extend(&features[..BuiltinKind::SLICE]);
                // As in real models: all scores are 0 before a whole window has arrived.
                match self.recent_samples.len() {
                    BuiltinKind::FREQUENCY => tone_scores(kind, detectors::tone(self.recent_samples.iter().copied())),
                    _ => scores(kind, &[0.0, 0.0]),
                }
            }
            Task::Tone => tone_scores(kind, detectors::tone(features.iter().copied())),
        }
    }
}

fn tone_scores(kind: &BuiltinKind, tone: f64) -> Value {
    scores(kind, &[tone, 1.0 - tone])
}

fn scores(kind: &BuiltinKind, values: &[f64]) -> Value {
    let labels = kind.labels().iter().map(|label| (*label).to_owned());
    let scores: Map<String, Value> = labels.zip(values.iter().map(|value| Value::from(*value))).collect();
    json!({ "classification": scores })
}

fn parameters(kind: &BuiltinKind, min_score: f64) -> Value {
    let is_audio = kind.task == Task::Tone;
    let has_boxes = matches!(kind.task, Task::Ball | Task::Nothing);
    let picture = |value: usize| if is_audio { 0 } else { value };
    let mut thresholds = Vec::new();
    if kind.task == Task::Ball {
        thresholds.push(json!({ "id": BLOCK, "type": "object_detection", "min_score": min_score }));
    }
    json!({
        "axis_count": 1,
        "frequency": if is_audio { BuiltinKind::FREQUENCY } else { 0 },
        "has_anomaly": 0,
        "has_object_tracking": false,
        "image_channel_count": picture(if kind.grey { 1 } else { 3 }),
        "image_input_frames": picture(1),
        "image_input_height": picture(kind.height),
        "image_input_width": picture(kind.width),
        "image_resize_mode": if is_audio { "none" } else { "fit-shortest" },
        "inferencing_engine": 0,
        "input_features_count": kind.features(),
        "interval_ms": if is_audio { 1000.0 / BuiltinKind::FREQUENCY as f64 } else { 1.0 },
        "label_count": kind.labels().len(),
        "labels": kind.labels(),
        "model_type": if has_boxes { "object_detection" } else { "classification" },
        "sensor": if is_audio { 1 } else { 3 },
        "slice_size": if is_audio { BuiltinKind::SLICE } else { kind.features() / 4 },
        "thresholds": thresholds,
        "use_continuous_mode": is_audio,
    })
}

fn failure(id: Option<i64>, error: &str) -> BuiltinReply {
    // As in real models: a failure about the id comes without one.
    let mut answer = json!({ "success": false, "error": error });
    if let Some(id) = id {
        answer["id"] = id.into();
    }
    BuiltinReply::Json(answer)
}

/// Ends the process as a failed assertion does, without a core file.
fn abort() -> ! {
    let _ = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    );
    eprintln!("builtin:crash: Assertion `the model is well' failed.");
    std::process::abort()
}
