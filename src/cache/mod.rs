//! Pairs of picture and message, `<id>.img` (JPEG) and `<id>.json` (the message as published), kept for later.
//!
//! A [`CacheWriter`] takes [`CacheItem`]s from the reporting side without ever holding it up and hands them to a [`Store`]
//! on its own thread. An [`S3Cache`] does the same for a bucket, with uploads side by side. A [`CacheItem`] is cheap to
//! clone, so each cache that is on gets its own.

mod error;
mod file;
mod index;
mod names;
mod requests;
mod s3;
mod writer;

use std::time::Instant;

use bytes::Bytes;
use uuid::Uuid;

pub use self::error::CacheError;
pub use self::file::FileCache;
pub use self::names::{Part, file_name, pair_id};
pub use self::s3::{S3Cache, S3Error, S3Settings, probe};
pub use self::writer::CacheWriter;

use crate::model::ModelInfo;

/// One pair to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheItem {
    /// Id of the inference, which names both files. Never used for two items.
    pub id: Uuid,
    /// The inferred picture as JPEG; `None` where there is none (sound): then only the message is kept.
    pub image: Option<Bytes>,
    /// The message as published.
    pub json: Bytes,
}

impl CacheItem {
    /// Bytes of both parts.
    pub fn size(&self) -> usize {
        self.json.len() + self.image.as_ref().map_or(0, Bytes::len)
    }
}

/// Where pairs go in S3, as an inference message names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Location {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with: `<model name>_v<deploy version>/`.
    pub prefix: String,
}

/// Most bytes of a model's name in a key: S3 takes keys of 1024 bytes, and version, id and ending follow.
const MOST_NAME_BYTES: usize = 900;

impl S3Location {
    /// The place for what this model infers. Its name is changed only where S3 cannot take it: control characters, which
    /// XML cannot carry, and path segments of dots alone become `_`, and a very long one is cut.
    pub fn new(bucket: &str, model: &ModelInfo) -> Self {
        Self {
            bucket: bucket.to_owned(),
            prefix: format!("{}_v{}/", key_name(&model.name), model.deploy_version),
        }
    }
}

fn key_name(name: &str) -> String {
    let segment = |segment: &str| match segment {
        "." | ".." => "_".to_owned(),
        other => other.replace(|c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'), "_"),
    };
    let mut name = name.split('/').map(segment).collect::<Vec<_>>().join("/");
    name.truncate(name.floor_char_boundary(MOST_NAME_BYTES));
    name
}

/// A place that keeps pairs. Its methods may block; the clock comes in as `now`.
pub trait Store: Send + 'static {
    /// Gets ready, so that a fault of the configuration is known at once. Called before anything else.
    ///
    /// # Errors
    /// When it is not ready; [`Store::put`] tries again.
    fn open(&mut self, now: Instant) -> Result<(), CacheError>;

    /// Keeps one pair, or nothing of it.
    ///
    /// # Errors
    /// When the pair was not kept.
    fn put(&mut self, item: &CacheItem, now: Instant) -> Result<(), CacheError>;

    /// Removes every pair, and nothing else.
    ///
    /// # Errors
    /// When something of a pair is left.
    fn clear(&mut self) -> Result<(), CacheError>;

    /// Removes one pair.
    ///
    /// # Errors
    /// When it is not there ([`CacheError::NoSuchPair`]) or something of it is left.
    fn clear_one(&mut self, id: Uuid) -> Result<(), CacheError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::protocol::ModelInput;

    fn model(name: &str) -> ModelInfo {
        ModelInfo {
            project_id: 1,
            name: name.to_owned(),
            owner: "me".to_owned(),
            deploy_version: 25,
            input: ModelInput::Unsupported("accelerometer"),
            features: 3,
            model_type: "classification".to_owned(),
            labels: vec![],
            slow_first_inference: false,
            raw_parameters: serde_json::Map::new(),
            raw_project: serde_json::Map::new(),
            raw_engine: serde_json::Value::Null,
        }
    }

    #[test]
    fn the_place_in_s3_is_named_after_the_model_and_its_deployment() {
        let place = S3Location::new("photos", &model("Fruit sorter"));
        assert_eq!(
            (place.bucket.as_str(), place.prefix.as_str()),
            ("photos", "Fruit sorter_v25/")
        );
    }

    #[test]
    fn a_name_is_changed_only_where_a_key_cannot_hold_it() {
        let prefix = |name: &str| S3Location::new("photos", &model(name)).prefix;
        assert_eq!(prefix("Äpfel & Birnen/süß (2)"), "Äpfel & Birnen/süß (2)_v25/");
        assert_eq!(prefix("../a\n\0b/./c"), "_/a__b/_/c_v25/");
        assert_eq!(prefix(&"ä".repeat(1000)).len(), 900 + "_v25/".len());
    }
}
