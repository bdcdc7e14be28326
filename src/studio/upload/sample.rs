//! One sample for ingestion.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::bounding_boxes::{LabelledBox, labels_file};

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

/// Most bytes of a request beside the data and the boxes.
const OVERHEAD: u64 = 4096;

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
    /// What goes with a sample that the component chose by itself; `None`: Studio asked for it.
    pub collected: Option<CollectedDetails>,
}

/// What goes with a sample that the component chose by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectedDetails {
    /// The name of the file without its extension.
    pub name: String,
    /// The boxes that the model found; empty: the sample has a label, or is not labelled.
    pub boxes: Vec<LabelledBox>,
    /// Shown by Studio beside the sample.
    pub metadata: BTreeMap<String, String>,
}

/// What is known of a sample beside its data; a JSON file of the spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SampleMetadata {
    pub(super) category: String,
    pub(super) label: String,
    pub(super) kind: SampleKind,
    /// Length of the data: a power cut may have cut it.
    pub(super) bytes: u64,
    /// Missing in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) collected: Option<CollectedDetails>,
}

impl SampleMetadata {
    pub(super) fn of(sample: &UploadSample) -> Self {
        Self {
            category: sample.category.clone(),
            label: sample.label.clone(),
            kind: sample.kind,
            bytes: sample.data.len() as u64,
            collected: sample.collected.clone(),
        }
    }

    /// The value of `x-label`.
    pub(super) fn encoded_label(&self) -> String {
        utf8_percent_encode(&self.label, LABEL).to_string()
    }

    /// The name of the file: the label unencoded, if no name is given. A quotation mark would end the parameter of the header.
    pub(super) fn file_name(&self) -> String {
        let name = self.collected.as_ref().map_or(&self.label, |collected| &collected.name);
        let name: String = name.chars().filter(|c| !c.is_control()).collect();
        format!("{}.{}", name.replace('"', "%22"), self.kind.extension())
    }

    /// The label, or the labels of the boxes, for people.
    pub(super) fn shown_label(&self) -> String {
        let boxes = self.collected.as_ref().map_or(&[][..], |collected| &collected.boxes);
        let labels: BTreeSet<_> = boxes.iter().map(|found| found.label.as_str()).collect();
        match self.label.as_str() {
            "" => labels.into_iter().collect::<Vec<_>>().join(", "),
            label => label.to_owned(),
        }
    }

    /// The bytes that an upload takes at most, beside those of TCP and TLS.
    pub(super) fn upload_bytes(&self) -> u64 {
        self.bytes + self.labels_file().map_or(0, |labels| labels.len() as u64) + OVERHEAD
    }

    /// Whether Studio must not take a label from the name of the file, as it does for samples without one.
    pub(super) fn is_unlabelled(&self) -> bool {
        self.collected.is_some() && self.label.is_empty()
    }

    /// The value of `x-metadata`: JSON in ASCII, because a header takes nothing else.
    pub(super) fn encoded_metadata(&self) -> String {
        let metadata = self.collected.as_ref().map(|collected| &collected.metadata);
        let json = serde_json::json!(metadata.unwrap_or(&BTreeMap::new())).to_string();
        let mut ascii = String::with_capacity(json.len());
        for unit in json.encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => ascii.push(char::from(byte)),
                _ => ascii.push_str(&format!("\\u{unit:04x}")),
            }
        }
        ascii
    }

    /// The content of the file with the boxes; `None`: there are none.
    pub(super) fn labels_file(&self) -> Option<String> {
        let boxes = &self.collected.as_ref()?.boxes;
        (!boxes.is_empty()).then(|| labels_file(&self.file_name(), boxes).to_string())
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
            collected: None,
        };
        assert_eq!(metadata.encoded_label(), "noise%20%26%20%22d%C3%B6r%22%20(1)");
        assert_eq!(metadata.file_name(), "noise & %22dör%22 (1).wav");
        assert_eq!(
            (metadata.encoded_metadata().as_str(), metadata.is_unlabelled()),
            ("{}", false)
        );
    }

    #[test]
    fn a_collected_sample_has_a_name_metadata_in_ascii_and_perhaps_boxes() {
        let found = LabelledBox {
            label: "car".to_owned(),
            x: 0,
            y: 0,
            width: 1,
            height: 1,
        };
        let mut metadata = SampleMetadata {
            category: "training".to_owned(),
            label: String::new(),
            kind: SampleKind::Jpeg,
            bytes: 0,
            collected: Some(CollectedDetails {
                name: "device.1".to_owned(),
                boxes: vec![found],
                metadata: [("model".to_owned(), "Tür 🚪 \"1\"".to_owned())].into(),
            }),
        };
        assert_eq!(metadata.file_name(), "device.1.jpg");
        assert!(metadata.is_unlabelled());
        let encoded = metadata.encoded_metadata();
        assert!(encoded.is_ascii(), "{encoded}");
        let read: BTreeMap<String, String> = serde_json::from_str(&encoded).unwrap();
        assert_eq!(read["model"], "Tür 🚪 \"1\"");
        assert!(metadata.labels_file().unwrap().contains("\"device.1.jpg\":[{"));
        metadata.collected.as_mut().unwrap().boxes.clear();
        assert_eq!(metadata.labels_file(), None);
    }

    #[test]
    fn the_metadata_of_an_earlier_version_is_read() {
        let text = r#"{"category":"training","label":"cat","kind":"jpeg","bytes":5}"#;
        let metadata: SampleMetadata = serde_json::from_str(text).unwrap();
        assert_eq!(
            (metadata.collected.as_ref(), metadata.file_name().as_str()),
            (None, "cat.jpg")
        );
        assert_eq!(serde_json::to_string(&metadata).unwrap(), text);
    }
}
