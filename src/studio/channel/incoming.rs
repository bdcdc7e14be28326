//! Messages of Studio: a table of their keys, and their types.

use serde::Deserialize;
use serde_json::Value;

use super::bounded_json;
use super::outgoing::Outgoing;
use crate::util::text::excerpt;

/// Longest label, in characters: it becomes a header and a file name.
const MAX_LABEL: usize = 200;
/// Longest sample, in milliseconds: a day.
const MAX_LENGTH_MS: f64 = 86_400_000.0;
/// Most records of one request.
pub const MAX_RECORDS: usize = 10_000;

/// The kind of a message, by its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IncomingKind {
    /// The answer to the hello.
    Hello,
    /// A sample is wanted.
    Sample,
    /// Begin the snapshot stream.
    StartSnapshot,
    /// End the snapshot stream.
    StopSnapshot,
    /// Begin the stream of inferences.
    StartInferenceStream,
    /// End the stream of inferences.
    StopInferenceStream,
    /// A newer model may be there.
    NewModelAvailable,
    /// Stored records are wanted.
    RecordRequest,
    /// A record has arrived, or was refused.
    RecordAck,
}

/// A message of Studio. An `Err` is the reason why a member of the message cannot be used, as a clause.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// The answer to the hello; `Err`: the text of the refusal.
    Hello(Result<(), String>),
    /// A sample is wanted.
    Sample(Result<SampleRequest, String>),
    /// Begin the snapshot stream.
    StartSnapshot(SnapshotResolution),
    /// End the snapshot stream.
    StopSnapshot,
    /// Begin the stream of inferences.
    StartInferenceStream,
    /// End the stream of inferences.
    StopInferenceStream,
    /// A newer model may be there: its version, or `None` for the latest.
    NewModelAvailable(Result<Option<u64>, String>),
    /// Stored records are wanted.
    RecordRequest(Result<RecordRequest, String>),
    /// The record with this index has arrived; `Err`: it was refused.
    RecordAck {
        /// The index of the record.
        index: Option<u64>,
        /// The refusal.
        result: Result<(), String>,
    },
}

/// A request for a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleRequest {
    /// At most 200 characters, no control characters; may be empty.
    pub label: String,
    /// Milliseconds, from 0 to a day.
    pub length_ms: f64,
    /// The category that the path names: `training`, `testing`, ...
    pub category: String,
    /// Milliseconds between two values; above 0 for sensors with a frequency.
    pub interval_ms: f64,
    /// The name of the sensor; may be empty.
    pub sensor: String,
}

/// The size of the pictures of a snapshot stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SnapshotResolution {
    /// 96 pixels high.
    #[default]
    Low,
    /// The camera's own size.
    High,
}

/// Which stored records Studio wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordRequest {
    /// One record.
    Index(u64),
    /// From the first to the last, both included; the first may be above the last.
    Range {
        /// First index.
        first: u64,
        /// Last index.
        last: u64,
    },
    /// These, in this order; at most [`MAX_RECORDS`].
    List {
        /// The indices.
        indices: Vec<u64>,
        /// Entries of the list that are no index.
        unusable: usize,
    },
}

impl RecordRequest {
    /// The index of an answer that concerns the request as a whole; a list has none.
    pub fn first_index(&self) -> Option<u64> {
        match self {
            Self::Index(index) | Self::Range { first: index, .. } => Some(*index),
            Self::List { .. } => None,
        }
    }
}

type Parse = fn(&Value) -> Incoming;

