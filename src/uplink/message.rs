//! Messages to publish, their classes, and state notices.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::config::Qos;
use crate::device::Topics;
use crate::util::clock::{now_ms, unix_ms};

/// How a message is treated while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Inferences and events keep their order and are not lost while memory and disk have room.
    Inference,
    /// Answers, state notices and the clearing of retained commands are sent before inferences.
    Urgent,
    /// Only the newest metrics message is kept.
    Metrics,
}

/// One MQTT publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Full topic.
    pub topic: Arc<str>,
    /// Payload; cheap to clone.
    pub payload: Bytes,
    /// How the message is treated while it waits.
    pub class: Class,
    /// Quality of service.
    pub qos: Qos,
    /// MQTT retain flag: only the empty message that clears a retained command has it.
    pub retain: bool,
    /// Set for a state notice.
    pub status: Option<Status>,
}

impl Message {
    fn new(topic: &str, payload: Bytes, class: Class, qos: Qos) -> Self {
        Self {
            topic: topic.into(),
            payload,
            class,
            qos,
            retain: false,
            status: None,
        }
    }

    /// An inference.
    pub fn inference(topics: &Topics, payload: impl Into<Bytes>, qos: Qos) -> Self {
        Self::new(&topics.inference_output, payload.into(), Class::Inference, qos)
    }

    /// An event. It is kept and ordered like an inference.
    pub fn event(topics: &Topics, payload: impl Into<Bytes>, qos: Qos) -> Self {
        Self::new(&topics.events, payload.into(), Class::Inference, qos)
    }

    /// Metrics.
    pub fn metrics(topics: &Topics, payload: impl Into<Bytes>, qos: Qos) -> Self {
        Self::new(&topics.metrics, payload.into(), Class::Metrics, qos)
    }

    /// The answer to a command.
    pub fn answer(topics: &Topics, payload: impl Into<Bytes>, qos: Qos) -> Self {
        Self::new(&topics.command_output, payload.into(), Class::Urgent, qos)
    }

    /// A state notice with the current time and a new id.
    pub fn notice(topics: &Topics, status: Status, qos: Qos) -> Self {
        let payload = status.payload(SystemTime::now(), Uuid::new_v4());
        Self {
            status: Some(status),
            ..Self::new(&topics.command_output, payload, Class::Urgent, qos)
        }
    }

    /// The notice that another configuration is in force: the keys with another value, how they are applied (`at_once`,
    /// `new_session`, `new_process`), and the values that are not used as given.
    pub fn reconfigured(topics: &Topics, keys: &[&str], applied: &str, warnings: &[String], qos: Qos) -> Self {
        let mut result = json!({"status": "reconfigured", "changed": keys, "applied": applied});
        if !warnings.is_empty() {
            result["warnings"] = warnings.into();
        }
        Self::answer_with_time(topics, result, qos)
    }

    /// The notice that a deployed configuration cannot run, with the reason as a sentence.
    pub fn config_refused(topics: &Topics, reason: &str, qos: Qos) -> Self {
        Self::answer_with_time(topics, json!({"status": "configuration_refused", "error": reason}), qos)
    }

    /// The notice `started`, with the deployment version of the model.
    pub fn started(topics: &Topics, version: Option<u64>, qos: Qos) -> Self {
        let mut result = Status::Started.result(SystemTime::now(), Uuid::new_v4());
        if let Some(version) = version {
            result["model_version"] = shown_version(version);
        }
        Self {
            status: Some(Status::Started),
            ..Self::answer(topics, json!({ "result": result }).to_string(), qos)
        }
    }

    /// The notice of an update of the model.
    pub fn model_notice(topics: &Topics, notice: &ModelNotice<'_>, qos: Qos) -> Self {
        Self::answer_with_time(topics, notice.result(), qos)
    }

    fn answer_with_time(topics: &Topics, mut result: Value, qos: Qos) -> Self {
        result["ts"] = now_ms().into();
        result["id"] = json!(Uuid::new_v4());
        Self::answer(topics, json!({ "result": result }).to_string(), qos)
    }

    /// Whether it is an event, also one of an earlier process.
    pub(super) fn is_event(&self) -> bool {
        self.topic.ends_with("/events")
    }

    /// Whether it is sent only after the broker has acknowledged all earlier inferences.
    pub fn is_sent_after_inferences(&self) -> bool {
        self.status == Some(Status::Paused)
    }

    /// Whether it replaces a notice `paused` that was not sent yet.
    pub fn supersedes_pause(&self) -> bool {
        matches!(self.status, Some(Status::Started | Status::Stopped))
    }

    /// A command to a device, as `send` publishes it. Always QoS 1.
    pub fn command(topics: &Topics, payload: impl Into<Bytes>) -> Self {
        Self::new(&topics.command_input, payload.into(), Class::Urgent, Qos::AtLeastOnce)
    }

