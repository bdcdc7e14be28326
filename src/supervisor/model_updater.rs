//! Updates of the model while it runs: download, trial beside the running model, probation after the takeover. The session
//! acts on the results.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::event::{EpochEvent, FetchedModel, ModelEvent, SessionEvent};
use crate::config::ModelUpdateConfig;
use crate::inference::Successor;
use crate::inference::trial::{self, Trial, TrialFailure};
use crate::model::Interrupt;
use crate::status::{ModelVersionCell, ModelVersionStatus, UpdateStep};
use crate::studio::{FetchError, FetchStage, ModelVersions, Provider, StoredModel, UpdateOutcome};
use crate::util::backoff::Retry;
use crate::util::panics::{catch_panic, catch_panic_in};

/// Failures within the probation, or interrupted trials, after which a model is bad.
const MOST_FAILURES: u32 = 3;

/// What began an update.
#[derive(Debug)]
pub(super) enum UpdateTrigger {
    /// Somebody who waits for the outcome.
    Request(oneshot::Sender<UpdateOutcome>),
    /// The timer (`model_poll_minutes`).
    Timer,
    /// An update that the last session did not complete.
    Interrupted,
}

impl UpdateTrigger {
    /// Answers, if somebody waits.
    pub(super) fn reply(self, outcome: UpdateOutcome) {
        if let Self::Request(reply) = self {
            // The requester may no longer wait.
            let _ = reply.send(outcome);
        }
    }
}

enum UpdatePhase {
    Idle,
    /// Studio is asked, and the model downloaded.
    Fetching {
        _task: FetchTask,
        trigger: UpdateTrigger,
    },
    /// The model is tried, or waits to take over.
    Trying(Box<RunningTrial>),
}

/// A model on trial.
pub(super) struct RunningTrial {
    pub(super) candidate: StoredModel,
    pub(super) trigger: UpdateTrigger,
    /// Ends the model.
    pub(super) interrupt: Interrupt,
    ended: oneshot::Receiver<()>,
}

/// A model that was not tried, or failed its trial.
pub(super) struct FailedTrial {
    pub(super) candidate: StoredModel,
    pub(super) trigger: UpdateTrigger,
    pub(super) failure: TrialFailure,
}

/// A download that runs until it is dropped.
struct FetchTask(JoinHandle<()>);

impl Drop for FetchTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A model that failed its probation.
pub(super) struct FailedProbation {
    /// Why, as a sentence.
    pub(super) reason: String,
    /// The model that comes back. `None`: it is not on this device any more.
    pub(super) fallback: Option<StoredModel>,
}

/// The updates of one session.
pub(super) struct ModelUpdater {
    provider: Arc<Provider>,
    settings: ModelUpdateConfig,
    events: mpsc::UnboundedSender<EpochEvent>,
    successor: Arc<Successor>,
    phase: UpdatePhase,
    /// When the timer asks Studio.
    poll_at: Option<Instant>,
    /// When an interrupted update continues.
    resume_at: Option<Instant>,
    /// Whether an interrupted update was looked for.
    has_looked_back: bool,
    /// When the running model has proved itself.
    probation_end: Option<Instant>,
    /// Whether a bad version is removed when the one before runs again.
    has_bad_version: bool,
    /// What is shown of all this.
    shown: ModelVersionCell,
}

impl ModelUpdater {
    pub(super) fn new(
        provider: Arc<Provider>,
        settings: ModelUpdateConfig,
        events: mpsc::UnboundedSender<EpochEvent>,
        shown: ModelVersionCell,
    ) -> Self {
        shown.change(|shown| *shown = ModelVersionStatus::default());
        Self {
            provider,
            poll_at: settings.poll.map(|interval| Instant::now() + interval),
            settings,
            events,
            successor: Arc::default(),
            phase: UpdatePhase::Idle,
            resume_at: None,
            has_looked_back: false,
            probation_end: None,
            has_bad_version: false,
            shown,
        }
    }

    /// Where the inference loop finds the model that takes over.
    pub(super) fn successor(&self) -> &Arc<Successor> {
        &self.successor
    }

    /// Whether an update is in progress.
    pub(super) fn is_busy(&self) -> bool {
        !matches!(self.phase, UpdatePhase::Idle)
    }

    /// When [`Self::take_due`] must be called.
    pub(super) fn due(&self) -> Option<Instant> {
        self.poll_at.into_iter().chain(self.resume_at).min()
    }

    /// What is due now.
    pub(super) fn take_due(&mut self, now: Instant) -> UpdateTrigger {
        if self.resume_at.take_if(|at| *at <= now).is_some() {
            return UpdateTrigger::Interrupted;
        }
        self.poll_at = self.settings.poll.map(|interval| now + interval);
        UpdateTrigger::Timer
    }

    /// When [`Self::confirm`] must be called.
    pub(super) fn probation_end(&self) -> Option<Instant> {
        self.probation_end
    }

