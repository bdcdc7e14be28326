//! How each part of the component is: one word for each, and why for those that are not well.

use std::fmt::Display;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value};

/// Characters of a reason that are told; the log has all of it.
const REASON_LENGTH: usize = 160;

/// The parts, in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The model's process.
    Model,
    /// The camera, microphone or whatever else is captured.
    Source,
    /// The connection to the broker.
    Mqtt,
    /// The disk spool of undelivered messages.
    Spool,
    /// Pairs in files.
    CacheFile,
    /// Pairs in S3.
    CacheS3,
    /// The live page.
    Preview,
}

impl Part {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Source => "source",
            Self::Mqtt => "mqtt",
            Self::Spool => "spool",
            Self::CacheFile => "cache_file",
            Self::CacheS3 => "cache_s3",
            Self::Preview => "preview",
        }
    }
}

/// How one part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthStatus {
    part: Part,
    word: &'static str,
    reason: Option<String>,
}

impl HealthStatus {
    /// A part that is well, or on its way to be: `word` says which.
    pub fn well(part: Part, word: &'static str) -> Self {
        Self {
            part,
            word,
            reason: None,
        }
    }

    /// A part that is not, with the reason as a sentence.
    pub fn ill(part: Part, word: &'static str, reason: impl Display) -> Self {
        Self {
            part,
            word,
            reason: Some(brief(&reason.to_string())),
        }
    }

    /// A part that is `off`, or as its flag says: `well`, or `failing`.
    pub fn read(part: Part, is_on: bool, well: &'static str, flag: &HealthFlag) -> Self {
        match flag.failure() {
            _ if !is_on => Self::well(part, "off"),
            Some(reason) => Self::ill(part, "failing", reason),
            None => Self::well(part, well),
        }
    }
}

/// How all parts are at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health(Vec<HealthStatus>);

impl Health {
    /// Of these parts.
    pub fn new(conditions: impl Into<Vec<HealthStatus>>) -> Self {
        Self(conditions.into())
    }

    /// The word of each part by its name.
    pub fn words(&self) -> Map<String, Value> {
        let word = |condition: &HealthStatus| (condition.part.name().to_owned(), condition.word.into());
        self.0.iter().map(word).collect()
    }

    /// `part: reason` for each part that is not well; one line each, of less than 200 characters.
    pub fn problems(&self) -> Vec<String> {
        let problem = |condition: &HealthStatus| {
            let reason = condition.reason.as_ref()?;
            Some(format!("{}: {reason}", condition.part.name()))
        };
        self.0.iter().filter_map(problem).collect()
    }
}

/// What a part that works on its own last noticed about itself; a clone is the same flag. One that was never set reads well.
#[derive(Debug, Clone, Default)]
pub struct HealthFlag(Arc<Mutex<Option<String>>>);

impl HealthFlag {
    /// It does not work, for this reason; no secrets in it.
    pub fn fails(&self, reason: impl Display) {
        *self.0.lock() = Some(reason.to_string());
    }

    /// It works.
    pub fn works(&self) {
        *self.0.lock() = None;
    }

    /// Why it does not work; `None`: it does.
    pub fn failure(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

/// One line of bounded length.
fn brief(reason: &str) -> String {
    let line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut characters = line.chars().filter(|c| !c.is_control());
    let mut text: String = characters.by_ref().take(REASON_LENGTH).collect();
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
    fn every_part_has_a_word_and_those_that_are_not_well_a_reason() {
        let flag = HealthFlag::default();
        flag.clone().fails("the disk\nis full");
        let health = Health::new([
            HealthStatus::well(Part::Model, "running"),
            HealthStatus::ill(Part::Source, "waiting", "no camera was found"),
            HealthStatus::read(Part::CacheFile, true, "ok", &flag),
            HealthStatus::read(Part::CacheS3, false, "ok", &flag),
        ]);
        assert_eq!(
            Value::from(health.words()),
            json!({"model": "running", "source": "waiting", "cache_file": "failing", "cache_s3": "off"})
        );
        assert_eq!(
            health.problems(),
            ["source: no camera was found", "cache_file: the disk is full"]
        );
        flag.works();
        assert_eq!(
            HealthStatus::read(Part::CacheFile, true, "ok", &flag),
            HealthStatus::well(Part::CacheFile, "ok")
        );
    }

    #[test]
    fn a_long_reason_is_one_short_line() {
        let health = Health::new([HealthStatus::ill(Part::Preview, "failing", "ü\u{1b}\n".repeat(400))]);
        let problem = &health.problems()[0];
        assert!(problem.chars().count() < 200 && problem.ends_with('…'), "{problem}");
        assert!(!problem.contains(char::is_control));
    }
}
