//! A session: the model, the capture, the report and the caches between two `restart` commands or changes of their
//! configuration.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};
use uuid::Uuid;

use super::caches;
use super::capture_supervisor::CaptureSupervisor;
use super::config_update::ConfigUpdate;
use super::context::Context;
use super::event::EpochEvent;
use super::model_resolver::ModelResolver;
use super::model_supervisor::ModelSupervisor;
use super::model_updater::ModelUpdater;
use super::session_end::SessionEnd;
use crate::cache::Caches;
use crate::capture::{AudioMailbox, DeviceSelection, FrameMailbox};
use crate::commands::{self, Action, AnswerPublisher, CommandContext};
use crate::config::{Config, ResizeMode, SourceLine};
use crate::events::EventSettings;
use crate::inference::publisher::{Encoder, Outputs, Publisher, WaitingMessages};
use crate::inference::{ClassifierSettings, InferenceContext, PredictionLogger, RefusedSlices};
use crate::report::{Report, ReportSettings};
use crate::status::ModelState;
use crate::studio::{Provider, UpdateRequest};
use crate::uplink::{Message, ReceivedCommand, Status};
use crate::util::clock::now_ms;
use crate::{capture, model};

mod events;
mod model_updates;
mod reconfigure;

/// What a session receives from outside. It outlives the session.
pub(super) struct SessionInputs {
    /// Commands of the broker.
    pub commands: mpsc::Receiver<ReceivedCommand>,
    /// Changed configurations.
    pub updates: mpsc::Receiver<ConfigUpdate>,
    /// Requests to update the model.
    pub update_requests: mpsc::Receiver<UpdateRequest>,
}

/// The caches have at least this much time to write to disk, even if the other parts needed all the time.
const CACHES_STOP_LIMIT: Duration = Duration::from_millis(300);

