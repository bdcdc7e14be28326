//! An event, as the topic `events` carries it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::BoundingBox;

/// Crossings of a line: direction to label to number.
pub type LineTotals = BTreeMap<Arc<str>, BTreeMap<String, u64>>;

/// A message of the topic `events`. Fields that mean nothing for an event are absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub event: EventKind,
    /// The rule that started the event; none for a crossing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// The line that was crossed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<Arc<str>>,
    /// The name of the direction in which it was crossed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Arc<str>>,
    /// The same in `start`, `update` and `end`.
    pub id: Uuid,
    /// The object; together with `start_id` it does not repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_id: Option<i64>,
    /// The start of the model since which object ids count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_id: Option<Uuid>,
    /// The label of the object or of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The zone of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Arc<str>>,
    /// The highest value since the event began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The object's last box, in pixels of the model's input.
    #[serde(rename = "box", default, skip_serializing_if = "Option::is_none")]
    pub place: Option<EventBox>,
    /// Objects in the zone, for a rule that counts with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// How long the condition has held, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dwell_ms: Option<u64>,
    /// Crossings of this line since the totals were reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<LineTotals>,
    /// Why the event ended, if its condition did not end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<EndReason>,
    /// When the condition began to hold, ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ts: Option<u64>,
    /// Time of this message, ms since the Unix epoch.
    pub ts: u64,
    /// The inference that caused the message; none if time did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference_id: Option<Uuid>,
    /// The name of the file with the picture, if a cache has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// The name of the file with the clip of the event, if it is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<String>,
    /// The bucket with picture and clip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3_bucket: Option<String>,
    /// What stands before both names in that bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3_prefix: Option<String>,
}

/// What an event message tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The condition of a rule holds.
    Start,
    /// It still holds.
    Update,
    /// It holds no more.
    End,
    /// An object crossed a line.
    Cross,
}

/// Why an event ended although its condition may still hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The component or the model was started again.
    Restart,
    /// The component was stopped.
    Stop,
    /// Zones, lines and rules were changed.
    Configuration,
    /// There was no inference for some time.
    NoInferences,
}

/// A box in pixels of the model's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventBox {
    /// Left edge.
    pub x: i64,
    /// Top edge.
    pub y: i64,
    /// Width.
    pub width: i64,
    /// Height.
    pub height: i64,
}

impl From<&BoundingBox> for EventBox {
    fn from(found: &BoundingBox) -> Self {
        Self {
            x: found.x,
            y: found.y,
            width: found.width,
            height: found.height,
        }
    }
}

impl Event {
    /// An event about nothing yet.
    pub(super) fn new(event: EventKind, id: Uuid, ts: u64) -> Self {
        Self {
            event,
            rule: None,
            line: None,
            direction: None,
            id,
            object_id: None,
            start_id: None,
            label: None,
            zone: None,
            value: None,
            place: None,
            count: None,
            dwell_ms: None,
            totals: None,
            reason: None,
            start_ts: None,
            ts,
            inference_id: None,
            picture: None,
            clip: None,
            s3_bucket: None,
            s3_prefix: None,
        }
    }

    /// The end of an event that began before the process did.
    pub(super) fn ended_by_restart(self, ts: u64) -> Self {
        Self {
            event: EventKind::End,
            reason: Some(EndReason::Restart),
            inference_id: None,
            ts,
            ..self
        }
    }
}