/// The keys in the order in which they are looked for. A message belongs to the first key that it contains, whatever the value.
static TABLE: [(&str, IncomingKind, Parse); 9] = [
    ("hello", IncomingKind::Hello, parse_hello),
    ("sample", IncomingKind::Sample, |m| {
        Incoming::Sample(parse_sample(&m["sample"]))
    }),
    ("startSnapshot", IncomingKind::StartSnapshot, |m| {
        Incoming::StartSnapshot(match m["resolution"].as_str() {
            Some("high") => SnapshotResolution::High,
            _ => SnapshotResolution::Low,
        })
    }),
    ("stopSnapshot", IncomingKind::StopSnapshot, |_| Incoming::StopSnapshot),
    ("startInferenceStream", IncomingKind::StartInferenceStream, |_| {
        Incoming::StartInferenceStream
    }),
    ("stopInferenceStream", IncomingKind::StopInferenceStream, |_| {
        Incoming::StopInferenceStream
    }),
    ("newModelAvailable", IncomingKind::NewModelAvailable, |m| {
        Incoming::NewModelAvailable(parse_version(&m["deploymentVersion"]))
    }),
    ("impulseRecordRequest", IncomingKind::RecordRequest, |m| {
        Incoming::RecordRequest(parse_record_request(&m["impulseRecordRequest"]))
    }),
    ("impulseRecordAck", IncomingKind::RecordAck, |m| Incoming::RecordAck {
        index: m["index"].as_u64(),
        result: match m["impulseRecordAck"] {
            Value::Bool(false) => Err(text_of(&m["error"])),
            _ => Ok(()),
        },
    }),
];

/// What a message is, before it is handled.
#[derive(Debug, PartialEq)]
pub(super) enum Recognised {
    /// A message of the table.
    Known(IncomingKind, Incoming),
    /// JSON without a known key. The names of its members; their values may be secrets.
    Unknown(String),
    /// Not JSON.
    NotJson,
}

/// Recognises a message.
pub(super) fn recognise(text: &[u8]) -> Recognised {
    let Ok(message) = bounded_json::parse(text) else {
        return Recognised::NotJson;
    };
    let Some(members) = message.as_object() else {
        return Recognised::Unknown(String::new());
    };
    match TABLE.iter().find(|(key, ..)| members.contains_key(*key)) {
        Some((_, kind, parse)) => Recognised::Known(*kind, parse(&message)),
        None => Recognised::Unknown(excerpt(&members.keys().cloned().collect::<Vec<_>>().join(", "))),
    }
}

impl Incoming {
    /// The answer where no service handles the message, or none can: Studio does not wait in vain. `None`: it needs no answer.
    pub fn refusal(&self, reason: &str) -> Option<Outgoing> {
        let error = reason.to_owned();
        match self {
            Self::Hello(_) | Self::RecordAck { .. } => None,
            Self::Sample(_) => Some(Outgoing::SampleFailed { error }),
            Self::StartSnapshot(_) => Some(Outgoing::SnapshotFailed { error }),
            Self::StopSnapshot => Some(Outgoing::SnapshotStopped),
            Self::StartInferenceStream => Some(Outgoing::InferenceStreamStarted(false)),
            Self::StopInferenceStream => Some(Outgoing::InferenceStreamStopped(false)),
            Self::NewModelAvailable(_) => Some(Outgoing::ModelUpdateFailed { error }),
            Self::RecordRequest(request) => Some(Outgoing::RecordsRefused {
                index: request.as_ref().ok().and_then(RecordRequest::first_index),
                error,
            }),
        }
    }
}

fn parse_hello(message: &Value) -> Incoming {
    Incoming::Hello(match message["hello"] {
        Value::Bool(true) => Ok(()),
        _ => Err([&message["err"], &message["error"]]
            .into_iter()
            .find_map(|text| text.as_str().map(excerpt))
            .unwrap_or_else(|| "without a reason".to_owned())),
    })
}

#[derive(Deserialize)]
struct RawSample {
    #[serde(default)]
    label: Value,
    #[serde(default)]
    length: Option<f64>,
    #[serde(default)]
    path: String,
    #[serde(default)]
    interval: Option<f64>,
    #[serde(default)]
    sensor: Option<String>,
}

fn parse_sample(sample: &Value) -> Result<SampleRequest, String> {
    let raw = RawSample::deserialize(sample).map_err(|e| excerpt(&e.to_string()))?;
    let label = match raw.label {
        Value::String(label) => label,
        Value::Null => String::new(),
        _ => return Err("the label is no text".to_owned()),
    };
    if label.chars().count() > MAX_LABEL || label.contains(char::is_control) {
        return Err(format!(
            "the label is longer than {MAX_LABEL} characters or has control characters"
        ));
    }
    let length_ms = raw.length.unwrap_or(0.0);
    if !(0.0..=MAX_LENGTH_MS).contains(&length_ms) {
        return Err(format!("the length {length_ms} ms is not from 0 to {MAX_LENGTH_MS} ms"));
    }
    let interval_ms = raw.interval.unwrap_or(0.0);
    if !(0.0..=MAX_LENGTH_MS).contains(&interval_ms) {
        return Err(format!(
            "the interval {interval_ms} ms is not from 0 to {MAX_LENGTH_MS} ms"
        ));
    }
    Ok(SampleRequest {
        label,
        length_ms,
        category: category_of(&raw.path),
        interval_ms,
        sensor: raw.sensor.unwrap_or_default(),
    })
}

