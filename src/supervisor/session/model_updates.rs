//! Replaces the model while the session runs, and goes back to the one before.

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use crate::capture::AudioFormat;
use crate::config::ModelSource;
use crate::inference::trial::{Trial, TrialFailure};
use crate::model::{ModelError, ModelInfo, ModelSettings};
use crate::status::ModelState;
use crate::studio::{FetchError, StoredModel, UpdateOutcome, UpdateRequest};
use crate::supervisor::event::FetchedModel;
use crate::supervisor::model_updater::{FailedTrial, UpdateTrigger, input_limit};
use crate::uplink::{Message, ModelNotice};
use crate::util::backoff::Retry;
use crate::util::text::sentence;

impl Session<'_> {
    /// Begins an update that somebody asked for, or says why not.
    pub(super) fn on_update_request(&mut self, UpdateRequest { version, reply }: UpdateRequest) {
        let trigger = UpdateTrigger::Request(reply);
        match self.update_refusal() {
            None => {
                tracing::info!(version, "Looking for a new version of the model");
                self.updates.fetch(version, trigger);
            }
            Some(reason) => {
                tracing::warn!(reason, "The model is not updated");
                trigger.reply(self.outcome(None, Some(reason.to_owned())));
            }
        }
    }

    /// The timer has expired, or an interrupted update continues.
    pub(super) fn on_update_due(&mut self) {
        let trigger = self.updates.take_due(Instant::now());
        if let Some(reason) = self.update_refusal() {
            tracing::debug!(reason, ?trigger, "The model is not updated");
            return;
        }
        self.updates.fetch(None, trigger);
    }

    fn update_refusal(&self) -> Option<&'static str> {
        if self.updates.is_busy() {
            Some("an update of the model is in progress; send this again when it is complete")
        } else if self.model.is_local() {
            Some(
                "the model is the configured one (ei_local_model_file); new versions are taken from Edge Impulse Studio only without that key",
            )
        } else if self.model.stored().is_none() {
            Some("there is no model yet; the newest one in Edge Impulse Studio is used as soon as it is found")
        } else if self.model.is_loading() {
            Some("the model is being loaded; send this again after the notice \"started\"")
        } else {
            None
        }
    }

    /// The download has ended.
    pub(super) fn on_fetched(&mut self, FetchedModel { found, result }: FetchedModel) {
        let Some(trigger) = self.updates.end_fetch() else {
            return;
        };
        let candidate = match result {
            Ok(Ok(candidate)) => candidate,
            Ok(Err(error)) => return self.on_fetch_failed(found, trigger, &error),
            Err(panicked) => {
                trigger.reply(self.outcome(found, Some(panicked.to_string())));
                return;
            }
        };
        if self
            .model
            .stored()
            .is_some_and(|running| running.path == candidate.path)
        {
            tracing::debug!(version = candidate.metadata.version, "The newest model runs already");
            self.updates.record_no_trial();
            self.context.registry.model_update_flag().set_ok();
            trigger.reply(self.outcome(found, None));
        } else if self.model.is_loaded() {
            self.start_trial(candidate, trigger);
        } else {
            tracing::info!(
                version = candidate.metadata.version,
                "No model serves, so the new one starts without a trial"
            );
            self.model.restart_with(candidate);
            trigger.reply(self.outcome(found, None));
        }
    }

    fn on_fetch_failed(&mut self, found: Option<u64>, trigger: UpdateTrigger, error: &FetchError) {
        let reason = sentence(error);
        let is_transient = error.retry() == Retry::Soon;
        tracing::warn!(version = found, error = %reason, "There is no new version of the model to try");
        if is_transient && matches!(trigger, UpdateTrigger::Interrupted) {
            self.updates.resume_later();
        }
        if let Some(version) = found
            && error.is_unusable_model()
        {
            self.updates.record_bad_candidate(version, &reason, error);
            self.report_refused_version(version, &reason);
        }
        if !is_transient {
            self.updates.record_no_trial();
        }
        trigger.reply(self.outcome(found, Some(reason)));
    }

    fn start_trial(&mut self, candidate: StoredModel, trigger: UpdateTrigger) {
        let setup = self.context.setup();
        let config = &setup.config;
        let running = self.model.info();
        let trial = Trial {
            settings: ModelSettings {
                sha256: candidate.sha256.clone(),
                ..self.model.settings(ModelSource::File(candidate.path.clone()))
            },
            classifier: self.classifier_settings(),
            audio: running.and_then(|info| AudioFormat::of(&info.input, info.features)),
            inferences: config.model_updates.trial_inferences,
            input_limit: input_limit(config.still_interval),
            successor: self.updates.successor().clone(),
            frames: self.frames.clone(),
            live_tap: self.context.live_tap.clone(),
        };
        if let Err(failed) = self.updates.start_trial(candidate, trigger, trial) {
            self.on_trial_failed(*failed);
        }
    }

    /// The trial has ended. A model that has passed takes over by itself.
    pub(super) fn on_trial_ended(&mut self, result: Result<Arc<ModelInfo>, TrialFailure>) {
        match result {
            Ok(info) => tracing::info!(version = info.deploy_version, "The new model has passed its trial"),
            Err(failure) => {
                if let Some(trial) = self.updates.end_trial() {
                    self.on_trial_failed(FailedTrial {
                        candidate: trial.candidate,
                        trigger: trial.trigger,
                        failure,
                    });
                }
            }
        }
    }

    /// A model that had passed its trial failed when it was to take over.
    pub(super) fn on_takeover_failed(&mut self, error: ModelError) {
        let inputs = self.context.setup().config.model_updates.trial_inferences;
        self.on_trial_ended(Err(TrialFailure::Failed {
            input: inputs,
            inputs,
            error,
        }));
    }

    fn on_trial_failed(&mut self, failed: FailedTrial) {
        let FailedTrial {
            candidate,
            trigger,
            failure,
        } = failed;
        let (version, reason) = (candidate.metadata.version, failure.to_string());
        if failure.is_bad_model() {
            let output = failure.output().join("\n");
            tracing::error!(
                version,
                reason,
                output,
                advice = "correct the model in Edge Impulse Studio and deploy it again; the command update_model with this version tries it once more",
                "The new model failed, and the one before goes on"
            );
            self.updates.record_bad(&candidate, &reason);
            let project_id = candidate.metadata.project_id;
            // Not held any more, so that its file can be removed.
            drop(candidate);
            self.updates.remove_old_versions(project_id);
            self.report_failed_update(version, &reason);
        } else {
            tracing::warn!(
                version,
                reason,
                "The new model was not tried, and the one before goes on"
            );
            if failure.is_changed_file() {
                self.updates.discard(&candidate);
            }
            if !matches!(failure, TrialFailure::Cancelled) {
                self.updates.record_no_trial();
            }
        }
        trigger.reply(self.outcome(Some(version), Some(reason)));
    }

    /// The new model has taken over between two inputs.
    pub(super) fn on_took_over(&mut self, info: Arc<ModelInfo>) {
        let Some(trial) = self.updates.end_trial() else {
            return;
        };
        let before = self.model.info().map(|info| info.deploy_version);
        tracing::info!(
            model = info.name,
            version = info.deploy_version,
            before,
            "The new model has taken over"
        );
        self.on_model_loaded(&info);
        self.context.registry.set_model_state(ModelState::Running);
        self.context.registry.model_update_flag().set_ok();
        self.context.registry.model_resolver_flag().set_ok();
        self.context.stats.model_updates.inc();
        self.capture.adopt_input(info.input, info.features);
        self.updates.record_begin(&trial.candidate);
        self.updates.remove_old_versions(trial.candidate.metadata.project_id);
        self.publish_model_notice(&ModelNotice::Updated {
            version: info.deploy_version,
            before,
        });
        let found = trial.candidate.metadata.version;
        self.model.on_took_over(info, trial.candidate, trial.interrupt);
        trial.trigger.reply(self.outcome(Some(found), None));
    }

    /// The model has failed. After the third failure of its probation the model before it comes back.
    pub(super) fn on_model_failure(&mut self, reason: &str) {
        let Some(failed) = self.model.stored().cloned() else {
            return;
        };
        let Some(probation) = self.updates.record_crash(&failed, reason) else {
            return;
        };
        let version = failed.metadata.version;
        let back = probation.fallback.as_ref().map(|model| model.metadata.version);
        tracing::error!(
            version,
            reason = probation.reason,
            back_to = back,
            advice = "correct the model in Edge Impulse Studio and deploy it again; the command update_model with this version tries it once more",
            "The new model failed its probation, and the one before comes back"
        );
        self.context.registry.model_update_flag().set_failing(format_args!(
            "version {version} is not used any more: {}",
            probation.reason
        ));
        self.context.stats.model_updates_failed.inc();
        self.publish_model_notice(&ModelNotice::Restored {
            version: back,
            failed: version,
            reason: &probation.reason,
        });
        match probation.fallback {
            Some(fallback) => self.model.restart_with(fallback),
            None => self.model.search_again(),
        }
    }

    /// The file of the stored model is not the one that was downloaded: it is downloaded again.
    pub(super) fn on_changed_model(&mut self) {
        if let Some(changed) = self.model.stored().cloned() {
            self.updates.discard(&changed);
            self.model.search_again();
        }
    }

    /// The running model has proved itself.
    pub(super) fn on_probation_passed(&mut self) {
        self.updates.confirm(self.model.stored());
    }

    /// A problem, and a notice if that is new: the timer finds the same version again and again.
    fn report_refused_version(&self, version: u64, reason: &str) {
        let flag = self.context.registry.model_update_flag();
        let before = flag.failure();
        flag.set_failing(refused_version(version, reason));
        if flag.failure() != before {
            self.publish_failure(version, reason);
        }
    }

    /// A problem and a notice: a new version cannot be used.
    fn report_failed_update(&self, version: u64, reason: &str) {
        self.context
            .registry
            .model_update_flag()
            .set_failing(refused_version(version, reason));
        self.publish_failure(version, reason);
    }

    fn publish_failure(&self, version: u64, reason: &str) {
        self.context.stats.model_updates_failed.inc();
        self.publish_model_notice(&ModelNotice::Failed {
            version: self.model.info().map(|info| info.deploy_version),
            failed: version,
            reason,
        });
    }

    fn publish_model_notice(&self, notice: &ModelNotice<'_>) {
        let qos = self.context.setup().config.qos;
        self.context
            .outbox
            .push(Message::model_notice(&self.context.topics, notice, qos));
    }

    fn outcome(&self, found: Option<u64>, error: Option<String>) -> UpdateOutcome {
        UpdateOutcome {
            found,
            running: self.model.info().cloned(),
            error,
        }
    }
}

fn refused_version(version: u64, reason: &str) -> String {
    format!("version {version} is not used: {reason}")
}
