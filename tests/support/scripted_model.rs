//! A small `.eim` with answers from a script. It shares no code with the program under test.
//!
//! A test copies it to `<somewhere>/model.eim` and writes its script to `<somewhere>/model.eim.json`:
//!
//! ```json
//! {
//!   "hello": { "model_parameters": {...}, ... },  // merged over the default: a 4x4 RGB object detector
//!   "answers": [ ... ],           // one for each classify request, in order
//!   "repeat": "last",             // after the last answer: "last" (default) or "cycle"
//!   "shm": true,                  // offer shared memory for the features (default true)
//!   "shm_elements": 16,           // its size in values (default input_features_count)
//!   "freeform_shm": [[0.5]],      // offer one output segment for each list, holding these values
//!   "thresholds": { "ok": true }, // the answer to set_threshold; default success. { "exit": 1 } ends the process instead
//!   "parameters": { "ok": true }, // the answer to set_parameter; default "Failed to handle message"
//!   "stdout": ["line"], "stderr": ["line"],   // printed at start
//!   "startup_delay_ms": 0,        // before the socket is there
//!   "hello_delay_ms": 0,
//!   "exit_at_hello": 3,           // ends with this status instead of answering the hello
//!   "ignore_signals": false,      // SIGINT, SIGTERM and SIGHUP have no effect
//!   "dump_env": "path",           // the environment as a JSON object
//!   "record": "path",             // every request as one JSON line, see below
//!   "record_at_most": 64          // so many values are recorded one by one
//! }
//! ```
//!
//! An answer is the `result` object itself, or one of
//! `{"raw": "bytes as text"}`, `{"message": {...}}` (the whole answer, `id` added unless present),
//! `{"error": "text"}`, `{"delay_ms": 5, "then": answer}`, `{"exit": 1}`, `{"abort": true}`, `{"hang": true}`,
//! `{"attempt": "read", "on": "path"}` (does what a sandbox refuses, see `attempts.rs`; the only label of the result is `done`
//! or the error), `{"close": true}` (the connection, the process stays), `{"resize_shm": 4, "then": answer}` (its segments get this size in
//! bytes), `{"fill_shm": true, "then": answer}` (the file `filler` takes what is left of `/dev/shm`).
//!
//! A recorded line is the request with `"features"` (from JSON or shared memory) in place of the values when there are
//! at most `record_at_most`, else `"count"`, `"first"`, `"last"` and `"sum"`. The hello has the `"pid"` of the process as well.
//!
//! It ends when the client goes away, with status 0, and removes its segments then; a signal ends it at once and leaves
//! them behind, as older models do.

#[path = "scripted_model/attempts.rs"]
mod attempts;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::exit;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memmap2::MmapRaw;
use serde_json::{Map, Value, json};

