//! What lives between two `restart` commands: model, capture, report, cache, and the loop that keeps them going.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::Context;
use super::capture_part::{self, CapturePart, Consequence};
use super::commands::{After, CommandHandler};
use super::event::{Event, ModelEvent, PipelineEvent, Tagged};
use super::model_part::ModelPart;
use super::model_resolver::ModelResolver;
use crate::cache::{CacheWriter, FileCache, S3Cache, S3Settings};
use crate::capture::{AudioMailbox, CaptureEvent, DeviceSelection, FrameMailbox};
use crate::config::{ResizeMode, SourceLine};
use crate::inference::publisher::{Caches, Encoder, Publisher, PublisherSettings};
use crate::inference::{InferenceContext, PredictionLogger, Progress};
use crate::report::{Report, ReportSettings, RunnerFigures};
use crate::status::{ModelState, SourceState};
use crate::studio::{Found, Provider};
use crate::uplink::{Message, ReceivedCommand, Status};
use crate::util::clock::now_ms;
use crate::util::memory::resident_bytes;
use crate::{capture, model};

/// The caches get at least this long to put on disk what they hold, even when everything before took all of its time.
const CACHES_STOP_LIMIT: Duration = Duration::from_millis(300);

/// How a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The command `restart`.
    Restart,
    /// The end was asked for.
    Stop,
    /// Too much hangs: start the program anew.
    Reexec,
}

/// See the module.
pub(super) struct Session<'a> {
    context: &'a Context,
    report: Arc<Mutex<Report>>,
    slot: Arc<FrameMailbox>,
    sounds: Arc<AudioMailbox>,
    announce: Arc<AtomicBool>,
    model: ModelPart,
    capture: CapturePart,
    caches: Caches,
    publisher: Publisher,
    encoder: Encoder,
    events: mpsc::UnboundedReceiver<Tagged>,
    /// For the uptime in the metrics.
    started: Instant,
    /// Last slot generation whose frames were all inferred.
    drained: u64,
    /// Mailbox generation at whose end the pause is to be told.
    pausing: Option<u64>,
}

