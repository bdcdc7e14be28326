//! Starts and watches the model with its inference thread, and restarts it with backoff.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::event::{EpochEvent, ModelEvent, SessionEvent};
use super::model_resolver::ModelResolver;
use crate::capture::{AudioMailbox, FrameMailbox};
use crate::config::ModelSource;
use crate::inference::{self, InferenceContext, InferenceFault, Progress};
use crate::model::{Interrupt, ModelInfo, ModelSettings};
use crate::status::stats::Stats;
use crate::studio::{ModelUpdate, StoredModel};
use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::util::clock::rounded;
use crate::util::log_limiter::LogLimiter;
use crate::util::panics::catch_panic;

/// Time for an inference in progress at a stop.
const FINISH_LIMIT: Duration = Duration::from_millis(400);

enum ModelPhase {
    /// Not running; restarts at this time.
    Waiting(Instant),
    /// There is no model yet; the search continues.
    Searching,
    /// The model is being loaded and warmed up.
    Starting(InferenceThread),
    /// The model is running.
    Running(InferenceThread),
    /// The component does not support the model's input. Only another model or a `restart` changes that.
    Unsupported,
    /// Stopped; it does not start again.
    Stopped,
}

struct InferenceThread {
    interrupt: Interrupt,
    finish: Arc<AtomicBool>,
    ended: oneshot::Receiver<()>,
}

/// Creates the settings for the model that starts next.
type MakeSettings = Box<dyn Fn(ModelSource) -> ModelSettings + Send>;

/// The supervised model of one session.
pub(super) struct ModelSupervisor {
    model_resolver: ModelResolver,
    settings: MakeSettings,
    stats: Arc<Stats>,
    events: mpsc::UnboundedSender<EpochEvent>,
    phase: ModelPhase,
    epoch: u64,
    info: Option<Arc<ModelInfo>>,
    backoff: Backoff,
    log_limiter: LogLimiter,
}

impl ModelSupervisor {
    pub(super) fn new(
        model_resolver: ModelResolver,
        settings: MakeSettings,
        stats: Arc<Stats>,
        events: mpsc::UnboundedSender<EpochEvent>,
    ) -> Self {
        Self {
            model_resolver,
            settings,
            stats,
            events,
            phase: ModelPhase::Waiting(Instant::now()),
            epoch: 0,
            info: None,
            backoff: Backoff::new(BackoffPolicy::default()),
            log_limiter: LogLimiter::default(),
        }
    }

    /// The description of the model, also while it restarts.
    pub(super) fn info(&self) -> Option<&Arc<ModelInfo>> {
        self.info.as_ref()
    }