    /// The running model has proved itself.
    pub(super) fn confirm(&mut self, model: Option<&StoredModel>) {
        self.end_probation();
        let Some(model) = model else { return };
        self.provider.record_confirmed();
        tracing::info!(
            version = model.metadata.version,
            "The new model has passed its probation"
        );
    }

    /// Asks Studio, and downloads what it has. A [`ModelEvent::Fetched`] follows.
    pub(super) fn fetch(&mut self, version: Option<u64>, trigger: UpdateTrigger) {
        let (provider, events) = (self.provider.clone(), self.events.clone());
        let task = tokio::spawn(async move {
            let stage = watch::Sender::new(FetchStage::Selecting);
            let result = catch_panic_in(provider.fetch_update(version, &stage)).await;
            let found = match *stage.borrow() {
                FetchStage::Downloading(version) => Some(version),
                FetchStage::Selecting | FetchStage::Building => None,
            };
            send(&events, ModelEvent::Fetched(Box::new(FetchedModel { found, result })));
        });
        self.phase = UpdatePhase::Fetching {
            _task: FetchTask(task),
            trigger,
        };
        self.show_step(Some(UpdateStep::Fetching));
    }

    /// The download has ended. `None`: there was none.
    pub(super) fn end_fetch(&mut self) -> Option<UpdateTrigger> {
        match std::mem::replace(&mut self.phase, UpdatePhase::Idle) {
            UpdatePhase::Fetching { trigger, .. } => {
                self.show_step(None);
                Some(trigger)
            }
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Starts a trial on a thread of its own. A [`ModelEvent::TrialEnded`] follows.
    ///
    /// # Errors
    /// There is no trial.
    pub(super) fn start_trial(
        &mut self,
        candidate: StoredModel,
        trigger: UpdateTrigger,
        trial: Trial,
    ) -> Result<(), Box<FailedTrial>> {
        let failed = |trigger, candidate, failure| {
            Err(Box::new(FailedTrial {
                candidate,
                trigger,
                failure,
            }))
        };
        if self.provider.record_trial(&candidate) > MOST_FAILURES {
            return failed(trigger, candidate, TrialFailure::NeverEnded(MOST_FAILURES));
        }
        let events = self.events.clone();
        let interrupt = Interrupt::new();
        let (done, ended) = oneshot::channel();
        let thread_interrupt = interrupt.clone();
        let thread = std::thread::Builder::new().name("trial".into()).spawn(move || {
            let result = catch_panic(|| trial::run(&trial, &thread_interrupt)).unwrap_or_else(|panicked| {
                trial.successor.cancel();
                Err(panicked.into())
            });
            send(&events, ModelEvent::TrialEnded(result));
            let _ = done.send(());
        });
        if let Err(error) = thread {
            return failed(trigger, candidate, TrialFailure::NoThread(error));
        }
        self.show_step(Some(UpdateStep::Trial(candidate.metadata.version)));
        self.phase = UpdatePhase::Trying(Box::new(RunningTrial {
            candidate,
            trigger,
            interrupt,
            ended,
        }));
        Ok(())
    }

    /// The trial has ended: the model has taken over, or has failed. `None`: there was none.
    pub(super) fn end_trial(&mut self) -> Option<RunningTrial> {
        match std::mem::replace(&mut self.phase, UpdatePhase::Idle) {
            UpdatePhase::Trying(trial) => {
                self.show_step(None);
                Some(*trial)
            }
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Records that a model from Studio is in use, also each time it starts again. A new one begins its probation.
    pub(super) fn record_begin(&mut self, model: &StoredModel) {
        let is_new = self.provider.versions().current.as_deref() != Some(&*model.name());
        let versions = self.provider.record_begin(model);
        if std::mem::take(&mut self.has_bad_version) {
            self.remove_old_versions(model.metadata.project_id);
        }
        self.show_versions(&versions);
        if versions.probation.is_none() {
            self.end_probation();
        } else if self.settings.probation.is_zero() {
            self.confirm(Some(model));
        } else if is_new || self.probation_end.is_none() {
            self.probation_end = Some(Instant::now() + self.settings.probation);
            let end = self.probation_end;
            self.shown.change(|shown| shown.probation_end = end);
        }
    }

    /// Records a failure of the running model. Returns what follows if it has failed its probation.
    pub(super) fn record_crash(&mut self, model: &StoredModel, reason: &str) -> Option<FailedProbation> {
        self.probation_end.filter(|end| Instant::now() < *end)?;
        if self.provider.record_crash()? < MOST_FAILURES {
            return None;
        }
        self.end_probation();
        self.has_bad_version = true;
        let minutes = self.settings.probation.as_secs() / 60;
        let reason = format!("it failed {MOST_FAILURES} times within {minutes} min after it was taken: {reason}");
        let versions = self.provider.record_bad(model, &reason);
        self.show_versions(&versions);
        let before = versions.current.and_then(|name| self.provider.named(&name));
        Some(FailedProbation {
            reason,
            fallback: before.or_else(|| self.provider.earlier_model()),
        })
    }

    /// Records that a model failed its trial.
    pub(super) fn record_bad(&self, model: &StoredModel, reason: &str) {
        let versions = self.provider.record_bad(model, reason);
        self.show_versions(&versions);
    }

    /// Forgets a model whose file is not the one that was downloaded.
    pub(super) fn discard(&self, model: &StoredModel) {
        self.provider.discard(model);
    }

    /// Records that the downloaded model of this version cannot be used: it can never run here, or its file is not the
    /// configured one.
    pub(super) fn record_bad_candidate(&self, version: u64, reason: &str, error: &FetchError) {
        if error.is_for_another_machine() {
            self.provider.record_bad_candidate(version, reason, None);
        } else if let Some(expected) = error.expected_digest() {
            self.provider
                .record_bad_candidate(version, reason, Some(expected.to_owned()));
        }
        self.show_versions(&self.provider.versions());
    }

    /// Records that the candidate is not tried any more, for a reason that is not its own.
    pub(super) fn record_no_trial(&self) {
        self.provider.record_no_trial();
    }

    /// Removes the versions of a project that are not needed any more. One that this process holds stays.
    pub(super) fn remove_old_versions(&self, project_id: u64) {
        let provider = self.provider.clone();
        tokio::task::spawn_blocking(move || provider.remove_old_versions(project_id));
    }

    fn end_probation(&mut self) {
        self.probation_end = None;
        self.shown.change(|shown| shown.probation_end = None);
    }

    fn show_step(&self, step: Option<UpdateStep>) {
        self.shown.change(|shown| shown.update = step);
    }

    fn show_versions(&self, versions: &ModelVersions) {
        let previous = versions.previous.as_deref().and_then(|name| self.provider.named(name));
        let bad = versions.bad.last().map(|bad| (bad.version, bad.reason.clone()));
        self.shown.change(|shown| {
            shown.previous = previous.map(|model| model.metadata.version);
            shown.bad = bad;
        });
    }

    /// The model is loaded: continues an update that the last session did not complete.
    pub(super) fn look_back(&mut self) {
        if !std::mem::replace(&mut self.has_looked_back, true) && self.provider.versions().candidate.is_some() {
            self.resume_at = Some(Instant::now());
        }
    }

    /// Studio cannot be reached: the interrupted update is tried again later.
    pub(super) fn resume_later(&mut self) {
        self.resume_at = Some(Instant::now() + Retry::LATER);
    }

    /// Ends the download or the trial. The next session continues it.
    pub(super) async fn stop(&mut self, deadline: tokio::time::Instant) {
        self.successor.cancel();
        if let UpdatePhase::Trying(trial) = std::mem::replace(&mut self.phase, UpdatePhase::Idle) {
            trial.interrupt.trip();
            let _ = tokio::time::timeout_at(deadline, trial.ended).await;
            self.provider.record_stopped_trial();
        }
    }
}

fn send(events: &mpsc::UnboundedSender<EpochEvent>, event: ModelEvent) {
    // Sending fails only when the session has ended.
    let _ = events.send(EpochEvent {
        epoch: 0,
        event: SessionEvent::Model(event),
    });
}

/// The time that an input of a trial may take to arrive: a source of still pictures may be slow.
pub(super) fn input_limit(still_interval: Duration) -> Duration {
    const LEAST: Duration = Duration::from_secs(120);
    LEAST.max(still_interval * 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn updater(minutes: u64) -> ModelUpdater {
        let mut config = load(&Sources::default()).unwrap().config;
        config.model_updates.poll = (minutes > 0).then(|| Duration::from_secs(minutes * 60));
        let provider = Arc::new(Provider::new(&config, None));
        ModelUpdater::new(
            provider,
            config.model_updates,
            mpsc::unbounded_channel().0,
            ModelVersionCell::default(),
        )
    }

    #[test]
    fn the_timer_asks_again_after_each_interval_and_not_at_all_when_it_is_off() {
        assert_eq!(updater(0).due(), None);
        let mut updater = updater(5);
        let first = updater.due().unwrap();
        assert!(first > Instant::now() + Duration::from_secs(290));
        assert!(matches!(updater.take_due(first), UpdateTrigger::Timer));
        assert_eq!(updater.due(), Some(first + Duration::from_secs(300)));
    }

    #[test]
    fn an_interrupted_update_comes_before_the_timer() {
        let mut updater = updater(5);
        let now = Instant::now();
        updater.resume_at = Some(now);
        assert_eq!(updater.due(), Some(now));
        assert!(matches!(updater.take_due(now), UpdateTrigger::Interrupted));
        assert!(updater.due() > Some(now));
    }

    #[test]
    fn a_slow_source_of_still_pictures_has_time_for_a_trial() {
        assert_eq!(input_limit(Duration::from_secs(1)), Duration::from_secs(120));
        assert_eq!(input_limit(Duration::from_secs(600)), Duration::from_secs(1800));
    }
}
