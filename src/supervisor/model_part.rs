//! The model and its inference thread: started, watched, started again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::event::{Event, ModelEvent, Tagged};
use super::model_resolver::ModelResolver;
use crate::capture::{AudioMailbox, FrameMailbox};
use crate::config::ModelSource;
use crate::inference::{self, InferenceContext, InferenceFault, Progress};
use crate::model::{Interrupt, ModelInfo, Settings};
use crate::status::stats::Stats;
use crate::studio::Found;
use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::util::log_limiter::{LogLimiter, like};
use crate::util::panics::caught;

/// An answer that is already on its way at the stop is waited for this long.
const FINISH_LIMIT: Duration = Duration::from_millis(400);

/// How the model is.
enum State {
    /// Not running; started again at this time.
    Waiting(Instant),
    /// There is none yet: it is looked for.
    Looking,
    /// Loading, up to its hello and warm-up.
    Starting(Running),
    /// Answering.
    Running(Running),
    /// It wants what this component cannot give; only a `restart` changes that.
    Unsupported,
    /// Told to end.
    Stopped,
}

struct Running {
    interrupt: Interrupt,
    finish: Arc<AtomicBool>,
    ended: oneshot::Receiver<()>,
}

/// Settings for the model that is started next.
type MakeSettings = Box<dyn Fn(ModelSource) -> Settings + Send>;

/// The supervised model.
pub(super) struct ModelPart {
    model_resolver: ModelResolver,
    settings: MakeSettings,
    stats: Arc<Stats>,
    events: mpsc::UnboundedSender<Tagged>,
    state: State,
    epoch: u64,
    info: Option<Arc<ModelInfo>>,
    backoff: Backoff,
    failures: LogLimiter,
}

impl ModelPart {
    pub(super) fn new(
        model_resolver: ModelResolver,
        settings: MakeSettings,
        stats: Arc<Stats>,
        events: mpsc::UnboundedSender<Tagged>,
    ) -> Self {
        Self {
            model_resolver,
            settings,
            stats,
            events,
            state: State::Waiting(Instant::now()),
            epoch: 0,
            info: None,
            backoff: Backoff::new(BackoffPolicy::default()),
            failures: LogLimiter::default(),
        }
    }

    /// What the model said of itself, once it did; kept while it is started again.
    pub(super) fn info(&self) -> Option<&Arc<ModelInfo>> {
        self.info.as_ref()
    }

