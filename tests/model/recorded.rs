//! Conversations recorded with real models.

use super::*;

/// Serves the recorded model of `tests/data/eim/<name>.jsonl` to one client on a socket: answers in the order of the recording,
/// with the ids of the requests.
struct Replay {
    lines: Vec<Value>,
    dir: tempfile::TempDir,
    server: Option<JoinHandle<Vec<Value>>>,
}

impl Replay {
    /// Answers `cases` after the hello.
    fn new(name: &str, cases: &[&str]) -> Self {
        let path = format!("{}/tests/data/eim/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
        let lines: Vec<Value> = fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("model.sock")).unwrap();
        let answers: Vec<Value> = std::iter::once(&"hello")
            .chain(cases)
            .map(|case| {
                lines
                    .iter()
                    .find(|line| line["case"] == **case)
                    .unwrap_or_else(|| panic!("{case}"))
                    .clone()
            })
            .collect();
        let server = thread::spawn(move || Self::serve(&listener.accept().unwrap().0, &answers));
        Self {
            lines,
            dir,
            server: Some(server),
        }
    }

    /// Returns the requests.
    fn serve(mut client: &UnixStream, answers: &[Value]) -> Vec<Value> {
        let mut requests = Vec::new();
        for answer in answers {
            let mut line = Vec::new();
            let mut byte = [0];
            while byte != *b"\n" {
                client.read_exact(&mut byte).unwrap();
                line.push(byte[0]);
            }
            let request: Value = serde_json::from_slice(&line).unwrap();
            let mut text = answer["response"].as_str().unwrap().to_owned();
            // Only the id is replaced; everything else is sent byte for byte.
            let recorded: Value = serde_json::from_str(&text).unwrap();
            text = text.replacen(
                &format!("\"id\":{}", recorded["id"]),
                &format!("\"id\":{}", request["id"]),
                1,
            );
            // The segments of the recording are gone.
            text = text.replace("/shm-", "/shm-gone-");
            if answer["nul_terminated"] == true {
                text.push('\0');
            }
            client.write_all(text.as_bytes()).unwrap();
            requests.push(request);
        }
        requests
    }

    fn start(&self) -> Model {
        let source = ModelSource::File(self.dir.path().join("model.sock"));
        let settings = ModelSettings::new(source, "replay", self.dir.path(), Arc::default());
        Model::start(&settings, &Interrupt::new()).unwrap()
    }

    fn requests(&mut self) -> Vec<Value> {
        self.server.take().unwrap().join().unwrap()
    }

    fn recorded(&self, case: &str) -> Value {
        let line = self.lines.iter().find(|line| line["case"] == case).unwrap();
        serde_json::from_str(line["response"].as_str().unwrap()).unwrap()
    }
}

#[test]
fn a_recorded_face_detector_of_2023_is_understood() {
    let mut replay = Replay::new("fomo-face-legacy2023", &["classify:grey", "classify:coffee"]);
    let mut model = replay.start();
    assert_eq!(model.pid(), None, "not a child of this program");
    let input = model.info().input;
    assert_eq!(
        input,
        ModelInput::Image {
            width: 96,
            height: 96,
            grey: false,
            resize: None
        }
    );
    model.features().fill(8_421_504.0);
    let result = model.classify(9216).unwrap();
    assert_eq!((result.bounding_boxes, result.model_ms), (Some(vec![]), 18));
    model.classify(9216).unwrap();
    model.stop();
    assert_eq!(replay.requests()[1]["classify"], json!(vec![8_421_504; 9216]));
    assert!(
        replay.dir.path().join("model.sock").exists(),
        "the socket is not removed"
    );
}

#[test]
fn recorded_object_tracking_and_thresholds_are_understood() {
    let cases = ["set_threshold", "classify:grey", "classify:coffee"];
    let mut replay = Replay::new("fomo-face-tracking", &cases);
    let mut model = replay.start();
    model
        .set_threshold(&Threshold {
            id: 18,
            key: "min_score".into(),
            value: 0.95,
        })
        .unwrap();
    model.features();
    assert_eq!(model.classify(9216).unwrap().object_tracking, Some(vec![]));
    let tracked = model.classify(9216).unwrap().object_tracking.unwrap();
    let recorded = replay.recorded("classify:coffee");
    assert_eq!(
        serde_json::to_value(&tracked).unwrap(),
        recorded["result"]["object_tracking"]
    );
    assert_eq!(tracked[4].object_id, Some(5));
    assert_eq!(
        replay.requests()[1]["set_threshold"],
        json!({ "id": 18, "min_score": 0.95 })
    );
}

#[test]
fn recorded_classes_and_free_form_values_are_understood() {
    let replay = Replay::new("imgcls-fruit", &["classify:coffee"]);
    let mut model = replay.start();
    let ModelInput::Image { resize, .. } = model.info().input else {
        panic!()
    };
    assert_eq!(resize, Some(ResizeMode::FitShortest));
    model.features();
    let classes: Map<String, Value> = model
        .classify(9216)
        .unwrap()
        .classification
        .unwrap()
        .into_iter()
        .map(|(l, v)| (l, v.into()))
        .collect();
    assert_eq!(
        Value::from(classes),
        replay.recorded("classify:coffee")["result"]["classification"]
    );

    let replay = Replay::new("imgcls-fruit-freeform", &["classify:grey"]);
    let mut model = replay.start();
    model.features();
    let values = model.classify(9216).unwrap().freeform.unwrap();
    assert_eq!(values, [[0.20703125, 0.15234375, 0.04296875, 0.59765625]]);
}

#[test]
fn a_recorded_keyword_spotter_hears_slices_and_whole_windows() {
    let cases = [
        "classify_continuous:silence:0",
        "classify_continuous:silence:3",
        "classify:tone_440",
    ];
    let mut replay = Replay::new("kws", &cases);
    let mut model = replay.start();
    assert_eq!(
        model.info().input,
        ModelInput::Audio {
            frequency: 16_000,
            slice_size: 4_000,
            continuous: true
        }
    );
    let mut unknown = Vec::new();
    for elements in [4_000, 4_000, 16_000] {
        model.features();
        unknown.push(model.classify(elements).unwrap().classification.unwrap()[2].clone());
    }
    assert_eq!(
        unknown,
        [
            ("unknown".into(), 0.0),
            ("unknown".into(), 0.99609375),
            ("unknown".into(), 0.0)
        ]
    );
    let requests = replay.requests();
    assert_eq!(requests[1]["classify_continuous"].as_array().unwrap().len(), 4_000);
    assert_eq!(requests[3]["classify"].as_array().unwrap().len(), 16_000);
}
