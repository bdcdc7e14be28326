//! A capture session: it builds and starts a pipeline, delivers its frames to a mailbox, and stops it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::clip::{ClipRecorder, ClipSource};
use super::device_selection::DeviceSelection;
use super::elements::HTTP_SOURCES;
use super::error::CaptureError;
use super::launch_line::{MediaKind, PreparedLine, SourceText, decode_source};
use super::listeners::SampleListeners;
use super::mailbox::MailboxControl;
use super::output::CaptureOutput;
use super::pipeline::{StartingPipeline, TearDown, is_multipart_demuxer, is_one_of, tear_down};
use super::secret_values::SecretResolver;
use super::tap::CaptureTap;
use super::watchdog::{CaptureEvent, FrameClock, StallLimits, Watchdog};
use crate::config::{MicrophoneChannel, SourceLine};
use crate::status::stats::Stats;
use crate::util::redact::SecretWords;

/// What to capture, and how.
#[derive(Debug, Clone)]
pub struct CaptureSettings {
    /// The launch line; `None`: the device of `devices` that fits best, selected at each start.
    pub source: Option<SourceLine>,
    /// Which camera or microphone to use when there is no launch line.
    pub devices: DeviceSelection,
    /// Play a source that is not live as fast as its frames are received, each frame once. No effect on live sources.
    pub unthrottled: bool,
    /// A live source that delivers nothing for this long and for three frame intervals has stalled.
    pub no_frame_limit: Duration,
    /// The same limit until the first frame: network cameras negotiate, and sensors warm up.
    pub first_frame_limit: Duration,
    /// The limit for a source that is not live. It does not apply while a frame waits for inference.
    pub not_live_limit: Duration,
    /// The channel of a microphone with several.
    pub microphone_channel: MicrophoneChannel,
    /// Pause between two still pictures of an HTTP source.
    pub still_interval: Duration,
    /// Gives the secrets that the launch line names.
    pub secrets: Option<Arc<dyn SecretResolver>>,
    /// Gets copies for the data collection.
    pub tap: Option<Arc<CaptureTap>>,
    /// Records the clips of events.
    pub clips: Option<Arc<ClipRecorder>>,
    /// The start is one of many that each fetch one picture. Such starts are logged at DEBUG only.
    pub is_poll: bool,
}

impl CaptureSettings {
    /// Default of [`Self::no_frame_limit`].
    pub const NO_FRAME_LIMIT: Duration = Duration::from_secs(10);
    /// Default of [`Self::first_frame_limit`].
    pub const FIRST_FRAME_LIMIT: Duration = Duration::from_secs(30);
    /// Default of [`Self::not_live_limit`].
    pub const NOT_LIVE_LIMIT: Duration = Duration::from_secs(30);

    /// The default settings for a launch line; `None`: for a device.
    pub fn new(source: impl Into<Option<SourceLine>>) -> Self {
        Self {
            source: source.into(),
            devices: DeviceSelection::default(),
            unthrottled: false,
            no_frame_limit: Self::NO_FRAME_LIMIT,
            first_frame_limit: Self::FIRST_FRAME_LIMIT,
            not_live_limit: Self::NOT_LIVE_LIMIT,
            microphone_channel: MicrophoneChannel::default(),
            still_interval: Duration::from_secs(1),
            secrets: None,
            tap: None,
            clips: None,
            is_poll: false,
        }
    }
}

/// How stopping a capture went.
#[derive(Debug)]
pub enum StopOutcome {
    /// The pipeline is stopped.
    Clean,
    /// The pipeline hangs, probably in a driver. This thread still tries to stop it; `None`: no thread could be
    /// started.
    Abandoned(Option<JoinHandle<()>>),
}

/// A pipeline that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Capture {
    /// `None` after it was stopped.
    pipeline: Option<gst::Pipeline>,
    mailbox: Arc<dyn MailboxControl>,
    stopping: Arc<AtomicBool>,
    is_live: bool,
    has_other_branches: bool,
    clock: Arc<FrameClock>,
    span: tracing::Span,
}

impl Capture {
    /// Builds and starts the pipeline of `settings`. It delivers to `output` and counts in `stats`. When it ends by
    /// itself, it calls `report` once, from a thread of its own.
    ///
    /// May block in a driver: call it where blocking is allowed.
    ///
    /// # Errors
    /// The launch line is not usable, no device fits, or the pipeline does not start.
    pub fn start(
        settings: &CaptureSettings,
        output: impl Into<CaptureOutput>,
        stats: &Arc<Stats>,
        report: impl Fn(CaptureEvent) + Send + Sync + 'static,
    ) -> Result<Self, CaptureError> {
        let output = output.into();
        let kind = output.kind(settings.microphone_channel);
        let span = tracing::info_span!("capture_session", kind = kind.name());
        let _entered = span.entered();
        let line = match &settings.source {
            Some(source) => decode_source(source)?,
            None => settings.devices.find_launch_line(kind)?.into(),
        };
        let clock = Arc::new(FrameClock::new());
        let line = Arc::new(line);
        let advised_report = {
            let (line, clock) = (Arc::clone(&line), Arc::clone(&clock));
            move |event| {
                report(match event {
                    // After the first frame a misread line cannot be the cause.
                    CaptureEvent::Error(error) if clock.frames() == 0 => {
                        CaptureEvent::Error(line.with_colon_advice(error))
                    }
                    event => event,
                });
            }
        };
        Self::start_line(&line, settings, output, stats, clock, advised_report)
            .map_err(|error| line.with_colon_advice(error))
    }

