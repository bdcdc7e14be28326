//! Runs the model on a thread, one request after the other. Restarts the model when it fails.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use super::model_provider::SelectedModel;
use crate::config::ModelSource;
use crate::model::{InferenceResult, Interrupt, Model, ModelError, ModelInfo, ModelSettings};
use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::util::clock::rounded;
use crate::util::log_limiter::LogLimiter;

/// Most requests that wait for the model.
pub(super) const QUEUE_LENGTH: usize = 8;
/// How often an idle thread checks whether it must stop, or run another model.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The model's result and its unchanged `timing`.
pub(super) type TimedResult = (InferenceResult, Value);

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClassifyError {
    #[error("too many requests are waiting for the model; try again later")]
    Busy,
    #[error("the model is not running: it is being started or downloaded; try again later")]
    NotRunning,
    #[error("the model failed and is being restarted; try again later: {0}")]
    Failed(String),
    /// The model's error message.
    #[error("{0}")]
    Refused(String),
}

struct ClassifyRequest {
    features: Vec<f32>,
    reply: oneshot::Sender<Result<TimedResult, ClassifyError>>,
}

/// The running thread.
pub(super) struct ModelWorker {
    requests: SyncSender<ClassifyRequest>,
    info: watch::Receiver<Option<Arc<ModelInfo>>>,
    interrupt: Interrupt,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

impl ModelWorker {
    /// Starts the thread. It runs the newest of `models` with `settings`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(
        settings: impl Fn(ModelSource) -> ModelSettings + Send + 'static,
        models: watch::Receiver<Option<SelectedModel>>,
    ) -> std::io::Result<Self> {
        let (requests, queue) = sync_channel(QUEUE_LENGTH);
        let (loaded, info) = watch::channel(None);
        let (done, ended) = oneshot::channel();
        let interrupt = Interrupt::new();
        let thread_interrupt = interrupt.clone();
        std::thread::Builder::new().name("model".into()).spawn(move || {
            run_models(&settings, models, &thread_interrupt, &queue, &loaded);
            let _ = done.send(());
        })?;
        Ok(Self {
            requests,
            info,
            interrupt,
            ended: Mutex::new(Some(ended)),
        })
    }

    /// Information about the model; `None` while it is not running.
    pub(super) fn info(&self) -> Option<Arc<ModelInfo>> {
        self.info.borrow().clone()
    }

    /// Classifies features. Their number must be the number that the model takes.
    ///
    /// # Errors
    /// [`ClassifyError`].
    pub(super) async fn classify(&self, features: Vec<f32>) -> Result<TimedResult, ClassifyError> {
        if self.info().is_none() {
            return Err(ClassifyError::NotRunning);
        }
        let (reply, result) = oneshot::channel();
        match self.requests.try_send(ClassifyRequest { features, reply }) {
            Ok(()) => result.await.unwrap_or(Err(ClassifyError::NotRunning)),
            Err(TrySendError::Full(_)) => Err(ClassifyError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(ClassifyError::NotRunning),
        }
    }

    /// Stops the model. Returns `false` if it did not stop within `limit`.
    pub(super) async fn stop(&self, limit: Duration) -> bool {
        self.interrupt.trip();
        let ended = self.ended.lock().take();
        match ended {
            Some(ended) => tokio::time::timeout(limit, ended).await.is_ok(),
            None => true,
        }
    }
}

/// Why a working model is not used any more.
enum ModelEnd {
    /// The worker stops.
    Stop,
    /// Another model replaces it.
    Replaced,
}

fn run_models(
    settings: &impl Fn(ModelSource) -> ModelSettings,
    mut models: watch::Receiver<Option<SelectedModel>>,
    interrupt: &Interrupt,
    queue: &Receiver<ClassifyRequest>,
    loaded: &watch::Sender<Option<Arc<ModelInfo>>>,
) {
    let mut backoff = Backoff::new(BackoffPolicy::default());
    let mut limiter = LogLimiter::default();
    while !interrupt.is_tripped() {
        let Some(SelectedModel { source, sha256, .. }) = models.borrow_and_update().clone() else {
            // `classify` refuses requests while there is no model, so nothing needs a reply here.
            if matches!(queue.recv_timeout(CHECK_INTERVAL), Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            continue;
        };
        let settings = ModelSettings {
            sha256,
            ..settings(source)
        };
        let ended = Model::start(&settings, interrupt).and_then(|mut model| {
            let info = model.info().clone();
            if info.slow_first_inference {
                model.warm_up()?;
            }
            backoff.succeeded(Instant::now());
            tracing::info!(version = info.deploy_version, model = info.name, "The model is loaded");
            loaded.send_replace(Some(info));
            serve_requests(model, interrupt, queue, &models)
        });
        loaded.send_replace(None);
        let error = match ended {
            Err(error) => error.brief(),
            Ok(ModelEnd::Replaced) => continue,
            Ok(ModelEnd::Stop) => return,
        };
        if interrupt.is_tripped() {
            return;
        }
        let now = Instant::now();
        let wait = backoff.failed(now);
        if let Some(suppressed) = limiter.check(now, &error) {
            tracing::warn!(
                error,
                retry_in = ?rounded(wait),
                suppressed = suppressed.count(),
                "The model failed and will be restarted"
            );
        }
        interrupt.pause(wait);
    }
}

fn serve_requests(
    mut model: Model,
    interrupt: &Interrupt,
    queue: &Receiver<ClassifyRequest>,
    models: &watch::Receiver<Option<SelectedModel>>,
) -> Result<ModelEnd, ModelError> {
    let end = loop {
        // After an error no other model will follow.
        match models.has_changed() {
            _ if interrupt.is_tripped() => break ModelEnd::Stop,
            Ok(true) => break ModelEnd::Replaced,
            Ok(false) | Err(_) => {}
        }
        let ClassifyRequest { features, reply } = match queue.recv_timeout(CHECK_INTERVAL) {
            Ok(request) if request.reply.is_closed() => continue,
            Ok(request) => request,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break ModelEnd::Stop,
        };
        // Errors of `send` are ignored: the client may have disconnected.
        match classify(&mut model, &features) {
            Ok(result) => drop(reply.send(Ok(result))),
            Err(e) if e.is_fatal() => {
                let _ = reply.send(Err(ClassifyError::Failed(e.brief())));
                return Err(e);
            }
            Err(e) => drop(reply.send(Err(ClassifyError::Refused(e.to_string())))),
        }
    };
    model.stop();
    Ok(end)
}

fn classify(model: &mut Model, features: &[f32]) -> Result<TimedResult, ModelError> {
    model.features_for(features.len())?.copy_from_slice(features);
    model.classify_with_timing(features.len())
}