/// The word between `/api/` and the next `/`: `/api/training/data` is `training`. `testing` where there is none, as in the
/// programs of Edge Impulse.
fn category_of(path: &str) -> String {
    let word = path
        .split_once("/api/")
        .map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    let is_word =
        |word: &&str| !word.is_empty() && word.len() <= 32 && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    match word.filter(is_word) {
        Some(word) => word.to_owned(),
        None if path.contains("/training") => "training".to_owned(),
        None => "testing".to_owned(),
    }
}

fn parse_version(version: &Value) -> Result<Option<u64>, String> {
    let number = match version {
        Value::Null => return Ok(None),
        Value::String(text) if text.eq_ignore_ascii_case("latest") => return Ok(None),
        Value::String(text) => text.parse().ok(),
        number => number.as_u64(),
    };
    let number = number.filter(|number| *number > 0).map(Some);
    number.ok_or_else(|| {
        let version = excerpt(&version.to_string());
        format!("the deployment version {version} is not known; accepted: a number from 1, or \"latest\"")
    })
}

fn parse_record_request(request: &Value) -> Result<RecordRequest, String> {
    if let Some(index) = request["index"].as_u64() {
        return Ok(RecordRequest::Index(index));
    }
    let range = &request["range"];
    if let (Some(first), Some(last)) = (range["first"].as_u64(), range["last"].as_u64()) {
        return Ok(RecordRequest::Range { first, last });
    }
    if let Some(list) = request["list"].as_array() {
        if list.len() > MAX_RECORDS {
            return Err(format!("the list has more than {MAX_RECORDS} indices"));
        }
        let indices: Vec<_> = list.iter().filter_map(Value::as_u64).collect();
        let unusable = list.len() - indices.len();
        return Ok(RecordRequest::List { indices, unusable });
    }
    Err(
        "accepted is an index, a range with first and last, or a list of indices, each a whole number from 0"
            .to_owned(),
    )
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| "without a reason".to_owned(), excerpt)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn known(message: Value) -> Incoming {
        match recognise(message.to_string().as_bytes()) {
            Recognised::Known(_, incoming) => incoming,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_belongs_to_the_first_known_key_whatever_its_value() {
        assert_eq!(
            known(json!({"hello": true, "serverTimestamp": 1})),
            Incoming::Hello(Ok(()))
        );
        assert_eq!(
            known(json!({"hello": false, "err": "Invalid API key"})),
            Incoming::Hello(Err("Invalid API key".to_owned()))
        );
        assert_eq!(
            known(json!({"startSnapshot": false, "resolution": "high"})),
            Incoming::StartSnapshot(SnapshotResolution::High)
        );
        assert_eq!(
            known(json!({"startSnapshot": true, "stopSnapshot": true})),
            Incoming::StartSnapshot(SnapshotResolution::Low)
        );
        assert_eq!(
            known(json!({"newModelAvailable": true, "deploymentVersion": "latest"})),
            Incoming::NewModelAvailable(Ok(None))
        );
        for (version, parsed) in [
            (json!(8), Some(Some(8))),
            (json!("8"), Some(Some(8))),
            (json!(0), None),
            (json!("next"), None),
        ] {
            let message = known(json!({"newModelAvailable": true, "deploymentVersion": version}));
            let Incoming::NewModelAvailable(result) = message else {
                panic!("{version}")
            };
            assert_eq!(result.ok(), parsed, "{version}");
        }
        assert_eq!(
            known(json!({"impulseRecordAck": false, "index": 4, "error": "no"})),
            Incoming::RecordAck {
                index: Some(4),
                result: Err("no".to_owned())
            }
        );
    }

    #[test]
    fn a_sample_request_is_parsed_into_types() {
        let sample = json!({"label": "cat & dog", "length": 1000, "path": "/api/training/data", "hmacKey": "0",
                            "interval": 62.5, "sensor": "Microphone"});
        assert_eq!(
            known(json!({ "sample": sample })),
            Incoming::Sample(Ok(SampleRequest {
                label: "cat & dog".to_owned(),
                length_ms: 1000.0,
                category: "training".to_owned(),
                interval_ms: 62.5,
                sensor: "Microphone".to_owned(),
            }))
        );
        for wrong in [
            json!(true),
            json!({"label": 5}),
            json!({"label": "a\nb"}),
            json!({"label": "x".repeat(201)}),
            json!({"length": -1}),
            json!({"length": 1e300}),
            json!({"interval": -0.5}),
        ] {
            let parsed = known(json!({ "sample": wrong }));
            assert!(matches!(parsed, Incoming::Sample(Err(_))), "{wrong}: {parsed:?}");
        }
    }

    #[test]
    fn the_category_is_the_word_after_api() {
        for (path, category) in [
            ("/api/training/data", "training"),
            ("/api/testing/data", "testing"),
            ("/api/validation/files", "validation"),
            ("/api/post-processing/x", "post-processing"),
            ("/v2/training", "training"),
            ("/api/../files", "testing"),
            ("", "testing"),
        ] {
            assert_eq!(category_of(path), category, "{path}");
        }
    }

    #[test]
    fn records_are_requested_by_index_range_or_list() {
        let parse = |request: Value| parse_record_request(&request);
        assert_eq!(parse(json!({"index": 5})), Ok(RecordRequest::Index(5)));
        assert_eq!(
            parse(json!({"range": {"first": 9, "last": 1}})),
            Ok(RecordRequest::Range { first: 9, last: 1 })
        );
        let list = |indices: &[u64], unusable| {
            Ok(RecordRequest::List {
                indices: indices.to_vec(),
                unusable,
            })
        };
        assert_eq!(parse(json!({"list": [3, "x", 1]})), list(&[3, 1], 1));
        assert_eq!(parse(json!({"list": [-1, 2.5, 1e30, null, [1]]})), list(&[], 5));
        assert_eq!(parse(json!({"list": []})), list(&[], 0));
        assert!(parse(json!(null)).is_err() && parse(json!({"index": -1})).is_err());
        assert!(parse(json!({"list": vec![1; MAX_RECORDS]})).is_ok());
        for wrong in [
            json!({"list": vec![1; MAX_RECORDS + 1]}),
            json!({"list": {"0": 1}}),
            json!({"range": [1, 9]}),
            json!({"range": {"first": 1}}),
            json!({"range": {"first": "1", "last": "9"}}),
            json!({"range": {"first": -1, "last": 9}}),
            json!({"index": "5"}),
            json!({"index": 1.5}),
            json!({"index": 1e30}),
            json!(5),
            json!([5]),
        ] {
            let refused = parse(wrong.clone());
            assert!(refused.is_err(), "{wrong}: {refused:?}");
        }
    }

    #[test]
    fn a_list_of_a_million_is_recognised_in_bounded_memory() {
        let text = json!({"impulseRecordRequest": {"list": vec![1_234_567_u64; 1_000_000]}}).to_string();
        let recognised = recognise(text.as_bytes());
        let Recognised::Known(_, Incoming::RecordRequest(Err(reason))) = recognised else {
            panic!("{recognised:?}");
        };
        assert!(reason.contains("10000"), "{reason}");
    }

    #[test]
    fn unknown_messages_show_the_names_of_their_members_only() {
        assert_eq!(
            recognise(br#"{"secret":"ei_12345"}"#),
            Recognised::Unknown("secret".to_owned())
        );
        assert_eq!(recognise(b"[1]"), Recognised::Unknown(String::new()));
        assert_eq!(recognise(b"\xff"), Recognised::NotJson);
    }

    proptest! {
        #[test]
        fn any_bytes_are_recognised_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), key in 0..9_usize, value in "(?s).{0,20}") {
            recognise(&bytes);
            recognise(format!("{{\"{}\":{value}}}", TABLE[key].0).as_bytes());
            recognise(json!({TABLE[key].0: {"index": value, "range": value, "label": value}}).to_string().as_bytes());
        }
    }
}
