//! A session: the model, the capture, the report and the caches between two `restart` commands.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::capture_supervisor::{self, CaptureSupervisor};
use super::context::Context;
use super::event::{EpochEvent, ModelEvent, PipelineEvent, SessionEvent};
use super::model_resolver::ModelResolver;
use super::model_supervisor::ModelSupervisor;
use super::session_end::SessionEnd;
use crate::cache::{CacheWriter, Caches, FileCache, S3Cache, S3Settings};
use crate::capture::{AudioMailbox, CaptureEvent, DeviceSelection, FrameMailbox};
use crate::commands::{self, Action, AnswerPublisher, CommandContext};
use crate::config::{FilterConfig, ResizeMode, SourceLine, ThresholdReading};
use crate::inference::publisher::{Encoder, Publisher, PublisherSettings, WaitingMessages};
use crate::inference::{InferenceContext, PredictionLogger, Progress, RefusedSlices};
use crate::model::ModelInfo;
use crate::report::{Report, ReportSettings};
use crate::status::{ModelState, SourceState};
use crate::studio::{ModelUpdate, Provider};
use crate::uplink::{Message, ReceivedCommand, Status};
use crate::util::clock::now_ms;
use crate::util::text::sentence;
use crate::{capture, model};

/// The caches have at least this much time to write to disk, even when the other parts used up theirs.
const CACHES_STOP_LIMIT: Duration = Duration::from_millis(300);

/// See the module documentation.
pub(super) struct Session<'a> {
    context: &'a Context,
    report: Arc<Mutex<Report>>,
    frames: Arc<FrameMailbox>,
    audio: Arc<AudioMailbox>,
    announce: Arc<AtomicBool>,
    refused_slices: RefusedSlices,
    model: ModelSupervisor,
    capture: CaptureSupervisor,
    caches: Caches,
    publisher: Publisher,
    encoder: Encoder,
    events: mpsc::UnboundedReceiver<EpochEvent>,
    /// The last mailbox generation whose frames were all inferred.
    drained: u64,
    /// The notice `paused` follows when the frames of this mailbox generation are inferred.
    pausing: Option<u64>,
}

impl<'a> Session<'a> {
    /// Creates all parts. Model and capture start in [`Self::run`].
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub(super) fn new(context: &'a Context) -> std::io::Result<Self> {
        let config = &context.setup.config;
        let stats = context.stats.clone();
        let report = Report::new(
            ReportSettings {
                filter: config.filter,
                publish_every: config.iotcore_backoff,
            },
            stats.clone(),
        );
        let caches = start_caches(context)?;
        let (publisher, encoder) = Publisher::start(
            PublisherSettings {
                publish_image: config.publish_image,
                qos: config.qos,
                s3_bucket: config.s3_cache_bucket.clone(),
                health: context.registry.results_flag().clone(),
            },
            context.topics.clone(),
            context.outbox.clone(),
            caches.clone(),
            stats.clone(),
        )?;
        // Unbounded, but short: each start or end of a part sends a few events.
        let (sender, events) = mpsc::unbounded_channel();
        let (frames, audio) = (Arc::new(FrameMailbox::new()), Arc::new(AudioMailbox::new()));
        let capture = CaptureSupervisor::new(
            capture::CaptureSettings {
                devices: DeviceSelection::from_options(&config.runner),
                unthrottled: context.setup.unthrottled,
                still_interval: config.still_interval,
                microphone_channel: config.microphone_channel,
                ..capture::CaptureSettings::new(context.setup.source.clone())
            },
            config.shutdown_behavior,
            (frames.clone(), audio.clone()),
            context.stuck_threads.clone(),
            context.source_secrets.clone(),
            stats.clone(),
            sender.clone(),
        );
        let model_resolver = ModelResolver::new(
            context.setup.model.clone(),
            Provider::new(config, std::env::var("EI_HOST").ok()),
            sender.clone(),
        );
        let report = Arc::new(Mutex::new(report));
        context.live_tap.thresholds.clear();
        let file_cache = caches.files.as_ref().map(|cache| cache.flag()).unwrap_or_default();
        let s3_cache = caches.s3.as_ref().map(|cache| cache.flag()).unwrap_or_default();
        context.registry.begin_session(report.clone(), file_cache, s3_cache);
        let settings = Box::new({
            let (stats, device) = (stats.clone(), context.device.clone());
            let (shm, thresholds) = (config.runner.shm, config.runner.thresholds.clone());
            let work_dir = config.work_dir.clone();
            let shm_health = context.registry.shared_memory_flag().clone();
            move |source| model::ModelSettings {
                shm,
                shm_health: shm_health.clone(),
                thresholds: thresholds.clone(),
                ..model::ModelSettings::new(source, &*device, &work_dir, stats.clone())
            }
        });
        let model = ModelSupervisor::new(model_resolver, settings, stats, sender);
        Ok(Self {
            context,
            report,
            frames,
            audio,
            announce: Arc::new(AtomicBool::new(false)),
            refused_slices: RefusedSlices::default(),
            model,
            capture,
            caches,
            publisher,
            encoder,
            events,
            drained: 0,
            pausing: None,
        })
    }

