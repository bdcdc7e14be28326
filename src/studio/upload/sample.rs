//! One sample for ingestion.

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// Unencoded in the header `x-label`, as `encodeURIComponent` of JavaScript leaves it.
const LABEL: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// The kind of a sample's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleKind {
    /// A picture.
    Jpeg,
    /// Sound.
    Wav,
    /// Video.
    Mp4,
}

impl SampleKind {
    const fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Wav => "wav",
            Self::Mp4 => "mp4",
        }
    }

    /// The media type.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Wav => "audio/wav",
            Self::Mp4 => "video/mp4",
        }
    }
}

/// A sample with its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadSample {
    /// `training`, `testing`, ...: part of the path of the request, lower case letters and `-` only.
    pub category: String,
    /// May be empty.
    pub label: String,
    /// What the data is.
    pub kind: SampleKind,
    /// The file.
    pub data: Bytes,
}

/// What is known of a sample beside its data; a JSON file of the spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SampleMetadata {
    pub(super) category: String,
    pub(super) label: String,
    pub(super) kind: SampleKind,
    /// Length of the data: a power cut may have cut it.
    pub(super) bytes: u64,
}

impl SampleMetadata {
    pub(super) fn of(sample: &UploadSample) -> Self {
        Self {
            category: sample.category.clone(),
            label: sample.label.clone(),
            kind: sample.kind,
            bytes: sample.data.len() as u64,
        }
    }

    /// The value of `x-label`.
    pub(super) fn encoded_label(&self) -> String {
        utf8_percent_encode(&self.label, LABEL).to_string()
    }

    /// The name of the file: the label unencoded. A quotation mark would end the parameter of the header.
    pub(super) fn file_name(&self) -> String {
        let label: String = self.label.chars().filter(|c| !c.is_control()).collect();
        format!("{}.{}", label.replace('"', "%22"), self.kind.extension())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_encoded_in_the_header_and_not_in_the_file_name() {
        let metadata = SampleMetadata {
            category: "training".to_owned(),
            label: "noise & \"dör\" (1)".to_owned(),
            kind: SampleKind::Wav,
            bytes: 0,
        };
        assert_eq!(metadata.encoded_label(), "noise%20%26%20%22d%C3%B6r%22%20(1)");
        assert_eq!(metadata.file_name(), "noise & %22dör%22 (1).wav");
    }
}