fn main() {
    let program = std::env::current_exe().expect("own path");
    let script_path = format!("{}.json", program.display());
    let script: Value = serde_json::from_slice(&fs::read(&script_path).expect("script")).expect("script is JSON");
    let Some(socket) = std::env::args().nth(1) else {
        println!("Requires one parameter (the name of a socket)");
        exit(1);
    };
    if script["ignore_signals"] == true {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: no handler runs.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
    for line in list(&script["stdout"]) {
        println!("{}", line.as_str().unwrap_or_default());
    }
    for line in list(&script["stderr"]) {
        eprintln!("{}", line.as_str().unwrap_or_default());
    }
    if let Some(path) = script["dump_env"].as_str() {
        let variables: Map<String, Value> = std::env::vars().map(|(key, value)| (key, value.into())).collect();
        fs::write(path, serde_json::to_vec(&variables).expect("JSON")).expect("dump_env");
    }
    let mut model = Model::new(script);
    pause(&model.script["startup_delay_ms"]);
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("bind");
    let (client, _) = listener.accept().expect("accept");
    drop(listener);
    model.talk(client);
    model.remove_segments();
}

struct Segment {
    name: String,
    file: File,
    elements: usize,
    /// Real models map their memory, so that it shows in `/proc/<pid>/maps`; reading and writing goes by the file.
    _map: MmapRaw,
}

impl Segment {
    fn new(number: usize, elements: usize) -> Self {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_nanos();
        let name = format!("/shm-scripted-{}-{nanos:x}-{number}", std::process::id());
        let path = format!("/dev/shm{name}");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .expect("segment");
        file.set_len(elements as u64 * 4).expect("segment size");
        let _map = MmapRaw::map_raw(&file).expect("map");
        Self {
            name,
            file,
            elements,
            _map,
        }
    }

    fn read(&self, elements: usize) -> Vec<f32> {
        let mut bytes = vec![0; elements.min(self.elements) * 4];
        self.file.read_exact_at(&mut bytes, 0).expect("segment");
        bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    }

    fn describe(&self) -> Value {
        json!({ "name": self.name, "size_bytes": self.elements * 4, "type": "float32", "elements": self.elements })
    }
}

struct Model {
    script: Value,
    features: Option<Segment>,
    outputs: Vec<Segment>,
    next: usize,
}

impl Model {
    fn new(script: Value) -> Self {
        let count = &script["hello"]["model_parameters"]["input_features_count"];
        let elements = script["shm_elements"].as_u64().or(count.as_u64()).unwrap_or(16);
        let features = (script["shm"] != false).then(|| Segment::new(0, elements as usize));
        let outputs = list(&script["freeform_shm"]).iter().enumerate().map(|(index, values)| {
            let bytes: Vec<u8> = list(values)
                .iter()
                .flat_map(|v| (v.as_f64().unwrap_or(f64::NAN) as f32).to_le_bytes())
                .collect();
            let segment = Segment::new(index + 1, bytes.len() / 4);
            segment.file.write_all_at(&bytes, 0).expect("segment");
            segment
        });
        Self {
            outputs: outputs.collect(),
            features,
            next: 0,
            script,
        }
    }

    fn talk(&mut self, mut client: UnixStream) {
        let mut pending = Vec::new();
        let mut chunk = [0; 65536];
        loop {
            match client.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(read) => pending.extend_from_slice(&chunk[..read]),
            }
            while let Some(end) = object_end(&pending) {
                let request: Value = serde_json::from_slice(&pending[..end]).expect("request is JSON");
                pending.drain(..end);
                let Some(answer) = self.answer(&request, &client) else {
                    continue;
                };
                if client.write_all(&answer).is_err() {
                    return;
                }
            }
        }
    }

    fn answer(&mut self, request: &Value, client: &UnixStream) -> Option<Vec<u8>> {
        self.record(request);
        let id = request["id"].clone();
        if request.get("hello").is_some() {
            pause(&self.script["hello_delay_ms"]);
            if let Some(code) = self.script["exit_at_hello"].as_i64() {
                self.remove_segments();
                exit(code as i32);
            }
            return Some(framed(self.hello(id)));
        }
        for (kind, key) in [("set_threshold", "thresholds"), ("set_parameter", "parameters")] {
            if request.get(kind).is_some() {
                if let Some(code) = self.script[key]["exit"].as_i64() {
                    self.remove_segments();
                    exit(code as i32);
                }
                let ok = self.script[key]["ok"].as_bool().unwrap_or(kind == "set_threshold");
                return Some(framed(match ok {
                    true => json!({ "id": id, "success": true }),
                    false => json!({ "id": id, "success": false, "error": "Failed to handle message" }),
                }));
            }
        }
        let answer = self.next_answer();
        self.perform(&answer, id, client)
    }

    fn next_answer(&mut self) -> Value {
        let answers = list(&self.script["answers"]);
        let index = match self.script["repeat"].as_str() {
            Some("cycle") => self.next % answers.len().max(1),
            _ => self.next.min(answers.len().saturating_sub(1)),
        };
        self.next += 1;
        answers
            .get(index)
            .cloned()
            .unwrap_or_else(|| json!({ "bounding_boxes": [] }))
    }

    fn perform(&mut self, answer: &Value, id: Value, client: &UnixStream) -> Option<Vec<u8>> {
        if let Some(text) = answer["raw"].as_str() {
            return Some(text.as_bytes().to_vec());
        }
        if let Some(mut message) = answer.get("message").cloned() {
            if message.get("id").is_none() {
                message["id"] = id;
            }
            return Some(framed(message));
        }
        if let Some(error) = answer.get("error") {
            return Some(framed(json!({ "id": id, "success": false, "error": error })));
        }
        if answer.get("delay_ms").is_some() {
            pause(&answer["delay_ms"]);
            return self.perform(&answer["then"].clone(), id, client);
        }
        if let Some(bytes) = answer["resize_shm"].as_u64() {
            for segment in self.features.iter().chain(&self.outputs) {
                segment.file.set_len(bytes).expect("another size");
            }
            return self.perform(&answer["then"].clone(), id, client);
        }
        if answer["fill_shm"] == true {
            let mut filler = File::create("/dev/shm/filler").expect("filler");
            while filler.write_all(&[1; 4096]).is_ok() {}
            return self.perform(&answer["then"].clone(), id, client);
        }
        if let Some(code) = answer["exit"].as_i64() {
            self.remove_segments();
            exit(code as i32);
        }
        if answer["abort"] == true {
            std::process::abort();
        }
        if answer["close"] == true {
            let _ = client.shutdown(std::net::Shutdown::Both);
            loop {
                std::thread::park();
            }
        }
        if answer["hang"] == true {
            return None;
        }
        if let Some(what) = answer["attempt"].as_str() {
            let outcome = attempts::attempt(what, answer["on"].as_str().unwrap_or_default());
            return self.perform(&json!({ "classification": { (outcome): 1.0 } }), id, client);
        }
        let timing = json!({ "dsp": 1, "classification": 2, "anomaly": 0, "json": 7, "stdin": 9 });
        Some(framed(
            json!({ "id": id, "success": true, "result": answer, "timing": timing }),
        ))
    }

    fn hello(&self, id: Value) -> Value {
        let mut hello = json!({
            "success": true,
            "project": { "id": 1, "name": "Scripted", "owner": "test", "deploy_version": 7 },
            "inferencing_engine": { "engine_type": 2, "properties": [] },
            "model_parameters": {
                "axis_count": 1, "frequency": 0, "has_anomaly": 0, "image_channel_count": 3, "image_input_frames": 1,
                "image_input_height": 4, "image_input_width": 4, "image_resize_mode": "squash", "inferencing_engine": 2,
                "input_features_count": 16, "interval_ms": 1, "label_count": 1, "labels": ["thing"],
                "model_type": "object_detection", "sensor": 3, "slice_size": 4, "thresholds": [],
                "use_continuous_mode": false
            }
        });
        merge(&mut hello, &self.script["hello"]);
        hello["id"] = id;
        if let Some(segment) = &self.features {
            hello["features_shm"] = segment.describe();
        }
        if !self.outputs.is_empty() {
            let outputs = self.outputs.iter().enumerate().map(|(index, segment)| {
                let mut output = segment.describe();
                output["index"] = index.into();
                output
            });
            hello["freeform_output_shm"] = outputs.collect();
        }
        hello
    }

    fn record(&self, request: &Value) {
        let Some(path) = self.script["record"].as_str() else {
            return;
        };
        let most = self.script["record_at_most"].as_u64().unwrap_or(64) as usize;
        let mut line = Map::new();
        if request.get("hello").is_some() {
            line.insert("pid".into(), std::process::id().into());
        }
        for (key, value) in request.as_object().expect("request is an object") {
            let features = match (key.as_str(), value, &self.features) {
                ("classify" | "classify_continuous", Value::Array(list), _) => list
                    .iter()
                    .map(|value| value.as_f64().unwrap_or(f64::NAN) as f32)
                    .collect(),
                ("classify_shm" | "classify_continuous_shm", shared, Some(segment)) => {
                    segment.read(shared["elements"].as_u64().unwrap_or(0) as usize)
                }
                _ => {
                    line.insert(key.clone(), value.clone());
                    continue;
                }
            };
            let count = features.len();
            let summary = match (features.first(), features.last()) {
                (Some(first), Some(last)) if count > most => {
                    json!({ "count": count, "first": first, "last": last, "sum": features.iter().map(|f| f64::from(*f)).sum::<f64>() })
                }
                _ => json!({ "count": count, "features": features }),
            };
            line.insert(key.clone(), summary);
        }
        let mut text = serde_json::to_vec(&line).expect("JSON");
        text.push(b'\n');
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(&text)).expect("record");
    }

    fn remove_segments(&self) {
        for segment in self.features.iter().chain(&self.outputs) {
            let _ = fs::remove_file(format!("/dev/shm{}", segment.name));
        }
    }
}

/// Where the first object in `bytes` ends. Braces are counted and strings not understood, as in real models.
fn object_end(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0;
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(index + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn framed(answer: Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(&answer).expect("JSON");
    bytes.extend_from_slice(b"\n\0");
    bytes
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (into, from) => *into = from.clone(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn pause(milliseconds: &Value) {
    sleep(Duration::from_millis(milliseconds.as_u64().unwrap_or(0)));
}
