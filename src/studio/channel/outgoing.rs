//! Messages to Studio.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

/// A message to Studio.
#[derive(Debug, Clone, PartialEq)]
pub enum Outgoing {
    /// The request for a sample is accepted.
    SampleAccepted,
    /// The capture of the sample begins.
    SampleStarted,
    /// The recording has ended and is being processed.
    SampleProcessing,
    /// The upload begins.
    SampleUploading,
    /// Ingestion accepted the sample.
    SampleFinished,
    /// There is no sample.
    SampleFailed {
        /// Why.
        error: String,
    },
    /// The snapshot stream is on.
    SnapshotStarted,
    /// The snapshot stream is off.
    SnapshotStopped,
    /// The snapshot stream cannot be started.
    SnapshotFailed {
        /// Why.
        error: String,
    },
    /// A picture of the snapshot stream.
    SnapshotFrame {
        /// JPEG.
        jpeg: Bytes,
        /// Name of the picture.
        file_name: String,
    },
    /// Whether the stream of inferences is on.
    InferenceStreamStarted(bool),
    /// Whether the stream of inferences was ended.
    InferenceStreamStopped(bool),
    /// The inferences of one window of time, as JSON.
    InferenceSummary(Bytes),
    /// An inference of the stream.
    ImpulseRecord {
        /// The number of the inference.
        index: u64,
        /// Milliseconds since 1970.
        timestamp_ms: u64,
        /// The model's answer.
        record: Value,
        /// `jpg` or `wav`.
        kind: &'static str,
        /// What was inferred, as a file.
        data: Bytes,
    },
    /// The model was updated.
    ModelUpdated {
        /// Which model runs now.
        inference_info: Value,
    },
    /// The model was not updated.
    ModelUpdateFailed {
        /// Why.
        error: String,
    },
    /// A stored record that was asked for.
    StoredRecord {
        /// The number of the inference.
        index: u64,
        /// Milliseconds since 1970.
        timestamp_ms: u64,
        /// The model's answer.
        record: Value,
        /// `jpg` or `wav`.
        kind: &'static str,
        /// What was inferred, as a file.
        data: Bytes,
    },
    /// A record, or all that a request asks for, cannot be sent.
    RecordsRefused {
        /// The record; `None`: the request as a whole.
        index: Option<u64>,
        /// Why.
        error: String,
    },
}

impl Outgoing {
    /// The message as text.
    pub(super) fn to_text(&self) -> String {
        self.to_json().to_string()
    }

    fn to_json(&self) -> Value {
        match self {
            Self::SampleAccepted => json!({"sample": true}),
            Self::SampleStarted => json!({"sampleStarted": true}),
            Self::SampleProcessing => json!({"sampleProcessing": true}),
            Self::SampleUploading => json!({"sampleUploading": true}),
            Self::SampleFinished => json!({"sampleFinished": true}),
            // The documentation names the text `err`; the program that this replaces sends `error`.
            Self::SampleFailed { error } => json!({"sample": false, "error": error, "err": error}),
            Self::SnapshotStarted => json!({"snapshotStarted": true}),
            Self::SnapshotStopped => json!({"snapshotStopped": true}),
            Self::SnapshotFailed { error } => json!({"snapshotFailed": true, "error": error}),
            Self::SnapshotFrame { jpeg, file_name } => {
                json!({"snapshotFrame": STANDARD.encode(jpeg), "fileName": file_name})
            }
            Self::InferenceStreamStarted(is_on) => json!({"inferenceStreamStarted": is_on}),
            Self::InferenceStreamStopped(is_off) => json!({"inferenceStreamStopped": is_off}),
            Self::InferenceSummary(summary) => {
                let summary = serde_json::from_slice::<Value>(summary).unwrap_or_default();
                json!({ "inferenceSummary": summary })
            }
            Self::ImpulseRecord {
                index,
                timestamp_ms,
                record,
                kind,
                data,
            } => json!({
                "impulseRecord": record, "timestamp": timestamp_ms, "index": index,
                "rawData": {"type": kind, "bufferBase64": STANDARD.encode(data)},
            }),
            Self::ModelUpdated { inference_info } => {
                json!({"modelUpdateSuccess": true, "inferenceInfo": inference_info})
            }
            Self::ModelUpdateFailed { error } => json!({"modelUpdateSuccess": false, "error": error}),
            Self::StoredRecord {
                index,
                timestamp_ms,
                record,
                kind,
                data,
            } => json!({
                "impulseRecordsResponse": true, "index": index, "record": record, "timestamp": timestamp_ms,
                "rawData": {"type": kind, "bufferBase64": STANDARD.encode(data)},
            }),
            Self::RecordsRefused {
                index: Some(index),
                error,
            } => {
                json!({"impulseRecordsResponse": false, "index": index, "error": error})
            }
            Self::RecordsRefused { index: None, error } => json!({"impulseRecordsResponse": false, "error": error}),
        }
    }
}