    /// When [`Self::start`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) => Some(at),
            _ => None,
        }
    }

    /// Whether there is no model to start yet.
    pub(super) fn is_looking(&self) -> bool {
        matches!(self.state, State::Looking)
    }

    /// Starts the model on a thread of its own, or looks for one.
    pub(super) fn start(&mut self, mut context: InferenceContext) {
        let Some(source) = self.model_resolver.next() else {
            self.state = State::Looking;
            return;
        };
        let settings = (self.settings)(source);
        let finish = context.finish.clone();
        self.launch(finish, move |interrupt, tell| {
            inference::run(&settings, interrupt, &mut context, tell)
        });
    }

    /// Does the work of an epoch on a thread of its own and reports its end. Everything that `work` holds is gone by
    /// then.
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
                // Nobody listens any more once the generation is over.
                let _ = events.send(Tagged {
                    epoch,
                    event: Event::Model(event),
                });
            };
            let tell = |progress| send(ModelEvent::Progress(progress));
            let result = caught(|| work(&thread_interrupt, &tell)).unwrap_or_else(|panicked| Err(panicked.into()));
            send(ModelEvent::Ended(result));
            let _ = done.send(());
        });
        match thread {
            Ok(_) => {
                self.state = State::Starting(Running {
                    interrupt,
                    finish,
                    ended,
                })
            }
            Err(e) => self.failed(&format!("the system gives no thread for it: {e}"), ""),
        }
    }

    /// There is a model: started at once, unless one runs.
    pub(super) fn found(&mut self, found: Found) {
        let is_new = self.model_resolver.found(found);
        match self.state {
            State::Looking => self.state = State::Waiting(Instant::now()),
            State::Waiting(_) | State::Unsupported if is_new => self.state = State::Waiting(Instant::now()),
            State::Starting(_) | State::Running(_) if is_new => self.model_resolver.say_waiting(),
            _ => {}
        }
    }

    /// Whether an event belongs to the model that runs now.
    pub(super) fn is_current(&self, epoch: u64) -> bool {
        epoch == self.epoch
    }

    /// The model is loaded.
    pub(super) fn ready(&mut self, info: Arc<ModelInfo>) {
        self.backoff.succeeded(Instant::now());
        tracing::info!("model {} v{} is loaded", info.name, info.deploy_version);
        self.info = Some(info);
        self.state = match std::mem::replace(&mut self.state, State::Stopped) {
            State::Starting(running) => State::Running(running),
            other => other,
        };
    }

    /// The model wants another sensor.
    pub(super) fn unsupported(&mut self, info: Arc<ModelInfo>) {
        tracing::error!(
            "model {} v{} works on sensor \"{}\": this component feeds cameras and microphones to models. It stays up, idle, until another model is configured or deployed; \
             send the command restart then",
            info.name,
            info.deploy_version,
            info.sensor_name()
        );
        self.info = Some(info);
        self.state = State::Unsupported;
    }

    /// The inference thread ended.
    pub(super) fn ended(&mut self, result: &Result<(), InferenceFault>) {
        match (&self.state, result) {
            (State::Stopped | State::Unsupported, _) => {}
            (_, Ok(())) => self.failed("it ended without being told to", ""),
            (_, Err(e)) => {
                let lines = e.output();
                if !lines.is_empty() {
                    tracing::debug!("what the model printed last:\n{}", lines.join("\n"));
                }
                if e.is_stop_signal() {
                    tracing::info!("the model ended after a stop signal");
                    self.wait_from(Instant::now());
                    return;
                }
                let brief = e.brief();
                let text = e.to_string();
                self.failed(&brief, text.strip_prefix(&brief).unwrap_or_default());
            }
        }
    }

    /// `output`: what the model printed last, in words that follow the reason. It may differ each time (times of day,
    /// addresses), so the reason alone tells whether it is the same failure again.
    fn failed(&mut self, reason: &str, output: &str) {
        let now = Instant::now();
        let wait = self.wait_from(now);
        if let Some(more) = self.failures.check_words(now, reason) {
            tracing::warn!(
                "the model is started again in {:.1} s{}: {reason}{output}",
                wait.as_secs_f32(),
                like(more)
            );
        }
    }

    fn wait_from(&mut self, now: Instant) -> Duration {
        let wait = self.backoff.failed(now);
        self.stats.model_restarts.inc();
        self.state = State::Waiting(now + wait);
        wait
    }

    /// Ends the model: what it works on is finished, if that does not take long. `false`: it was abandoned.
    pub(super) async fn stop(
        &mut self,
        slot: &FrameMailbox,
        sounds: &AudioMailbox,
        deadline: tokio::time::Instant,
    ) -> bool {
        self.model_resolver.stop();
        let (State::Starting(mut running) | State::Running(mut running)) =
            std::mem::replace(&mut self.state, State::Stopped)
        else {
            return true;
        };
        running.finish.store(true, Ordering::Relaxed);
        // Wakes a loop that waits for a frame, and a capture that waits for the loop to take one.
        slot.close();
        sounds.close();
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

    fn part() -> (ModelPart, mpsc::UnboundedReceiver<Tagged>) {
        let (sender, events) = mpsc::unbounded_channel();
        let config = load(&Sources::default()).unwrap().config;
        let source = Some(ModelSource::Builtin("nop".to_owned()));
        let model_resolver = ModelResolver::new(source, Provider::new(&config, None), sender.clone());
        let settings = Box::new(|source| Settings::new(source, "d", std::path::Path::new("."), Arc::default()));
        (ModelPart::new(model_resolver, settings, Arc::default(), sender), events)
    }

    #[tokio::test]
    async fn a_panic_of_the_inference_thread_is_a_fault_of_the_model_which_is_started_again() {
        let (mut part, mut events) = part();
        part.launch(Arc::default(), |_, _| panic!("index 7 of 3"));
        let limit = Duration::from_secs(20);
        let tagged = tokio::time::timeout(limit, events.recv()).await.unwrap().unwrap();
        assert!(part.is_current(tagged.epoch));
        let Event::Model(ModelEvent::Ended(result)) = tagged.event else {
            panic!("{tagged:?}");
        };
        assert!(result.as_ref().unwrap_err().to_string().contains("index 7 of 3"));
        assert_eq!(part.due().filter(|at| *at > Instant::now()), None);
        part.ended(&result);
        assert!(part.due().is_some_and(|at| at > Instant::now()), "with backoff");
        assert_eq!(part.stats.model_restarts.get(), 1);
    }
}
