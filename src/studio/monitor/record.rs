//! One inference as Studio can see it: the model's answer with what it was asked about.

use bytes::Bytes;
use serde_json::Value;

/// The greatest number of an inference: JavaScript, in which Studio is written, knows all numbers up to it.
pub(super) const MAX_INDEX: u64 = 1 << 53;

/// An inference with its picture or sound.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The number of the inference of this deployment version, from 1.
    pub index: u64,
    /// When it was inferred, in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// The model's answer without `id` and `success`: `{"result":{...},"timing":{...}}`, with `info` if there is one. Boxes are in
    /// pixels of the model's picture.
    pub record: Value,
    /// What was inferred.
    pub raw_data: RawData,
}

/// What the model was asked about, as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawData {
    /// The format of the file.
    pub kind: RawDataKind,
    /// The file.
    pub bytes: Bytes,
}

/// The format of the file, by its name in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum RawDataKind {
    /// JPEG of the picture at the size of the model.
    Jpg,
    /// The window of audio as WAV.
    Wav,
}
