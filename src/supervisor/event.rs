//! What the parts report to the generation that keeps them.

use crate::capture::{Capture, CaptureError, CaptureEvent, StopOutcome};
use crate::inference::{InferenceFault, Progress};
use crate::studio::Found;

/// Something a part reports, with the number of its epoch: what an abandoned one says late is ignored.
#[derive(Debug)]
pub(super) struct Tagged {
    pub epoch: u64,
    pub event: Event,
}

/// What a part reports.
#[derive(Debug)]
pub(super) enum Event {
    Model(ModelEvent),
    Capture(PipelineEvent),
}

/// What an inference thread reports.
#[derive(Debug)]
pub(super) enum ModelEvent {
    Progress(Progress),
    Ended(Result<(), InferenceFault>),
    /// There is a model to start, or still none; belongs to no epoch.
    Found(Found),
}

impl ModelEvent {
    /// Whether it matters whichever epoch runs.
    pub(super) fn is_timeless(&self) -> bool {
        matches!(self, Self::Found(_))
    }
}

/// What the pipeline and the threads around it report.
#[derive(Debug)]
pub(super) enum PipelineEvent {
    Started(Result<Capture, CaptureError>),
    Said(CaptureEvent),
    Stopped(StopOutcome),
}
