//! Handles the events of model and capture: updates the status, and starts the next step.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use super::Session;
use crate::capture::CaptureEvent;
use crate::config::{FilterConfig, ThresholdReading};
use crate::inference::Progress;
use crate::model::ModelInfo;
use crate::status::{ModelState, SourceState};
use crate::studio::ModelUpdate;
use crate::supervisor::capture_supervisor;
use crate::supervisor::event::{EpochEvent, ModelEvent, PipelineEvent, SessionEvent};
use crate::supervisor::session_end::SessionEnd;

impl Session<'_> {
    pub(super) fn on_event(&mut self, EpochEvent { epoch, event }: EpochEvent) -> ControlFlow<SessionEnd> {
        match event {
            SessionEvent::Model(event) if event.is_for_any_epoch() || self.model.is_current(epoch) => {
                self.on_model_event(event);
            }
            SessionEvent::Capture(event) if self.capture.is_current(epoch) => return self.on_capture_event(event),
            SessionEvent::Capture(PipelineEvent::Started(Ok(capture))) => {
                // An abandoned start has succeeded, while its successor starts or runs.
                let stuck_threads = self.context.stuck_threads.clone();
                tokio::task::spawn_blocking(move || capture_supervisor::stop(capture, &stuck_threads));
            }
            SessionEvent::Model(_) | SessionEvent::Capture(_) => {}
        }
        ControlFlow::Continue(())
    }

    fn on_capture_event(&mut self, event: PipelineEvent) -> ControlFlow<SessionEnd> {
        let is_end = matches!(event, PipelineEvent::Reported(CaptureEvent::EndOfStream));
        match event.source_state() {
            Some(SourceState::Running) => self.context.registry.set_source_started(),
            Some(state) => self.context.registry.set_source_state(state),
            None => {}
        }
        self.capture.on_event(event)?;
        if is_end && self.capture.is_polling() {
            self.context.registry.set_source_started();
        }
        if let Some(generation) = self.capture.take_paused_generation() {
            self.context.registry.set_source_state(SourceState::Paused);
            self.pausing = Some(generation);
            self.notify_paused();
        }
        ControlFlow::Continue(())
    }

    fn on_model_event(&mut self, event: ModelEvent) {
        match event {
            ModelEvent::Progress(Progress::WarmingUp(info)) => {
                self.on_model_loaded(&info);
                self.context
                    .registry
                    .set_model_state(ModelState::WarmingUp(Instant::now()));
            }
            ModelEvent::Progress(Progress::Ready(info)) => {
                self.on_model_loaded(&info);
                self.context.registry.set_model_state(ModelState::Running);
                self.capture.set_input(info.input, info.features);
                self.model.on_ready(info);
                self.updates.look_back();
            }
            ModelEvent::Progress(Progress::Unsupported(info)) => {
                self.on_model_loaded(&info);
                self.context.registry.set_model_state(ModelState::UnsupportedModel(
                    info.input.unsupported_reason().unwrap_or_default(),
                ));
                self.model.on_unsupported(info);
            }
            ModelEvent::Progress(Progress::TookOver(info)) => self.on_took_over(info),
            ModelEvent::Progress(Progress::TakeoverFailed(error)) => self.on_takeover_failed(error),
            ModelEvent::Progress(Progress::FirstInference) => {
                self.context.registry.set_source_delivers();
                self.notify_started();
            }
            ModelEvent::Progress(Progress::Drained(generation)) => {
                self.drained = self.drained.max(generation);
                self.notify_paused();
            }
            ModelEvent::Ended(result) => {
                if let Err(e) = &result {
                    self.context.registry.set_model_state(ModelState::Waiting(e.brief()));
                }
                self.model.on_ended(&result);
                match &result {
                    Err(e) if e.is_changed_file() => self.on_changed_model(),
                    Err(e) if e.is_models_fault() => self.on_model_failure(&e.brief()),
                    _ => {}
                }
            }
            ModelEvent::Fetched(fetched) => self.on_fetched(*fetched),
            ModelEvent::TrialEnded(result) => self.on_trial_ended(result),
            ModelEvent::Found(ModelUpdate::Unavailable(reason)) => {
                if self.model.is_searching() {
                    self.context.registry.set_model_state(ModelState::Waiting(reason));
                }
            }
            ModelEvent::Found(ModelUpdate::UpdateFailed(reason)) => {
                self.context
                    .registry
                    .model_resolver_flag()
                    .set_failing(format!("it was downloaded earlier and may not be the newest: {reason}"));
            }
            ModelEvent::Found(found) => {
                self.context.registry.model_resolver_flag().set_ok();
                self.model.on_found(found);
            }
        }
    }

    pub(super) fn on_model_loaded(&self, info: &Arc<ModelInfo>) {
        let changed = self
            .report
            .lock()
            .set_scores_are_probabilities(info.has_probabilities());
        if let Some(filter) = changed {
            log_threshold(filter);
        }
        self.context.registry.set_model_summary(info.summary());
        self.context.live_tap.set_model(info.clone());
    }
}

/// Logs how the threshold of the confidence filter is interpreted for the scores of a model that was loaded.
fn log_threshold(filter: FilterConfig) {
    if let Some(warning) = filter.warning() {
        tracing::warn!(reason = %warning, "The threshold does not fit the scores of this model");
    } else if filter.reading() != ThresholdReading::Fraction {
        tracing::info!(
            given = filter.given,
            reading = filter.reading().to_string(),
            threshold = filter.threshold(),
            "The threshold of the confidence filter is interpreted for the scores of this model"
        );
    }
}