impl<'a> Session<'a> {
    /// Makes all parts; nothing runs before [`Self::run`].
    ///
    /// # Errors
    /// When the system gives no thread.
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
            },
            context.topics.clone(),
            context.outbox.clone(),
            caches.clone(),
            stats.clone(),
        )?;
        // Bounded by what can be under way: a few events for each start or end of a part.
        let (sender, events) = mpsc::unbounded_channel();
        let (slot, sounds) = (Arc::new(FrameMailbox::new()), Arc::new(AudioMailbox::new()));
        let capture = CapturePart::new(
            capture::CaptureSettings {
                devices: DeviceSelection::from_options(&config.runner),
                unthrottled: context.setup.unthrottled,
                ..capture::CaptureSettings::new(context.setup.source.clone())
            },
            config.shutdown_behavior,
            (slot.clone(), sounds.clone()),
            context.stuck_threads.clone(),
            stats.clone(),
            sender.clone(),
        );
        let model_resolver = ModelResolver::new(
            context.setup.model.clone(),
            Provider::new(config, std::env::var("EI_HOST").ok()),
            sender.clone(),
        );
        let report = Arc::new(Mutex::new(report));
        context.registry.begin(report.clone(), &caches);
        let settings = Box::new({
            let (stats, device) = (stats.clone(), context.device.clone());
            let (shm, thresholds) = (config.runner.shm, config.runner.thresholds.clone());
            let work_dir = config.work_dir.clone();
            move |source| model::Settings {
                shm,
                thresholds: thresholds.clone(),
                ..model::Settings::new(source, &*device, &work_dir, stats.clone())
            }
        });
        let model = ModelPart::new(model_resolver, settings, stats, sender);
        Ok(Self {
            context,
            report,
            slot,
            sounds,
            announce: Arc::new(AtomicBool::new(false)),
            model,
            capture,
            caches,
            publisher,
            encoder,
            events,
            started: Instant::now(),
            drained: 0,
            pausing: None,
        })
    }

    /// Keeps everything going until `restart`, or until `stop` completes.
    pub(super) async fn run(
        &mut self,
        mut stop: Pin<&mut impl Future<Output = ()>>,
        commands: &mut mpsc::Receiver<ReceivedCommand>,
    ) -> Next {
        let mut metrics = interval(self.context.setup.config.metrics_interval);
        metrics.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (model_due, capture_due) = (self.model.due(), self.capture.due());
            tokio::select! {
                () = &mut stop => return Next::Stop,
                Some(command) = commands.recv() => if self.carry_out(&command) == After::Restart {
                    return Next::Restart;
                },
                Some(event) = self.events.recv() => if self.on_event(event) == Consequence::Reexec {
                    return Next::Reexec;
                },
                () = at(model_due) => self.start_model(),
                () = at(capture_due) => if self.start_capture() == Consequence::Reexec {
                    return Next::Reexec;
                },
                _ = metrics.tick() => self.publish_metrics(),
            }
        }
    }

    /// Stops capture and model, and writes what they left.
    pub(super) async fn stop(mut self, deadline: tokio::time::Instant, next: Next) {
        let ((), inference_ended) = tokio::join!(
            self.capture.stop(deadline),
            self.model.stop(&self.slot, &self.sounds, deadline)
        );
        drop(self.publisher);
        if inference_ended {
            let encoder = self.encoder;
            let written = tokio::task::spawn_blocking(move || encoder.finish());
            match tokio::time::timeout_at(deadline, written).await {
                Ok(_) => {}
                Err(_) if next == Next::Restart => {
                    tracing::warn!("pictures are still being encoded: their messages come after the restart");
                }
                Err(_) => tracing::error!("pictures were still being encoded at the end: their messages are lost"),
            }
        } else {
            tracing::warn!("the model did not end in time and is abandoned");
        }
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        stop_caches(self.caches, left.max(CACHES_STOP_LIMIT)).await;
    }

    fn start_model(&mut self) {
        let runner = &self.context.setup.config.runner;
        self.announce.store(true, Ordering::Relaxed);
        self.context.registry.model(ModelState::Starting);
        self.model.start(InferenceContext {
            frames: self.slot.clone(),
            audio: self.sounds.clone(),
            report: self.report.clone(),
            publisher: self.publisher.clone(),
            stats: self.context.stats.clone(),
            prediction_logger: PredictionLogger::new(runner.quiet_predictions, runner.verbosity),
            live_tap: self.context.live_tap.clone(),
            forced_resize: runner.resize_mode,
            unnamed_resize: unnamed_resize(self.context.setup.source.as_ref()),
            announce: self.announce.clone(),
            finish: Arc::default(),
        });
        if self.model.is_looking() {
            let reason = "it is looked for in Edge Impulse Studio";
            self.context.registry.model(ModelState::Waiting(reason.to_owned()));
        }
    }

    /// Announced from before its first frame can come, or that frame would be followed by a second notice.
    fn start_capture(&mut self) -> Consequence {
        self.announce.store(true, Ordering::Relaxed);
        self.capture.on_due()
    }

    fn on_event(&mut self, Tagged { epoch, event }: Tagged) -> Consequence {
        match event {
            Event::Model(event) if event.is_timeless() || self.model.is_current(epoch) => self.on_model_event(event),
            Event::Capture(event) if self.capture.is_current(epoch) => {
                self.show_source(&event);
                let consequence = self.capture.on_event(event);
                match consequence {
                    Consequence::Paused(generation) => {
                        self.context.registry.source(SourceState::Paused);
                        self.pausing = Some(generation);
                        self.tell_pause();
                    }
                    Consequence::Nothing | Consequence::Reexec => {}
                }
                return consequence;
            }
            Event::Capture(PipelineEvent::Started(Ok(capture))) => {
                // It came up after all, but too late: another one is under way.
                let stuck_threads = self.context.stuck_threads.clone();
                tokio::task::spawn_blocking(move || capture_part::stop(capture, &stuck_threads));
            }
            Event::Model(_) | Event::Capture(_) => {}
        }
        Consequence::Nothing
    }

    fn on_model_event(&mut self, event: ModelEvent) {
        match event {
            ModelEvent::Progress(Progress::WarmingUp(info)) => {
                self.context.registry.model_is(&info);
                self.context.registry.model(ModelState::WarmingUp(Instant::now()));
            }
            ModelEvent::Progress(Progress::Ready(info)) => {
                self.context.registry.model_is(&info);
                self.context.registry.model(ModelState::Running);
                self.capture.want(info.input, info.features);
                self.model.ready(info);
            }
            ModelEvent::Progress(Progress::Unsupported(info)) => {
                self.context.registry.model_is(&info);
                self.context.registry.model(ModelState::Unsupported);
                self.model.unsupported(info);
            }
            ModelEvent::Progress(Progress::FirstInference) => self.notice(Status::Started),
            ModelEvent::Progress(Progress::Drained(generation)) => {
                self.drained = self.drained.max(generation);
                self.tell_pause();
            }
            ModelEvent::Ended(result) => {
                if let Err(e) = &result {
                    self.context.registry.model(ModelState::Waiting(e.brief()));
                }
                self.model.ended(&result);
            }
            ModelEvent::Found(Found::Nothing(reason)) => {
                if self.model.is_looking() {
                    self.context.registry.model(ModelState::Waiting(reason));
                }
            }
            ModelEvent::Found(Found::StandsIn(reason)) => {
                self.context
                    .registry
                    .model_supply()
                    .fails(format!("it was downloaded earlier and may not be the newest: {reason}"));
            }
            ModelEvent::Found(found) => {
                self.context.registry.model_supply().works();
                self.model.found(found);
            }
        }
    }

    /// Tells the live page how the source is.
    fn show_source(&self, event: &PipelineEvent) {
        let state = match event {
            PipelineEvent::Started(Ok(_)) => SourceState::Running,
            PipelineEvent::Started(Err(e)) | PipelineEvent::Said(CaptureEvent::Error(e)) => {
                SourceState::Waiting(crate::util::text::sentence(e))
            }
            PipelineEvent::Said(CaptureEvent::Stalled { after }) => {
                SourceState::Waiting(format!("it delivered no frame for {:.0} s", after.as_secs_f32()))
            }
            PipelineEvent::Said(CaptureEvent::EndOfStream) => SourceState::Starting,
            PipelineEvent::Stopped(_) => return,
        };
        self.context.registry.source(state);
    }

    /// Tells the pause once the source has ended and its last frame was inferred.
    fn tell_pause(&mut self) {
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

    fn publish_metrics(&self) {
        let figures = RunnerFigures {
            uptime: self.started.elapsed(),
            rss_bytes: resident_bytes(),
            waiting: self.context.outbox.waiting(),
            health: self.context.registry.health(),
        };
        let json = self
            .report
            .lock()
            .metrics_message(now_ms(), Uuid::new_v4(), figures)
            .to_string();
        self.context.outbox.push(Message::metrics(
            &self.context.topics,
            json,
            self.context.setup.config.qos,
        ));
    }

    fn carry_out(&mut self, command: &ReceivedCommand) -> After {
        CommandHandler {
            context: self.context,
            report: &self.report,
            model: self.model.info(),
            caches: &self.caches,
        }
        .carry_out(command)
    }
}

/// How pictures are resized for models that do not say: the existing runner letterboxed those of a `gst_args` pipeline and
/// squashed those of a camera that it chose itself.
fn unnamed_resize(source: Option<&SourceLine>) -> ResizeMode {
    match source {
        Some(_) => ResizeMode::FitLongest,
        None => ResizeMode::Squash,
    }
}

/// Starts the caches that are on.
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
                let settings = S3Settings::new(bucket, &config.work_dir, &context.device);
                S3Cache::start(settings, stats.clone()).map(Arc::new)
            })
            .transpose()?,
    })
}

/// Writes what the caches hold. Nobody offers pairs any more; a command that still waits for its answer is told that the
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

/// Completes at that time; never without one.
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
    fn old_models_get_pictures_as_the_existing_runner_gave_them() {
        let line = SourceLine::Encoded("v4l2src:!:jpegenc".to_owned());
        assert_eq!(unnamed_resize(Some(&line)), ResizeMode::FitLongest);
        assert_eq!(unnamed_resize(None), ResizeMode::Squash);
    }
}
