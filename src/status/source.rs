//! What the other modules report: plain values, and the trait through which the registry reads those that change all the time.
//!
//! Each module implements [`StatusSource`] for its own type, so that this module needs to know none of them.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::health::HealthFlag;
use super::latency::Latency;
use crate::config::FilterConfig;

/// A part of the component whose status is read when somebody asks for it.
pub trait StatusSource<T>: Debug + Send + Sync {
    /// The status now. Must not block: it is called on async tasks.
    fn status(&self) -> T;
}

/// What stays the same while the process runs.
#[derive(Debug, Clone)]
pub struct ComponentInfo {
    /// The device's name.
    pub device: String,
    /// Whether pairs are cached in files.
    pub file_cache: bool,
    /// The bucket of the S3 cache; `None`: it is off.
    pub s3_bucket: Option<String>,
    /// Whether the live page is on.
    pub live_page: bool,
}

/// Where messages go, and whether they get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkStatus {
    /// Messages are printed on the terminal (`demo`).
    Stdout,
    /// A connection attempt is under way.
    Connecting {
        /// Attempts since the start or since the last good connection, this one included.
        attempt: u32,
    },
    /// The broker accepted the connection and the subscription.
    Online {
        /// For how long.
        duration: Duration,
    },
    /// Waiting for the next connection attempt.
    Offline {
        /// Why, as a sentence.
        reason: String,
        /// For how long there has been no connection.
        duration: Duration,
        /// Length of the current wait.
        retry_in: Duration,
    },
}

/// A link whose status never changes: the terminal.
impl StatusSource<LinkStatus> for LinkStatus {
    fn status(&self) -> LinkStatus {
        self.clone()
    }
}

/// Messages on their way to the broker.
#[derive(Debug, Clone, Default)]
pub struct OutboxStatus {
    /// Messages that are not acknowledged yet, in memory and on disk.
    pub waiting: u64,
    /// Whether the disk spool works.
    pub spool: HealthFlag,
    /// The last few messages, the newest first.
    pub published: Vec<PublishedMessage>,
}

/// A message that was handed to the outbox.
#[derive(Debug, Clone)]
pub struct PublishedMessage {
    /// Milliseconds since the Unix epoch.
    pub ts: u64,
    /// Full topic.
    pub topic: Arc<str>,
    /// The payload, shared with the outbox.
    pub payload: Bytes,
}

/// What decides about inferences, and how long they take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReportStatus {
    /// The confidence filter in force.
    pub filter: FilterConfig,
    /// The backoff gate publishes every Nth inference that passes the filter; at least 1.
    pub publish_every: u32,
    /// Round trips to the model.
    pub latency: Latency,
}

/// Clients of the live page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ViewerStatus {
    /// Clients that receive anything.
    pub viewers: usize,
    /// Those of them that receive pictures.
    pub picture_viewers: usize,
    /// Pictures encoded as JPEG for them.
    pub pictures_encoded: u64,
}

/// The model that was loaded last.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelSummary {
    /// Project name.
    pub name: String,
    /// Project owner.
    pub owner: String,
    /// Deployment version, as `v<number>`.
    pub version: String,
    /// `model_type`, such as `object_detection`.
    #[serde(rename = "type")]
    pub model_type: String,
    /// Class labels.
    pub labels: Vec<String>,
    /// What it takes.
    pub input: ModelInputSummary,
}

/// The input of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ModelInputSummary {
    /// `image`, `audio`, or the name of a sensor that this component cannot read.
    pub kind: &'static str,
    /// Pixels of a picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels of a picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Audio samples per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency: Option<u32>,
}
