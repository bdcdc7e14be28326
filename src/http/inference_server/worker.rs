//! The model on a thread of its own: one question after the other, started again when it fails.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use super::supply::Chosen;
use crate::config::ModelSource;
use crate::model::{InferenceResult, Interrupt, Model, ModelError, ModelInfo, Settings};
use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::util::log_limiter::{LogLimiter, like};

/// Questions that wait for the model.
const QUEUE: usize = 8;
/// How often a thread without questions looks whether the end was asked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What the model answered, and its `timing` as it sent it.
pub(super) type Answer = (InferenceResult, Value);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AskError {
    #[error("too many requests are waiting for the model; try again later")]
    Busy,
    #[error("the model is not running at the moment, it is being started or downloaded; try again later")]
    NotRunning,
    #[error("the model failed and is started again; try again later: {0}")]
    Failed(String),
    /// The model's own words.
    #[error("{0}")]
    Refused(String),
}

struct Question {
    features: Vec<f32>,
    reply: oneshot::Sender<Result<Answer, AskError>>,
}

/// See the module.
pub(super) struct Worker {
    questions: SyncSender<Question>,
    info: watch::Receiver<Option<Arc<ModelInfo>>>,
    interrupt: Interrupt,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Worker {
    /// Starts the thread, which starts the newest of `models` with `settings`, now and when it changes.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        settings: impl Fn(ModelSource) -> Settings + Send + 'static,
        models: watch::Receiver<Option<Chosen>>,
    ) -> std::io::Result<Self> {
        let (questions, queue) = sync_channel(QUEUE);
        let (known, info) = watch::channel(None);
        let (done, ended) = oneshot::channel();
        let interrupt = Interrupt::new();
        let thread_interrupt = interrupt.clone();
        std::thread::Builder::new().name("model".into()).spawn(move || {
            keep_running(&settings, models, &thread_interrupt, &queue, &known);
            let _ = done.send(());
        })?;
        Ok(Self {
            questions,
            info,
            interrupt,
            ended: Mutex::new(Some(ended)),
        })
    }

    /// What the model is; `None` while it is not running.
    pub(super) fn info(&self) -> Option<Arc<ModelInfo>> {
        self.info.borrow().clone()
    }

    /// Asks the model. There must be as many features as it takes.
    ///
    /// # Errors
    /// [`AskError`].
    pub(super) async fn ask(&self, features: Vec<f32>) -> Result<Answer, AskError> {
        if self.info().is_none() {
            return Err(AskError::NotRunning);
        }
        let (reply, answer) = oneshot::channel();
        match self.questions.try_send(Question { features, reply }) {
            Ok(()) => answer.await.unwrap_or(Err(AskError::NotRunning)),
            Err(TrySendError::Full(_)) => Err(AskError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(AskError::NotRunning),
        }
    }

    /// Ends the model. `false`: it hangs.
    pub(super) async fn stop(&self, limit: Duration) -> bool {
        self.interrupt.trip();
        let ended = self.ended.lock().take();
        match ended {
            Some(ended) => tokio::time::timeout(limit, ended).await.is_ok(),
            None => true,
        }
    }
}

/// Why a model is not asked any more although it is well.
enum Over {
    /// The end was asked for.
    Stop,
    /// There is a newer one.
    Newer,
}

fn keep_running(
    settings: &impl Fn(ModelSource) -> Settings,
    mut models: watch::Receiver<Option<Chosen>>,
    interrupt: &Interrupt,
    queue: &Receiver<Question>,
    known: &watch::Sender<Option<Arc<ModelInfo>>>,
) {
    let mut backoff = Backoff::new(BackoffPolicy::default());
    let mut failures = LogLimiter::default();
    while !interrupt.is_tripped() {
        let Some(Chosen { source, .. }) = models.borrow_and_update().clone() else {
            // Whoever asks now is told so before it comes here.
            if matches!(queue.recv_timeout(LOOK_EVERY), Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            continue;
        };
        let result = Model::start(&settings(source), interrupt).and_then(|mut model| {
            let info = model.info().clone();
            if info.slow_first_inference {
                model.warm_up()?;
            }
            backoff.succeeded(Instant::now());
            tracing::info!("model {} v{} is loaded", info.name, info.deploy_version);
            known.send_replace(Some(info));
            answer_questions(model, interrupt, queue, &models)
        });
        known.send_replace(None);
        let e = match result {
            Err(e) => e,
            Ok(Over::Newer) => continue,
            Ok(Over::Stop) => return,
        };
        if interrupt.is_tripped() {
            return;
        }
        let now = Instant::now();
        let wait = backoff.failed(now);
        if let Some(more) = failures.check(now, &e.brief()) {
            tracing::warn!(
                "the model is started again in {:.1} s{}: {}",
                wait.as_secs_f32(),
                like(more),
                e.brief()
            );
        }
        interrupt.pause(wait);
    }
}

fn answer_questions(
    mut model: Model,
    interrupt: &Interrupt,
    queue: &Receiver<Question>,
    models: &watch::Receiver<Option<Chosen>>,
) -> Result<Over, ModelError> {
    let over = loop {
        // An error means that no newer one will come.
        match models.has_changed() {
            _ if interrupt.is_tripped() => break Over::Stop,
            Ok(true) => break Over::Newer,
            Ok(false) | Err(_) => {}
        }
        let Question { features, reply } = match queue.recv_timeout(LOOK_EVERY) {
            Ok(question) if question.reply.is_closed() => continue,
            Ok(question) => question,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break Over::Stop,
        };
        // Who asked may have gone in the meantime.
        match classify(&mut model, &features) {
            Ok(answer) => drop(reply.send(Ok(answer))),
            Err(e) if e.is_fatal() => {
                let _ = reply.send(Err(AskError::Failed(e.brief())));
                return Err(e);
            }
            Err(e) => drop(reply.send(Err(AskError::Refused(e.to_string())))),
        }
    };
    model.stop();
    Ok(over)
}

fn classify(model: &mut Model, features: &[f32]) -> Result<Answer, ModelError> {
    model.features_for(features.len())?.copy_from_slice(features);
    model.classify_with_timing(features.len())
}
