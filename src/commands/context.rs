//! The parts of a session that the handlers of commands read and change.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::cache::Caches;
use crate::config::{Qos, Threshold};
use crate::device::Topics;
use crate::events::EventRecorder;
use crate::model::ModelInfo;
use crate::report::Report;
use crate::studio::UpdateRequester;
use crate::uplink::{Message, Outbox};

/// The parts of a session that commands act on.
pub struct CommandContext<'a> {
    /// Holds the confidence filter and the metrics.
    pub report: &'a Mutex<Report>,
    /// `None` until a model is loaded.
    pub model: Option<&'a Arc<ModelInfo>>,
    /// Thresholds of the model that were changed after it was loaded.
    pub changed_thresholds: Vec<Threshold>,
    /// Replaces the running model; `None`: not in this session.
    pub model_updates: Option<UpdateRequester>,
    /// Zones, lines, rules and totals.
    pub events: &'a Arc<EventRecorder>,
    /// The enabled caches.
    pub caches: &'a Caches,
    /// Publishes the answers.
    pub answers: AnswerPublisher,
}

/// Publishes answers on `command/output`.
#[derive(Debug, Clone)]
pub struct AnswerPublisher {
    /// Receives the answers.
    pub outbox: Arc<Outbox>,
    /// Topics of the device.
    pub topics: Arc<Topics>,
    /// Quality of service of answers.
    pub qos: Qos,
}

impl AnswerPublisher {
    /// Publishes one answer. Never waits.
    pub fn publish(&self, answer: Bytes) {
        self.outbox.push(Message::answer(&self.topics, answer, self.qos));
    }
}
