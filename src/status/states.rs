//! The states of the model and of the source.

use std::time::Instant;

use super::health::{HealthFlag, HealthStatus, Part};

/// State of the model.
#[derive(Debug, Clone, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum ModelState {
    /// It is being loaded.
    Starting,
    /// It prepares its first inference since this time. That may take minutes.
    WarmingUp(Instant),
    /// It answers requests.
    Running,
    /// It failed and will be started again, or there is no model yet.
    Waiting(
        /// Why, as a sentence.
        String,
    ),
    /// This component cannot feed it.
    UnsupportedModel(
        /// Why, as a sentence.
        String,
    ),
}

impl ModelState {
    /// The name of the state in messages.
    pub(super) fn name(&self) -> &'static str {
        self.into()
    }

    /// `resolver`: whether the model is the one that was asked for. `shared_memory`: whether it gets its features in shared
    /// memory. `results`: whether its results fit into messages.
    pub(super) fn health(
        &self,
        resolver: &HealthFlag,
        shared_memory: &HealthFlag,
        results: &HealthFlag,
    ) -> HealthStatus {
        match (
            self,
            [resolver, results, shared_memory]
                .into_iter()
                .find_map(HealthFlag::failure),
        ) {
            (Self::Waiting(reason) | Self::UnsupportedModel(reason), _) => {
                HealthStatus::failing(Part::Model, self.name(), reason)
            }
            (_, Some(reason)) => HealthStatus::failing(Part::Model, self.name(), reason),
            (_, None) => HealthStatus::ok(Part::Model, self.name()),
        }
    }

    /// Why it waits.
    pub(super) fn reason(&self) -> Option<&str> {
        match self {
            Self::Waiting(reason) => Some(reason),
            _ => None,
        }
    }
}

/// State of the source.
#[derive(Debug, Clone, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum SourceState {
    /// It waits for the model, or is being started.
    Starting,
    /// It delivers frames or audio.
    Running,
    /// It failed and will be started again.
    Waiting(
        /// Why it failed, as a sentence.
        String,
    ),
    /// It delivered nothing for too long and is started again. It stays in this state until something of it is inferred.
    Stalled(
        /// What happened, as a sentence.
        String,
    ),
    /// It ended; the `restart` command starts it again.
    Paused,
}

impl SourceState {
    /// The name of the state in messages.
    pub(super) fn name(&self) -> &'static str {
        self.into()
    }

    pub(super) fn health(&self) -> HealthStatus {
        match self {
            Self::Waiting(reason) | Self::Stalled(reason) => HealthStatus::failing(Part::Source, self.name(), reason),
            _ => HealthStatus::ok(Part::Source, self.name()),
        }
    }

    /// Why it is started again.
    pub(super) fn reason(&self) -> Option<&str> {
        match self {
            Self::Waiting(reason) | Self::Stalled(reason) => Some(reason),
            _ => None,
        }
    }
}
