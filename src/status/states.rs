//! The states of the model and of the source.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::health::{HealthFlag, HealthStatus, Part};

/// State of the model.
#[derive(Debug, Clone, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum ModelState {
    /// There is none (`launch: linux`).
    Off,
    /// The model is being loaded.
    Starting,
    /// The model has been preparing its first inference since this time, which may take minutes.
    WarmingUp(Instant),
    /// The model answers requests.
    Running,
    /// The model failed and will be restarted, or there is no model yet.
    Waiting(
        /// Why, as a sentence.
        String,
    ),
    /// The component does not support the model's input.
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

    /// `flags`: what can be wrong while the model runs; the first failure is shown.
    pub(super) fn health(&self, flags: &[&HealthFlag]) -> HealthStatus {
        match (self, flags.iter().find_map(|flag| flag.failure())) {
            (Self::Waiting(reason) | Self::UnsupportedModel(reason), _) => {
                HealthStatus::failing(Part::Model, self.name(), reason)
            }
            (_, Some(reason)) => HealthStatus::failing(Part::Model, self.name(), reason),
            (_, None) => HealthStatus::ok(Part::Model, self.name()),
        }
    }

    /// Why the model waits.
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
    /// The source waits for the model, or is being started.
    Starting,
    /// The source delivers frames or audio.
    Running,
    /// The source failed and will be restarted.
    Waiting(
        /// Why it failed, as a sentence.
        String,
    ),
    /// The source delivered nothing for too long and is restarted. It stays in this state until a frame or window is inferred.
    Stalled(
        /// What happened, as a sentence.
        String,
    ),
    /// The source ended; the `restart` command starts it again.
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

    /// Why the source is restarted.
    pub(super) fn reason(&self) -> Option<&str> {
        match self {
            Self::Waiting(reason) | Self::Stalled(reason) => Some(reason),
            _ => None,
        }
    }
}

/// State of the connection to Edge Impulse Studio.
#[derive(Debug, Clone, PartialEq, Eq, Default, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum StudioState {
    /// Nothing in the configuration asks for it.
    #[default]
    Off,
    /// The first attempt is in progress.
    Connecting,
    /// Studio accepted the device.
    Online,
    /// No connection; the next attempt follows.
    Offline(
        /// Why, as a sentence.
        String,
    ),
    /// Studio refused the device; the next attempt follows later.
    Refused(
        /// Why, as a sentence.
        String,
    ),
    /// Studio ends the connection again and again: another device may have the same id.
    Contended(
        /// What happens, as a sentence.
        String,
    ),
}

impl StudioState {
    /// The name of the state in messages.
    pub(super) fn name(&self) -> &'static str {
        self.into()
    }

    pub(super) fn health(&self) -> HealthStatus {
        match self.reason() {
            Some(reason) => HealthStatus::failing(Part::Studio, self.name(), reason),
            None => HealthStatus::ok(Part::Studio, self.name()),
        }
    }

    /// Why it does not work.
    pub(super) fn reason(&self) -> Option<&str> {
        match self {
            Self::Offline(reason) | Self::Refused(reason) | Self::Contended(reason) => Some(reason),
            Self::Off | Self::Connecting | Self::Online => None,
        }
    }
}

/// The state of the connection to Studio; the channel sets it. Clones share the same state.
#[derive(Debug, Clone, Default)]
pub struct StudioStateCell(Arc<Mutex<StudioState>>);

impl StudioStateCell {
    /// The state changed.
    pub fn set(&self, state: StudioState) {
        *self.0.lock() = state;
    }

    /// The present state.
    pub fn get(&self) -> StudioState {
        self.0.lock().clone()
    }
}