    /// `report`: see [`Self::start`].
    fn start_line(
        line: &SourceText,
        settings: &CaptureSettings,
        output: CaptureOutput,
        stats: &Arc<Stats>,
        clock: Arc<FrameClock>,
        report: impl Fn(CaptureEvent) + Send + Sync + 'static,
    ) -> Result<Self, CaptureError> {
        let kind = output.kind(settings.microphone_channel);
        let mut prepared = PreparedLine::new(line, kind)?;
        prepared.insert_secrets(settings.secrets.as_deref())?;
        let (pipeline, sink) = prepared.parse()?;
        let starting = StartingPipeline::new(pipeline, sink, &prepared);
        starting.set_state(gst::State::Ready)?;
        if kind == MediaKind::Video {
            starting.require_raw_video()?;
        }

        let is_live = starting.set_state(gst::State::Paused)? == gst::StateChangeSuccess::NoPreroll;
        let lossless = settings.unthrottled && !is_live;
        // A file plays in real time by its timestamps; a live source sets its own pace.
        starting.sink.set_property("sync", !is_live && !settings.unthrottled);

        let listeners = SampleListeners {
            stats: Arc::clone(stats),
            clock: Arc::clone(&clock),
            tap: settings.tap.clone(),
            clips: settings
                .clips
                .clone()
                .map(|recorder| ClipSource::new(recorder, settings.is_poll)),
        };
        if let Some(clips) = &listeners.clips {
            clips.watch_decoders(&starting.pipeline);
        }
        // The sink renders nothing before PLAYING, so no frame misses the callbacks.
        let mailbox = output
            .connect(lossless, settings.microphone_channel, &starting.sink, &listeners)
            .ok_or(CaptureError::GivenUp)?;
        if let Err(error) = starting.set_state(gst::State::Playing) {
            mailbox.close();
            return Err(error);
        }
        let has_other_branches = starting.pipeline.iterate_sinks().into_iter().flatten().count() > 1;
        let capture = Self {
            pipeline: Some(starting.keep_running()),
            mailbox,
            stopping: Arc::default(),
            is_live,
            has_other_branches,
            clock: Arc::clone(&clock),
            span: tracing::Span::current(),
        };
        capture.spawn_watchdog(settings, clock, prepared.secrets.clone(), report)?;
        let line = prepared.shown;
        if settings.is_poll {
            tracing::debug!(is_live, line, "Capture started");
        } else {
            tracing::info!(is_live, line, "Capture started");
        }
        Ok(capture)
    }

    fn spawn_watchdog(
        &self,
        settings: &CaptureSettings,
        clock: Arc<FrameClock>,
        secrets: SecretWords,
        report: impl Fn(CaptureEvent) + Send + Sync + 'static,
    ) -> Result<(), CaptureError> {
        let Some(pipeline) = self.pipeline.clone() else {
            return Ok(());
        };
        let watchdog = Watchdog {
            pipeline,
            mailbox: self.mailbox.clone(),
            stopping: Arc::clone(&self.stopping),
            limits: match self.is_live {
                true => StallLimits {
                    first_frame: settings.first_frame_limit,
                    next_frame: settings.no_frame_limit,
                },
                false => StallLimits {
                    first_frame: settings.not_live_limit,
                    next_frame: settings.not_live_limit,
                },
            },
            waits_for_mailbox: !self.is_live,
            clock,
            secrets,
        };
        let span = self.span.clone();
        thread::Builder::new()
            .name("capture-watch".to_owned())
            .spawn(move || span.in_scope(|| watchdog.run(&report)))
            .map(drop)
            .map_err(|error| CaptureError::Thread(error.to_string()))
    }

    /// Whether the source delivers by its own clock (a camera) and not on demand (a file).
    pub fn is_live(&self) -> bool {
        self.is_live
    }

    /// Whether the line has branches other than the model's (`kvssink`, a recording). They stop and start with the
    /// source.
    pub fn has_other_branches(&self) -> bool {
        self.has_other_branches
    }

    /// How many frames or audio buffers it delivered.
    pub fn frames(&self) -> u64 {
        self.clock.frames()
    }

    /// Whether the line reads from a web server, and not a stream of pictures (MJPEG).
    pub fn fetches_by_http(&self) -> bool {
        let Some(pipeline) = &self.pipeline else { return false };
        let elements: Vec<_> = pipeline.iterate_recurse().into_iter().flatten().collect();
        elements.iter().any(|element| is_one_of(element, &HTTP_SOURCES)) && !elements.iter().any(is_multipart_demuxer)
    }

    /// The epoch of the mailbox in which this capture delivers.
    pub fn mailbox_epoch(&self) -> u64 {
        self.mailbox.epoch()
    }

    /// Stops the pipeline, on a thread of its own because a driver may hang, and waits for that at most `limit`. A
    /// frame in the mailbox is dropped. Blocks.
    pub fn stop(mut self, limit: Duration) -> StopOutcome {
        let Some(tear_down) = self.begin_stop() else {
            return StopOutcome::Clean;
        };
        if tear_down.done.recv_timeout(limit).is_ok() {
            return StopOutcome::Clean;
        }
        let _entered = self.span.enter();
        tracing::error!(
            ?limit,
            "The pipeline did not stop in time and was abandoned; a driver hangs"
        );
        StopOutcome::Abandoned(tear_down.thread)
    }

    fn begin_stop(&mut self) -> Option<TearDown> {
        let pipeline = self.pipeline.take()?;
        self.stopping.store(true, Ordering::Release);
        // This wakes a callback that waits for room in the mailbox, and the watchdog that waits for the last frame.
        self.mailbox.close();
        Some(self.span.in_scope(|| tear_down(pipeline)))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.begin_stop();
    }
}
