//! The health of each part of the component: its state in one word, and the reason if it fails.

use std::fmt::Display;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value};

use crate::util::redact;
use crate::util::text::{cut_numbers, is_deceptive};

/// Most characters of a reason. The log contains the whole reason.
const MAX_REASON: usize = 160;

/// The parts of the component, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Part {
    /// The model process.
    Model,
    /// The camera, microphone or other source.
    Source,
    /// The connection to the broker.
    Mqtt,
    /// The disk spool of undelivered messages.
    Spool,
    /// The file cache.
    CacheFile,
    /// The S3 cache.
    CacheS3,
    /// The clips of events.
    EventClips,
    /// The live page.
    Preview,
    /// The configuration that was deployed last.
    Configuration,
    /// The local topics of Greengrass.
    LocalTopics,
    /// The connection to Edge Impulse Studio.
    Studio,
    /// The files in the work directory.
    WorkDir,
}

impl Part {
    /// Name of the part in messages.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The health of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthStatus {
    part: Part,
    state: &'static str,
    problem: Option<String>,
}

impl HealthStatus {
    /// A part that works or is starting; `state` says which.
    pub fn ok(part: Part, state: &'static str) -> Self {
        Self {
            part,
            state,
            problem: None,
        }
    }

    /// A part that does not work, with the reason as a sentence.
    pub fn failing(part: Part, state: &'static str, reason: impl Display) -> Self {
        Self {
            part,
            state,
            problem: Some(one_line(&reason.to_string())),
        }
    }

    /// The state is `off` for a part without a flag, which is not enabled, `failing` if the flag is failing, else `ok_state`.
    pub fn from_flag(part: Part, ok_state: &'static str, flag: Option<&HealthFlag>) -> Self {
        match flag.map(HealthFlag::failure) {
            None => Self::ok(part, "off"),
            Some(Some(reason)) => Self::failing(part, "failing", reason),
            Some(None) => Self::ok(part, ok_state),
        }
    }
}

/// The health of all parts at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health(Vec<HealthStatus>);

impl Health {
    /// The health of the given parts.
    pub fn new(parts: impl Into<Vec<HealthStatus>>) -> Self {
        Self(parts.into())
    }

    /// The state of each part by its name.
    pub fn states(&self) -> Map<String, Value> {
        let state = |status: &HealthStatus| (status.part.name().to_owned(), status.state.into());
        self.0.iter().map(state).collect()
    }

    /// `part: reason` for each failing part. Each is one line of less than 200 characters.
    pub fn problems(&self) -> Vec<String> {
        let problem = |status: &HealthStatus| {
            let reason = status.problem.as_ref()?;
            Some(format!("{}: {reason}", status.part.name()))
        };
        self.0.iter().filter_map(problem).collect()
    }
}

/// Whether a part works; the part itself sets it. Clones share the same flag. It is ok until a failure is set.
#[derive(Debug, Clone, Default)]
pub struct HealthFlag(Arc<Mutex<Option<String>>>);

impl HealthFlag {
    /// The part fails, for this reason. The reason is published: it must not contain secrets.
    pub fn set_failing(&self, reason: impl Display) {
        *self.0.lock() = Some(reason.to_string());
    }

    /// The part works.
    pub fn set_ok(&self) {
        *self.0.lock() = None;
    }

    /// Why the part fails; `None`: it works.
    pub fn failure(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

/// The text as one line of at most [`MAX_REASON`] characters, without secrets.
pub(super) fn one_line(reason: &str) -> String {
    let line = redact::credentials(reason);
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = cut_numbers(&line);
    let mut characters = line.chars().filter(|c| !is_deceptive(*c));
    let mut text: String = characters.by_ref().take(MAX_REASON).collect();
    if characters.next().is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_part_has_a_state_and_failing_parts_a_reason() {
        let flag = HealthFlag::default();
        flag.clone().set_failing("the disk\nis full");
        let health = Health::new([
            HealthStatus::ok(Part::Model, "running"),
            HealthStatus::failing(Part::Source, "waiting", "no camera was found"),
            HealthStatus::from_flag(Part::CacheFile, "ok", Some(&flag)),
            HealthStatus::from_flag(Part::CacheS3, "ok", None),
        ]);
        assert_eq!(
            Value::from(health.states()),
            json!({"model": "running", "source": "waiting", "cache_file": "failing", "cache_s3": "off"})
        );
        assert_eq!(
            health.problems(),
            ["source: no camera was found", "cache_file: the disk is full"]
        );
        flag.set_ok();
        assert_eq!(
            HealthStatus::from_flag(Part::CacheFile, "ok", Some(&flag)),
            HealthStatus::ok(Part::CacheFile, "ok")
        );
    }

    #[test]
    fn a_long_reason_becomes_one_short_line() {
        let health = Health::new([HealthStatus::failing(Part::Preview, "failing", "ü\u{1b}\n".repeat(400))]);
        let problem = &health.problems()[0];
        assert!(problem.chars().count() < 200 && problem.ends_with('…'), "{problem}");
        assert!(!problem.contains(char::is_control));
    }
}
