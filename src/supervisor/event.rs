//! Events that the threads of model and capture send to their session.

use std::sync::Arc;

use crate::capture::{Capture, CaptureError, CaptureEvent, StopOutcome};
use crate::inference::trial::TrialFailure;
use crate::inference::{InferenceFault, Progress};
use crate::model::ModelInfo;
use crate::status::SourceState;
use crate::studio::{FetchError, ModelUpdate, StoredModel};
use crate::util::panics::Panicked;
use crate::util::text::sentence;

/// An event with the epoch of its sender. The epoch grows with each start, so a late event of an abandoned thread can be
/// ignored.
#[derive(Debug)]
pub(super) struct EpochEvent {
    pub epoch: u64,
    pub event: SessionEvent,
}

/// An event of the model or of the capture.
#[derive(Debug)]
pub(super) enum SessionEvent {
    Model(ModelEvent),
    Capture(PipelineEvent),
}

/// An event of the inference thread, or of the search for a model.
#[derive(Debug)]
pub(super) enum ModelEvent {
    Progress(Progress),
    Ended(Result<(), InferenceFault>),
    /// The search for a model found one or failed. It has no epoch.
    Found(ModelUpdate),
    /// The download for an update has ended. It has no epoch.
    Fetched(Box<FetchedModel>),
    /// The trial of a new model has ended. It has no epoch.
    TrialEnded(Result<Arc<ModelInfo>, TrialFailure>),
}

/// The model that an update found.
#[derive(Debug)]
pub(super) struct FetchedModel {
    /// Its version, also if it cannot be used.
    pub found: Option<u64>,
    pub result: Result<Result<StoredModel, FetchError>, Panicked>,
}

impl ModelEvent {
    /// Whether the event is valid in every epoch.
    pub(super) fn is_for_any_epoch(&self) -> bool {
        matches!(self, Self::Found(_) | Self::Fetched(_) | Self::TrialEnded(_))
    }
}

/// An event of the pipeline, or of the threads that start and stop it.
#[derive(Debug)]
pub(super) enum PipelineEvent {
    Started(Result<Capture, CaptureError>),
    Reported(CaptureEvent),
    Stopped(StopOutcome),
}

impl PipelineEvent {
    /// The new state of the source after the event, if the event changes it.
    pub(super) fn source_state(&self) -> Option<SourceState> {
        match self {
            Self::Started(Ok(_)) => Some(SourceState::Running),
            Self::Started(Err(e)) | Self::Reported(CaptureEvent::Error(e)) => Some(SourceState::Waiting(sentence(e))),
            Self::Reported(CaptureEvent::Stalled { after }) => {
                let reason = format!("it delivered no frame for {:.0} s", after.as_secs_f32());
                Some(SourceState::Stalled(reason))
            }
            Self::Reported(CaptureEvent::EndOfStream) => Some(SourceState::Starting),
            Self::Stopped(_) => None,
        }
    }
}