    /// Runs until the command `restart`, until `stop` completes, or until too many threads are stuck.
    pub(super) async fn run(
        &mut self,
        mut stop: Pin<&mut impl Future<Output = ()>>,
        commands: &mut mpsc::Receiver<ReceivedCommand>,
    ) -> SessionEnd {
        let mut metrics = interval(self.context.setup.config.metrics_interval);
        metrics.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (model_due, capture_due) = (self.model.due(), self.capture.due());
            let flow = tokio::select! {
                () = &mut stop => ControlFlow::Break(SessionEnd::Stop),
                Some(command) = commands.recv() => self.on_command(&command),
                Some(event) = self.events.recv() => self.on_event(event),
                () = at(model_due) => self.start_model(),
                () = at(capture_due) => self.on_capture_due(),
                _ = metrics.tick() => self.publish_metrics(),
            };
            if let ControlFlow::Break(end) = flow {
                return end;
            }
        }
    }

    /// Stops capture, model and caches. Returns the messages that still wait for their pictures, which are encoded further.
    pub(super) async fn stop(mut self, deadline: tokio::time::Instant) -> Option<WaitingMessages> {
        let ((), inference_ended) = tokio::join!(
            self.capture.stop(deadline),
            self.model.stop(&self.frames, &self.audio, deadline)
        );
        drop(self.publisher);
        let mut waiting = self.encoder.waiting_messages();
        if inference_ended {
            let encoder = self.encoder;
            let written = tokio::task::spawn_blocking(move || encoder.finish());
            if tokio::time::timeout_at(deadline, written).await.is_ok() {
                waiting = None;
            }
        } else {
            tracing::warn!("The model did not end in time and is abandoned");
        }
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        stop_caches(self.caches, left.max(CACHES_STOP_LIMIT)).await;
        waiting
    }

    fn start_model(&mut self) -> ControlFlow<SessionEnd> {
        let runner = &self.context.setup.config.runner;
        self.announce.store(true, Ordering::Relaxed);
        self.context.registry.set_model_state(ModelState::Starting);
        self.model.start(InferenceContext {
            frames: self.frames.clone(),
            audio: self.audio.clone(),
            report: self.report.clone(),
            publisher: self.publisher.clone(),
            stats: self.context.stats.clone(),
            prediction_logger: PredictionLogger::new(runner.quiet_predictions, runner.verbosity),
            live_tap: self.context.live_tap.clone(),
            forced_resize: runner.resize_mode,
            unnamed_resize: unnamed_resize(self.context.setup.source.as_ref()),
            announce: self.announce.clone(),
            finish: Arc::default(),
            refused_slices: self.refused_slices.clone(),
        });
        if self.model.is_searching() {
            let reason = "it is looked for in Edge Impulse Studio";
            self.context
                .registry
                .set_model_state(ModelState::Waiting(reason.to_owned()));
        }
        ControlFlow::Continue(())
    }

    fn on_capture_due(&mut self) -> ControlFlow<SessionEnd> {
        // Set before the first frame can arrive; set later, that frame would lead to a second notice.
        // Each still picture is a start of its own; only the first one is announced.
        if !self.capture.is_polling() {
            self.announce.store(true, Ordering::Relaxed);
        }
        self.capture.on_due()
    }

    fn on_event(&mut self, EpochEvent { epoch, event }: EpochEvent) -> ControlFlow<SessionEnd> {
        match event {
            SessionEvent::Model(event) if event.is_for_any_epoch() || self.model.is_current(epoch) => {
                self.on_model_event(event);
            }
            SessionEvent::Capture(event) if self.capture.is_current(epoch) => return self.on_capture_event(event),
            SessionEvent::Capture(PipelineEvent::Started(Ok(capture))) => {
                // An abandoned start succeeded after all, while its successor starts or runs.
                let stuck_threads = self.context.stuck_threads.clone();
                tokio::task::spawn_blocking(move || capture_supervisor::stop(capture, &stuck_threads));
            }
            SessionEvent::Model(_) | SessionEvent::Capture(_) => {}
        }
        ControlFlow::Continue(())
    }

    fn on_capture_event(&mut self, event: PipelineEvent) -> ControlFlow<SessionEnd> {
        let is_end = matches!(event, PipelineEvent::Reported(CaptureEvent::EndOfStream));
        match source_state(&event) {
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
            }
            ModelEvent::Progress(Progress::Unsupported(info)) => {
                self.on_model_loaded(&info);
                self.context.registry.set_model_state(ModelState::UnsupportedModel(
                    info.input.unsupported_reason().unwrap_or_default(),
                ));
                self.model.on_unsupported(info);
            }
            ModelEvent::Progress(Progress::FirstInference) => {
                self.context.registry.set_source_delivers();
                self.notice(Status::Started);
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
            }
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

    fn on_model_loaded(&self, info: &Arc<ModelInfo>) {
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

    /// Publishes the notice `paused` once the source has ended and its last frame is inferred.
    fn notify_paused(&mut self) {
        if self.pausing.is_some_and(|generation| self.drained >= generation) {
            self.pausing = None;
            self.notice(Status::Paused);
        }
    }

    fn notice(&self, status: Status) {
        let qos = self.context.setup.config.qos;
        self.context
            .outbox
            .push(Message::notice(&self.context.topics, status, qos));
    }

    fn publish_metrics(&self) -> ControlFlow<SessionEnd> {
        let runner = self.context.registry.runner_object();
        let json = self
            .report
            .lock()
            .metrics_message(now_ms(), Uuid::new_v4(), runner)
            .to_string();
        self.context.outbox.push(Message::metrics(
            &self.context.topics,
            json,
            self.context.setup.config.qos,
        ));
        ControlFlow::Continue(())
    }

    fn on_command(&self, command: &ReceivedCommand) -> ControlFlow<SessionEnd> {
        let context = CommandContext {
            report: &self.report,
            model: self.model.info(),
            changed_thresholds: self.context.live_tap.thresholds.applied(),
            caches: &self.caches,
            answers: AnswerPublisher {
                outbox: self.context.outbox.clone(),
                topics: self.context.topics.clone(),
                qos: self.context.setup.config.qos,
            },
        };
        match commands::execute(command, &context) {
            Action::Continue => ControlFlow::Continue(()),
            Action::Restart => ControlFlow::Break(SessionEnd::Restart),
        }
    }
}

/// Logs how the threshold of the confidence filter is read for the scores of a model that was loaded.
fn log_threshold(filter: FilterConfig) {
    if let Some(warning) = filter.warning() {
        tracing::warn!("{warning}");
    } else if filter.reading() != ThresholdReading::Fraction {
        tracing::info!(
            given = filter.given,
            reading = filter.reading().to_string(),
            threshold = filter.threshold(),
            "The threshold of the confidence filter is read for the scores of this model"
        );
    }
}

/// The state of the source that an event leads to, if it changes it.
fn source_state(event: &PipelineEvent) -> Option<SourceState> {
    match event {
        PipelineEvent::Started(Ok(_)) => Some(SourceState::Running),
        PipelineEvent::Started(Err(e)) | PipelineEvent::Reported(CaptureEvent::Error(e)) => {
            Some(SourceState::Waiting(sentence(e)))
        }
        PipelineEvent::Reported(CaptureEvent::Stalled { after }) => {
            let reason = format!("it delivered no frame for {:.0} s", after.as_secs_f32());
            Some(SourceState::Stalled(reason))
        }
        PipelineEvent::Reported(CaptureEvent::EndOfStream) => Some(SourceState::Starting),
        PipelineEvent::Stopped(_) => None,
    }
}

/// The resize mode for models that do not state one. The existing runner letterboxed pictures of a `gst_args` pipeline and
/// squashed those of a camera that it selected itself.
fn unnamed_resize(source: Option<&SourceLine>) -> ResizeMode {
    match source {
        Some(_) => ResizeMode::FitLongest,
        None => ResizeMode::Squash,
    }
}

/// Starts the configured caches.
fn start_caches(context: &Context) -> std::io::Result<Caches> {
    let (config, stats) = (&context.setup.config, &context.stats);
    let files = config.file_cache.as_ref();
    let s3 = config.s3_cache_bucket.as_ref();
    Ok(Caches {
        files: files
            .map(|files| CacheWriter::start("file-cache", FileCache::new(files.clone()), stats.clone()).map(Arc::new))
            .transpose()?,
        s3: s3
            .map(|bucket| {
                let settings = S3Settings::new(&bucket.name, &config.work_dir, &context.device);
                S3Cache::start(settings, stats.clone()).map(Arc::new)
            })
            .transpose()?,
    })
}

/// Writes what the caches hold. No pairs arrive any more. A command that still waits for its answer gets the error that the
/// cache was stopped.
async fn stop_caches(caches: Caches, limit: Duration) {
    let files = async {
        if let Some(files) = caches.files {
            files.stop(limit).await;
        }
    };
    let s3 = async {
        if let Some(s3) = caches.s3 {
            s3.stop(limit).await;
        }
    };
    tokio::join!(files, s3);
}

/// Completes at `time`; `None`: never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_without_a_resize_mode_get_that_of_the_existing_runner() {
        let line = SourceLine("v4l2src:!:jpegenc".to_owned());
        assert_eq!(unnamed_resize(Some(&line)), ResizeMode::FitLongest);
        assert_eq!(unnamed_resize(None), ResizeMode::Squash);
    }
}
