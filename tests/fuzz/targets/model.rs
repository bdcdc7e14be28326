//! What a model process writes, and its file.

use std::fs;

use ei_greengrass::fuzzing::model::{
    MAX_ITEMS, MAX_LABEL, Splitter, is_segment_name, parse_answer, parse_hello, segment_names, timing,
};
use ei_greengrass::model::examine;
use serde_json::{Map, Value};

use crate::input::{Input, scratch};

/// Largest answer of these targets.
const LIMIT: usize = 2000;

/// Objects of the stream, received in pieces of `piece` bytes; `None`: the stream cannot be used.
fn split(stream: &[u8], piece: usize) -> Option<Vec<Vec<u8>>> {
    let mut splitter = Splitter::new(LIMIT);
    let mut objects = Vec::new();
    for mut piece in stream.chunks(piece) {
        while !piece.is_empty() {
            splitter.fill(&mut piece).expect("memory can be read");
            assert!(!splitter.is_full(), "a full buffer has an object or an error");
            while let Some(object) = splitter.next_object().ok()? {
                assert!(object.len() <= LIMIT, "an object is bounded");
                objects.push(object.to_vec());
            }
        }
    }
    Some(objects)
}

/// Frames and answers.
pub fn model_stream(data: &[u8]) {
    let mut input = Input(data);
    let piece = usize::from(input.byte()).max(1);
    let stream = input.0;
    let objects = split(stream, piece);
    assert_eq!(
        objects,
        split(stream, usize::MAX),
        "objects do not depend on how the stream is cut"
    );
    for object in objects.unwrap_or_default() {
        timing(&object);
        let Ok(answer) = parse_answer(&object) else { continue };
        let Ok(result) = answer.result else { continue };
        let lists = [
            &result.bounding_boxes,
            &result.object_tracking,
            &result.visual_anomaly_grid,
        ];
        for found in lists.into_iter().flatten().flatten() {
            assert!(found.label.len() <= MAX_LABEL && found.value.is_finite());
        }
        let scores = result.classification.iter().flatten();
        assert!(scores.clone().count() <= MAX_ITEMS);
        for (label, value) in scores {
            assert!(label.len() <= MAX_LABEL && value.is_finite());
        }
        let free = result.freeform.iter().flatten().flatten();
        assert!(free.clone().all(|value| value.is_finite()));
        for number in [result.anomaly, result.visual_anomaly_max, result.visual_anomaly_mean] {
            assert!(number.is_none_or(f64::is_finite));
        }
        assert!(result.time_ms() >= 1);
        serde_json::to_string(&result).expect("a result can be published");
    }
}

/// The hello.
pub fn model_hello(data: &[u8]) {
    let Ok(answer) = serde_json::from_slice::<Map<String, Value>>(data) else {
        return;
    };
    for name in segment_names(&answer) {
        if is_segment_name(&name) {
            assert!(!name[1..].contains('/') && name.len() < 300, "{name}");
        }
    }
    match parse_hello(answer) {
        Ok(hello) => {
            let info = hello.info;
            assert!(info.features <= 1 << 26, "{}", info.features);
            assert!(info.labels.len() <= MAX_ITEMS);
            assert!(info.labels.iter().all(|label| label.len() <= MAX_LABEL));
            info.sensor_name();
        }
        Err(error) => drop(error.to_string()),
    }
}

/// The file of a model.
pub fn model_file(data: &[u8]) {
    let directory = scratch();
    let path = directory.path().join("model.eim");
    fs::write(&path, data).expect("a file");
    if let Err(error) = examine(&path) {
        drop(error.to_string());
    }
}