    /// When [`Self::start`] must be called.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.phase {
            ModelPhase::Waiting(at) => Some(at),
            _ => None,
        }
    }

    /// Whether there is no model to start yet.
    pub(super) fn is_searching(&self) -> bool {
        matches!(self.phase, ModelPhase::Searching)
    }

    /// Starts the model on its own thread, or searches for one.
    pub(super) fn start(&mut self, mut context: InferenceContext) {
        let Some(source) = self.model_resolver.next() else {
            self.phase = ModelPhase::Searching;
            return;
        };
        let settings = ModelSettings {
            sha256: self.stored().and_then(|stored| stored.sha256.clone()),
            ..(self.settings)(source)
        };
        let finish = context.finish.clone();
        self.launch(finish, move |interrupt, notify| {
            inference::run(&settings, interrupt, &mut context, notify)
        });
    }

    /// Starts an epoch: runs `work` on its own thread, and sends an event when it has ended and all its values are dropped.
    fn launch(
        &mut self,
        finish: Arc<AtomicBool>,
        work: impl FnOnce(&Interrupt, &dyn Fn(Progress)) -> Result<(), InferenceFault> + Send + 'static,
    ) {
        self.epoch += 1;
        let (epoch, events) = (self.epoch, self.events.clone());
        let interrupt = Interrupt::new();
        let (done, ended) = oneshot::channel();
        let thread_interrupt = interrupt.clone();
        let thread = std::thread::Builder::new().name("inference".into()).spawn(move || {
            let send = |event| {
                // Sending fails only when the session has ended.
                let _ = events.send(EpochEvent {
                    epoch,
                    event: SessionEvent::Model(event),
                });
            };
            let notify = |progress| send(ModelEvent::Progress(progress));
            let result =
                catch_panic(|| work(&thread_interrupt, &notify)).unwrap_or_else(|panicked| Err(panicked.into()));
            send(ModelEvent::Ended(result));
            let _ = done.send(());
        });
        match thread {
            Ok(_) => {
                self.phase = ModelPhase::Starting(InferenceThread {
                    interrupt,
                    finish,
                    ended,
                })
            }
            Err(e) => self.on_failure(&format!("its thread cannot be started: {e}"), ""),
        }
    }

    /// Handles a found model: it starts at once unless another one is running.
    pub(super) fn on_found(&mut self, found: ModelUpdate) {
        let is_new = self.model_resolver.set_found(found);
        match self.phase {
            ModelPhase::Searching => self.phase = ModelPhase::Waiting(Instant::now()),
            ModelPhase::Waiting(_) | ModelPhase::Unsupported if is_new => {
                self.phase = ModelPhase::Waiting(Instant::now())
            }
            ModelPhase::Starting(_) | ModelPhase::Running(_) if is_new => self.model_resolver.log_waiting(),
            _ => {}
        }
    }

    /// Whether an event of this epoch belongs to the current model.
    pub(super) fn is_current(&self, epoch: u64) -> bool {
        epoch == self.epoch
    }

    /// The model is loaded.
    pub(super) fn on_ready(&mut self, info: Arc<ModelInfo>) {
        self.backoff.succeeded(Instant::now());
        tracing::info!(model = info.name, version = info.deploy_version, "The model is loaded");
        self.info = Some(info);
        self.phase = match std::mem::replace(&mut self.phase, ModelPhase::Stopped) {
            ModelPhase::Starting(running) => ModelPhase::Running(running),
            other => other,
        };
    }

    /// The model from Studio that was started last; `None`: a local one, or none yet.
    pub(super) fn stored(&self) -> Option<&StoredModel> {
        self.model_resolver.stored()
    }

    /// Whether the configured model is used.
    pub(super) fn is_local(&self) -> bool {
        self.model_resolver.is_local()
    }

    /// Whether the model has been loaded and takes an input that the component supports.
    pub(super) fn is_loaded(&self) -> bool {
        self.info.is_some() && !matches!(self.phase, ModelPhase::Unsupported)
    }

    /// Whether the model is being loaded for the first time in this session.
    pub(super) fn is_loading(&self) -> bool {
        self.info.is_none() && matches!(self.phase, ModelPhase::Starting(_))
    }

    /// The settings for a model that is tried.
    pub(super) fn settings(&self, source: ModelSource) -> ModelSettings {
        (self.settings)(source)
    }

    /// Another model has taken over in the running inference thread. `interrupt` ends it.
    pub(super) fn on_took_over(&mut self, info: Arc<ModelInfo>, model: StoredModel, interrupt: Interrupt) {
        self.model_resolver.set_current(model);
        self.backoff.succeeded(Instant::now());
        self.info = Some(info);
        if let ModelPhase::Running(running) = &mut self.phase {
            running.interrupt = interrupt;
        }
    }

    /// Starts this model now, unless another one runs.
    pub(super) fn restart_with(&mut self, model: StoredModel) {
        self.model_resolver.set_next(model);
        self.restart_now();
    }

    /// Searches for a model in Studio now, unless one runs.
    pub(super) fn search_again(&mut self) {
        self.model_resolver.forget();
        self.restart_now();
    }

    fn restart_now(&mut self) {
        if matches!(
            self.phase,
            ModelPhase::Waiting(_) | ModelPhase::Searching | ModelPhase::Unsupported
        ) {
            self.phase = ModelPhase::Waiting(Instant::now());
        }
    }

    /// The component does not support the model's input.
    pub(super) fn on_unsupported(&mut self, info: Arc<ModelInfo>) {
        tracing::error!(
            model = info.name,
            version = info.deploy_version,
            reason = info.input.unsupported_reason(),
            advice = "configure or deploy another model, for a camera (one picture at a time) or a microphone, then send the command restart",
            "The model is not supported; the component stays idle"
        );
        self.info = Some(info);
        self.phase = ModelPhase::Unsupported;
    }

    /// The inference thread ended.
    pub(super) fn on_ended(&mut self, result: &Result<(), InferenceFault>) {
        match (&self.phase, result) {
            (ModelPhase::Stopped | ModelPhase::Unsupported, _) => {}
            (_, Ok(())) => self.on_failure("it ended without a stop request", ""),
            (_, Err(e)) => {
                let lines = e.output();
                if !lines.is_empty() {
                    tracing::debug!(output = %lines.join("\n"), "Last output of the model");
                }
                if e.is_stop_signal() {
                    tracing::info!("The model ended after a stop signal");
                    self.wait_after_failure(Instant::now());
                    return;
                }
                let brief = e.brief();
                let text = e.to_string();
                self.on_failure(&brief, text.strip_prefix(&brief).unwrap_or_default());
            }
        }
    }

    /// `output`, the last output of the model, follows the reason in the log. It may differ each time (times, addresses), so
    /// repeated failures are recognised only by the reason.
    fn on_failure(&mut self, reason: &str, output: &str) {
        let now = Instant::now();
        let wait = self.wait_after_failure(now);
        if let Some(suppressed) = self.log_limiter.check_words(now, reason) {
            tracing::warn!(
                retry_in = ?rounded(wait),
                suppressed = suppressed.count(),
                reason = format_args!("{reason}{output}"),
                "The model failed and restarts"
            );
        }
    }

    fn wait_after_failure(&mut self, now: Instant) -> Duration {
        let wait = self.backoff.failed(now);
        self.stats.model_restarts.inc();
        self.phase = ModelPhase::Waiting(now + wait);
        wait
    }

    /// Stops the model, after an inference in progress if that is short. Returns `false` if the thread was abandoned.
    pub(super) async fn stop(
        &mut self,
        frames: &FrameMailbox,
        audio: &AudioMailbox,
        deadline: tokio::time::Instant,
    ) -> bool {
        self.model_resolver.stop();
        let (ModelPhase::Starting(mut running) | ModelPhase::Running(mut running)) =
            std::mem::replace(&mut self.phase, ModelPhase::Stopped)
        else {
            return true;
        };
        running.finish.store(true, Ordering::Relaxed);
        // Wakes an inference loop that waits for a frame, and a capture that waits for the loop.
        frames.close();
        audio.close();
        if tokio::time::timeout(FINISH_LIMIT, &mut running.ended).await.is_ok() {
            return true;
        }
        running.interrupt.trip();
        tokio::time::timeout_at(deadline, &mut running.ended).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};
    use crate::studio::Provider;

    fn supervisor() -> (ModelSupervisor, mpsc::UnboundedReceiver<EpochEvent>) {
        let (sender, events) = mpsc::unbounded_channel();
        let config = load(&Sources::default()).unwrap().config;
        let source = Some(ModelSource::Builtin("nop".to_owned()));
        let model_resolver = ModelResolver::new(source, Arc::new(Provider::new(&config, None)), sender.clone());
        let settings = Box::new(|source| ModelSettings::new(source, "d", std::path::Path::new("."), Arc::default()));
        (
            ModelSupervisor::new(model_resolver, settings, Arc::default(), sender),
            events,
        )
    }

    #[tokio::test]
    async fn a_panic_of_the_inference_thread_restarts_the_model_with_backoff() {
        let (mut supervisor, mut events) = supervisor();
        supervisor.launch(Arc::default(), |_, _| panic!("index 7 of 3"));
        let limit = Duration::from_secs(20);
        let tagged = tokio::time::timeout(limit, events.recv()).await.unwrap().unwrap();
        assert!(supervisor.is_current(tagged.epoch));
        let SessionEvent::Model(ModelEvent::Ended(result)) = tagged.event else {
            panic!("{tagged:?}");
        };
        assert!(result.as_ref().unwrap_err().to_string().contains("index 7 of 3"));
        assert_eq!(supervisor.due().filter(|at| *at > Instant::now()), None);
        supervisor.on_ended(&result);
        assert!(supervisor.due().is_some_and(|at| at > Instant::now()), "with backoff");
        assert_eq!(supervisor.stats.model_restarts.get(), 1);
    }
}