    /// The message that `check --online` publishes: an answer with a key that no command uses. Always QoS 1.
    pub fn check(topics: &Topics) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let payload = serde_json::json!({"result": {"check": "OK", "version": version}})
            .to_string()
            .into();
        Self::new(&topics.command_output, payload, Class::Urgent, Qos::AtLeastOnce)
    }

    /// The empty retained message that removes a retained command. Always QoS 1, independent of the configuration.
    pub(super) fn clear_retained_command(topics: &Topics) -> Self {
        let message = Self::new(&topics.command_input, Bytes::new(), Class::Urgent, Qos::AtLeastOnce);
        Self {
            retain: true,
            ..message
        }
    }
}

/// What came of an update of the model. Versions are deployment versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelNotice<'a> {
    /// Another version runs.
    Updated {
        /// It.
        version: u64,
        /// The one before.
        before: Option<u64>,
    },
    /// A new version is not used.
    Failed {
        /// The one that goes on.
        version: Option<u64>,
        /// The one that is not used.
        failed: u64,
        /// Why, as a sentence.
        reason: &'a str,
    },
    /// The version before comes back, because the new one failed.
    Restored {
        /// The one that comes back.
        version: Option<u64>,
        /// The one that failed.
        failed: u64,
        /// Why, as a sentence.
        reason: &'a str,
    },
}

impl ModelNotice<'_> {
    fn result(&self) -> Value {
        let shown = |version: Option<u64>| version.map(shown_version);
        match *self {
            Self::Updated { version, before } => json!({
                "status": "model_updated", "model_version": shown_version(version), "previous_version": shown(before),
            }),
            Self::Failed {
                version,
                failed,
                reason,
            } => json!({
                "status": "model_update_failed", "model_version": shown(version),
                "failed_version": shown_version(failed), "error": reason,
            }),
            Self::Restored {
                version,
                failed,
                reason,
            } => json!({
                "status": "model_restored", "model_version": shown(version),
                "failed_version": shown_version(failed), "error": reason,
            }),
        }
    }
}

/// A deployment version as `get_model_info` shows it.
fn shown_version(version: u64) -> Value {
    format!("v{version}").into()
}

/// State of the component, published on `command/output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The model is loaded and the first frame was inferred.
    Started,
    /// The source ended; waiting for `restart`.
    Paused,
    /// The component stopped.
    Stopped,
    /// The connection was lost: the last will.
    Offline,
    /// The connection works again and the broker granted the subscription.
    Online,
}

impl Status {
    /// `{"result":{"status":"...","ts":<ms>,"id":"<uuid>"}}`
    pub fn payload(self, at: SystemTime, id: Uuid) -> Bytes {
        json!({"result": self.result(at, id)}).to_string().into()
    }

    fn result(self, at: SystemTime, id: Uuid) -> Value {
        let status = match self {
            Self::Started => "started",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Offline => "offline",
            Self::Online => "online",
        };
        json!({"status": status, "ts": unix_ms(at), "id": id})
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_notice_has_status_time_and_id() {
        let at = UNIX_EPOCH + Duration::from_millis(1_736_016_142_920);
        assert_eq!(
            Status::Started.payload(at, Uuid::nil()),
            r#"{"result":{"status":"started","ts":1736016142920,"id":"00000000-0000-0000-0000-000000000000"}}"#
        );
    }

    #[test]
    fn a_notice_of_an_update_names_both_versions() {
        let notice = ModelNotice::Updated {
            version: 8,
            before: Some(7),
        };
        let expected = json!({"status": "model_updated", "model_version": "v8", "previous_version": "v7"});
        assert_eq!(notice.result(), expected);
        let notice = ModelNotice::Restored {
            version: None,
            failed: 8,
            reason: "it crashes",
        };
        let expected =
            json!({"status": "model_restored", "model_version": null, "failed_version": "v8", "error": "it crashes"});
        assert_eq!(notice.result(), expected);
        let started = Message::started(&Topics::new("d"), Some(8), Qos::AtMostOnce);
        let payload: Value = serde_json::from_slice(&started.payload).unwrap();
        assert_eq!(
            (&payload["result"]["status"], &payload["result"]["model_version"]),
            (&json!("started"), &json!("v8"))
        );
        assert_eq!(started.status, Some(Status::Started));
    }

    #[test]
    fn only_the_clearing_of_a_command_is_retained_and_it_is_always_qos_1() {
        let topics = Topics::new("d");
        let clear = Message::clear_retained_command(&topics);
        assert_eq!(
            (clear.retain, clear.qos, clear.payload.len()),
            (true, Qos::AtLeastOnce, 0)
        );
        assert_eq!(&*clear.topic, "/edgeimpulse/device/d/command/input");
        assert!(!Message::notice(&topics, Status::Online, Qos::AtMostOnce).retain);
        assert!(!Message::inference(&topics, "{}", Qos::AtMostOnce).retain);
    }
}
