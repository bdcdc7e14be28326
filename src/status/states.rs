//! The states of model and source.

use std::time::Instant;

use crate::status::health::{HealthFlag, HealthStatus, Part};

/// What there is to do about a model that wants another sensor.
const UNSUPPORTED: &str = "it works on a sensor that this component cannot read; configure or deploy another model";

/// How the model is.
#[derive(Debug, Clone)]
pub enum ModelState {
    /// Loading.
    Starting,
    /// Preparing its first answer, which may take very long, since this time.
    WarmingUp(Instant),
    /// Answering.
    Running,
    /// It ended and is started again, or there is none yet.
    Waiting(
        /// Why, as a sentence.
        String,
    ),
    /// It wants a sensor this component cannot read.
    Unsupported,
}

impl ModelState {
    /// In one word.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::WarmingUp(_) => "warming-up",
            Self::Running => "running",
            Self::Waiting(_) => "waiting",
            Self::Unsupported => "unsupported-model",
        }
    }

    /// For the health of all parts; `supply`: whether the model is the one that was asked for.
    pub(crate) fn condition(&self, supply: &HealthFlag) -> HealthStatus {
        match (self, supply.failure()) {
            (Self::Waiting(reason), _) => HealthStatus::ill(Part::Model, self.word(), reason),
            (Self::Unsupported, _) => HealthStatus::ill(Part::Model, self.word(), UNSUPPORTED),
            (_, Some(reason)) => HealthStatus::ill(Part::Model, self.word(), reason),
            (_, None) => HealthStatus::well(Part::Model, self.word()),
        }
    }

    /// Why it waits.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            Self::Waiting(reason) => Some(reason),
            _ => None,
        }
    }
}

/// How the source is.
#[derive(Debug, Clone)]
pub enum SourceState {
    /// Waits for the model, or is being started.
    Starting,
    /// Delivers.
    Running,
    /// It failed and is started again.
    Waiting(
        /// Why it failed, as a sentence.
        String,
    ),
    /// It ended; waiting for `restart`.
    Paused,
}

impl SourceState {
    /// In one word.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting(_) => "waiting",
            Self::Paused => "paused",
        }
    }

    /// For the health of all parts.
    pub(crate) fn condition(&self) -> HealthStatus {
        match self {
            Self::Waiting(reason) => HealthStatus::ill(Part::Source, self.word(), reason),
            _ => HealthStatus::well(Part::Source, self.word()),
        }
    }

    /// Why it waits.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            Self::Waiting(reason) => Some(reason),
            _ => None,
        }
    }
}
