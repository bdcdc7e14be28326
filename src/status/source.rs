//! Values that the other modules report, and the trait through which the registry reads those that change often.
//!
//! Each module implements [`StatusSource`] for its own type, so this module does not depend on them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::health::HealthFlag;
use super::latency::Latency;
use crate::config::FilterConfig;

/// A part of the component whose status is read on request.
pub trait StatusSource<T>: Debug + Send + Sync {
    /// The current status. Must not block, because it is called on async tasks.
    fn status(&self) -> T;
}

/// Values that do not change while the process runs.
#[derive(Debug, Clone)]
pub struct ComponentInfo {
    /// The device's name.
    pub device: String,
    /// Whether the live page is on.
    pub live_page: bool,
    /// Whether messages also go to the local topics of Greengrass.
    pub local_topics: bool,
}

/// The enabled caches.
#[derive(Debug, Clone, Default)]
pub struct CacheStatus {
    /// The health of the file cache; `None`: it is off.
    pub files: Option<HealthFlag>,
    /// The bucket and the health of the S3 cache; `None`: it is off.
    pub s3: Option<(String, HealthFlag)>,
    /// The health of the clips of events; `None`: they are off.
    pub clips: Option<HealthFlag>,
}

/// The destination of messages and the state of its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkStatus {
    /// Messages are printed on the terminal (`demo`).
    Stdout,
    /// Nothing is published (`launch: linux`).
    Off,
    /// A connection attempt is in progress.
    Connecting {
        /// Number of this attempt since the start or since the last connection.
        attempt: u32,
    },
    /// The broker accepted the connection and the subscription.
    Online {
        /// Time since the connection was accepted.
        duration: Duration,
    },
    /// Waiting for the next connection attempt.
    Offline {
        /// Why, as a sentence.
        reason: String,
        /// Time without a connection.
        duration: Duration,
        /// Delay before the next attempt.
        retry_in: Duration,
    },
}

/// For `demo` and the data collection, whose status never changes.
impl StatusSource<LinkStatus> for LinkStatus {
    fn status(&self) -> LinkStatus {
        self.clone()
    }
}

/// Status of the outbox.
#[derive(Debug, Clone, Default)]
pub struct OutboxStatus {
    /// Messages that are not acknowledged yet, in memory and on disk.
    pub waiting: u64,
    /// Whether the disk spool works.
    pub spool: HealthFlag,
    /// The last few messages, the newest first.
    pub published: Vec<PublishedMessage>,
}

/// A message that was pushed into the outbox.
#[derive(Debug, Clone)]
pub struct PublishedMessage {
    /// Milliseconds since the Unix epoch.
    pub ts: u64,
    /// Full topic.
    pub topic: Arc<str>,
    /// The payload, shared with the outbox.
    pub payload: Bytes,
}

/// Numbers of events and crossings, and what goes on now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EventStatus {
    /// Since when they are counted, ms since the Unix epoch.
    pub since_ts: u64,
    /// Each rule.
    pub rules: Vec<RuleStatus>,
    /// Each line: direction to label to number of crossings.
    pub lines: Vec<(String, LineCounts)>,
    /// Each zone with the number of objects in it.
    pub zones: Vec<(String, usize)>,
    /// Events that did not start because too many were open.
    pub not_started: u64,
    /// The last messages, the newest first.
    pub recent: Vec<Value>,
}

/// Crossings of a line: direction to label to number.
pub type LineCounts = BTreeMap<Arc<str>, BTreeMap<String, u64>>;

/// The events of a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleStatus {
    /// Its name.
    pub name: String,
    /// Events that started.
    pub started: u64,
    /// Events that go on.
    pub open: usize,
}

impl EventStatus {
    /// As the command `get_counts` answers and the metrics message has it.
    pub fn to_json(&self) -> Value {
        let rules = self.rules.iter().map(|rule| {
            let numbers = json!({"started": rule.started, "open": rule.open});
            (rule.name.clone(), numbers)
        });
        let lines = self.lines.iter().map(|(name, counts)| (name.clone(), json!(counts)));
        let zones = self.zones.iter().map(|(name, count)| (name.clone(), json!(count)));
        json!({
            "since_ts": self.since_ts,
            "rules": rules.collect::<Map<_, _>>(),
            "lines": lines.collect::<Map<_, _>>(),
            "zones": zones.collect::<Map<_, _>>(),
            "not_started": self.not_started,
        })
    }
}

/// Settings of filter and gate, and the latency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReportStatus {
    /// The current confidence filter.
    pub filter: FilterConfig,
    /// The backoff gate publishes every Nth inference that passes the filter; at least 1.
    pub publish_every: u32,
    /// Latency of the model.
    pub latency: Latency,
}

/// Clients of the live page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ViewerStatus {
    /// Number of clients.
    pub viewers: usize,
    /// Number of clients that receive pictures.
    pub picture_viewers: usize,
    /// Number of pictures encoded as JPEG for clients.
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
    /// The input of the model.
    pub input: ModelInputSummary,
}

/// The input of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ModelInputSummary {
    /// `image`, `audio`, or the name of an unsupported sensor.
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