/// Runs one session to its end.
pub(super) struct Session<'a> {
    context: &'a Context,
    report: Arc<Mutex<Report>>,
    frames: Arc<FrameMailbox>,
    audio: Arc<AudioMailbox>,
    announce: Arc<AtomicBool>,
    refused_slices: RefusedSlices,
    model: ModelSupervisor,
    updates: ModelUpdater,
    capture: CaptureSupervisor,
    caches: Caches,
    publisher: Publisher,
    encoder: Encoder,
    metrics: Interval,
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
    /// The system cannot start a thread.
    pub(super) fn new(context: &'a Context) -> std::io::Result<Self> {
        let setup = context.setup();
        let config = &setup.config;
        let stats = context.stats.clone();
        let report = Report::new(
            ReportSettings {
                filter: config.filter,
                publish_every: config.iotcore_backoff,
            },
            stats.clone(),
        );
        let caches = caches::start(context, config)?;
        context.events.set_clips(caches.clips.clone());
        let (publisher, encoder) = Publisher::start(
            outputs(config, &caches),
            context.topics.clone(),
            context.outbox.clone(),
            stats.clone(),
            context.registry.results_flag().clone(),
        )?;
        context.events.set_pairs(publisher.pair_destination());
        // Unbounded, because each start or end of a part sends only a few events.
        let (sender, events) = mpsc::unbounded_channel();
        let (frames, audio) = (Arc::new(FrameMailbox::new()), Arc::new(AudioMailbox::new()));
        let capture = CaptureSupervisor::new(
            capture::CaptureSettings {
                devices: DeviceSelection::from_options(&config.runner),
                unthrottled: setup.unthrottled,
                still_interval: config.still_interval,
                microphone_channel: config.microphone_channel,
                tap: context.capture_tap.clone(),
                clips: caches.clips.as_ref().map(|clips| clips.recorder().clone()),
                ..capture::CaptureSettings::new(setup.source.clone())
            },
            config.shutdown_behavior,
            (frames.clone(), audio.clone()),
            context.stuck_threads.clone(),
            context.source_secrets.clone(),
            stats.clone(),
            sender.clone(),
        );
        let provider = Arc::new(Provider::new(config, std::env::var("EI_HOST").ok()));
        let model_resolver = ModelResolver::new(setup.model.clone(), provider.clone(), sender.clone());
        let versions = context.registry.model_versions().clone();
        let updates = ModelUpdater::new(provider, config.model_updates.clone(), sender.clone(), versions);
        let report = Arc::new(Mutex::new(report));
        context.live_tap.thresholds.clear();
        if let Some(tap) = &context.capture_tap {
            tap.forget_sources();
        }
        context
            .registry
            .begin_session(report.clone(), caches::status(&caches, config));
        let settings = Box::new({
            let (stats, device) = (stats.clone(), context.device.clone());
            let (shm, thresholds) = (config.runner.shm, config.runner.thresholds.clone());
            let work_dir = config.work_dir.clone();
            let shm_health = context.registry.shared_memory_flag().clone();
            let sandbox = context.sandbox.clone();
            move |source| model::ModelSettings {
                shm,
                sandbox: sandbox.clone(),
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
            updates,
            capture,
            caches,
            publisher,
            encoder,
            metrics: metrics_interval(config),
            events,
            drained: 0,
            pausing: None,
        })
    }

    /// Runs until the command `restart`, until `stop` completes, or until too many threads are stuck.
    pub(super) async fn run(
        &mut self,
        mut stop: Pin<&mut impl Future<Output = ()>>,
        inputs: &mut SessionInputs,
    ) -> SessionEnd {
        loop {
            let (model_due, capture_due) = (self.model.due(), self.capture.due());
            let (update_due, probation_end) = (self.updates.due(), self.updates.probation_end());
            let flow = tokio::select! {
                () = &mut stop => ControlFlow::Break(SessionEnd::Stop),
                Some(command) = inputs.commands.recv() => self.on_command(&command),
                Some(update) = inputs.updates.recv() => self.on_config_update(update),
                Some(event) = self.events.recv() => self.on_event(event),
                () = at(model_due) => self.start_model(),
                () = at(capture_due) => self.on_capture_due(),
                Some(request) = inputs.update_requests.recv() => {
                    self.on_update_request(request);
                    ControlFlow::Continue(())
                }
                () = at(update_due) => {
                    self.on_update_due();
                    ControlFlow::Continue(())
                }
                () = at(probation_end) => {
                    self.on_probation_passed();
                    ControlFlow::Continue(())
                }
                _ = self.metrics.tick() => self.publish_metrics(),
            };
            if let ControlFlow::Break(end) = flow {
                return end;
            }
        }
    }

    /// Stops capture, model and caches. Returns the messages that still wait for their pictures, which are encoded further.
    pub(super) async fn stop(mut self, deadline: tokio::time::Instant) -> Option<WaitingMessages> {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let clips = self.caches.clips.clone();
        let clips = async {
            if let Some(clips) = clips {
                clips.stop(left).await;
            }
        };
        let ((), (), inference_ended, ()) = tokio::join!(
            self.capture.stop(deadline),
            self.updates.stop(deadline),
            self.model.stop(&self.frames, &self.audio, deadline),
            clips
        );
        if let Some(monitor) = &self.context.monitor {
            monitor.close_window();
        }
        drop(self.publisher);
        let mut waiting = Some(self.encoder.waiting_messages());
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
        caches::stop(self.caches, left.max(CACHES_STOP_LIMIT)).await;
        waiting
    }

    fn start_model(&mut self) -> ControlFlow<SessionEnd> {
        let setup = self.context.setup();
        let runner = &setup.config.runner;
        self.announce.store(true, Ordering::Relaxed);
        self.context.registry.set_model_state(ModelState::Starting);
        self.model.start(InferenceContext {
            frames: self.frames.clone(),
            audio: self.audio.clone(),
            report: self.report.clone(),
            publisher: self.publisher.clone(),
            events: self.context.events.clone(),
            stats: self.context.stats.clone(),
            prediction_logger: PredictionLogger::new(runner.quiet_predictions, runner.verbosity),
            live_tap: self.context.live_tap.clone(),
            frame_selector: self.context.frame_selector.clone(),
            monitor: self.context.monitor.clone(),
            classifier: self.classifier_settings(),
            successor: self.updates.successor().clone(),
            announce: self.announce.clone(),
            finish: Arc::default(),
        });
        if let Some(model) = self.model.stored() {
            self.updates.record_begin(model);
        }
        if self.model.is_searching() {
            let reason = "searching for the model in Edge Impulse Studio";
            self.context
                .registry
                .set_model_state(ModelState::Waiting(reason.to_owned()));
        }
        ControlFlow::Continue(())
    }

    fn classifier_settings(&self) -> ClassifierSettings {
        let setup = self.context.setup();
        ClassifierSettings {
            forced_resize: setup.config.runner.resize_mode,
            unnamed_resize: unnamed_resize(setup.source.as_ref()),
            refused_slices: self.refused_slices.clone(),
        }
    }

    fn on_capture_due(&mut self) -> ControlFlow<SessionEnd> {
        // Must be set before the first frame arrives: set later, the next frame would cause a second notice.
        // Each still picture is a new start, but only the first one is announced.
        if !self.capture.is_polling() {
            self.announce.store(true, Ordering::Relaxed);
        }
        self.capture.on_due()
    }

    /// Publishes the notice `paused` if the source has ended and its last frame was inferred.
    fn notify_paused(&mut self) {
        if self.pausing.is_some_and(|generation| self.drained >= generation) {
            self.pausing = None;
            self.notice(Status::Paused);
        }
    }

    /// Publishes the notice `started`, with the version of the model.
    fn notify_started(&self) {
        let version = self.model.info().map(|info| info.deploy_version);
        let qos = self.context.setup().config.qos;
        self.context
            .outbox
            .push(Message::started(&self.context.topics, version, qos));
    }

    fn notice(&self, status: Status) {
        let qos = self.context.setup().config.qos;
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
            self.context.setup().config.qos,
        ));
        ControlFlow::Continue(())
    }

    fn on_command(&self, command: &ReceivedCommand) -> ControlFlow<SessionEnd> {
        let context = CommandContext {
            report: &self.report,
            events: &self.context.events,
            model: self.model.info(),
            changed_thresholds: self.context.live_tap.thresholds.applied(),
            caches: &self.caches,
            model_updates: Some(self.context.model_updates.clone()),
            answers: AnswerPublisher {
                outbox: self.context.outbox.clone(),
                topics: self.context.topics.clone(),
                qos: self.context.setup().config.qos,
            },
        };
        match commands::execute(command, &context) {
            Action::Continue => ControlFlow::Continue(()),
            Action::Restart => ControlFlow::Break(SessionEnd::Restart),
        }
    }
}

/// Where inferences go with this configuration.
fn outputs(config: &Config, caches: &Caches) -> Outputs {
    Outputs {
        publish_inferences: config.publish_inferences,
        publish_image: config.publish_image,
        qos: config.qos,
        s3_bucket: config.s3_cache_bucket.clone(),
        caches: caches.clone(),
    }
}

/// How events are made and published with this configuration.
pub(super) fn event_settings(config: &Config) -> EventSettings {
    EventSettings {
        deployed: config.events.clone(),
        qos: config.qos,
        with_pictures: config.publish_image,
    }
}

fn metrics_interval(config: &Config) -> Interval {
    let mut metrics = interval(config.metrics_interval);
    metrics.set_missed_tick_behavior(MissedTickBehavior::Delay);
    metrics
}

/// The resize mode for models that do not state one. The existing runner letterboxed pictures of a `gst_args` pipeline and
/// squashed those of a camera that it selected itself.
fn unnamed_resize(source: Option<&SourceLine>) -> ResizeMode {
    match source {
        Some(_) => ResizeMode::FitLongest,
        None => ResizeMode::Squash,
    }
}

/// Completes at `time`, or never if it is `None`.
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
