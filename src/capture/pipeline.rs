//! A running pipeline: it fills the slot, watches itself, and says once why it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::audio;
use super::audio_framer::{AudioFormat, Window};
use super::devices::DeviceSelection;
use super::error::{CaptureError, redact, shortened};
use super::launch_line::{MediaKind, Prepared, ends_in_jpeg, launch_line};
use super::mailbox::{Frame, FrameMailbox, MailboxSender, MailboxSink, Policy, Put, Reservation};
use super::packages::MissingElement;
use crate::config::SourceLine;
use crate::status::stats::Stats;
use crate::util::panics::caught;

/// How often the watching thread looks at the clock when no message wakes it.
const TICK: Duration = Duration::from_millis(200);

/// What to capture, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The source; `None`: the device that fits, looked for at each start.
    pub line: Option<SourceLine>,
    /// Which device, and how it is asked.
    pub wishes: DeviceSelection,
    /// A source that is not live is played as fast as its frames are taken, each frame once. No effect on live sources.
    pub unthrottled: bool,
    /// A live source that delivers nothing for so long has stalled.
    pub no_frame_limit: Duration,
    /// The same for its first frame: network cameras negotiate, and sensors warm up.
    pub first_frame_limit: Duration,
}

impl Settings {
    /// Limit for a live source between two frames.
    pub const NO_FRAME_LIMIT: Duration = Duration::from_secs(10);
    /// Limit for its first frame.
    pub const FIRST_FRAME_LIMIT: Duration = Duration::from_secs(30);

    /// The usual settings for `line`; `None`: for the device that fits.
    pub fn new(line: impl Into<Option<SourceLine>>) -> Self {
        Self {
            line: line.into(),
            wishes: DeviceSelection::default(),
            unthrottled: false,
            no_frame_limit: Self::NO_FRAME_LIMIT,
            first_frame_limit: Self::FIRST_FRAME_LIMIT,
        }
    }
}

/// Where a capture puts what it gets.
#[derive(Debug, Clone)]
pub enum Inlet {
    /// Frames, the newest wins.
    Pictures(Reservation<Frame>),
    /// Windows of sound, in order.
    Sound(Reservation<Window>, AudioFormat),
}

impl From<&Arc<FrameMailbox>> for Inlet {
    /// Reserves the slot.
    fn from(slot: &Arc<FrameMailbox>) -> Self {
        Self::Pictures(slot.reserve())
    }
}

impl Inlet {
    fn medium(&self) -> MediaKind {
        match self {
            Self::Pictures(_) => MediaKind::Pictures,
            Self::Sound(_, format) => MediaKind::Sound {
                frequency: format.frequency,
            },
        }
    }

    /// Opens the slot, and sets the sink up to fill it. `None`: another source has it.
    fn open(
        &self,
        lossless: bool,
        sink: &gst_app::AppSink,
        stats: &Arc<Stats>,
        clock: &Arc<FrameClock>,
    ) -> Option<Arc<dyn MailboxSink>> {
        match self {
            Self::Pictures(ticket) => {
                let feed = ticket.open(if lossless { Policy::Lossless } else { Policy::NewestWins })?;
                sink.set_property("drop", !lossless);
                sink.set_callbacks(callbacks(&feed, stats, clock));
                Some(Arc::new(feed))
            }
            Self::Sound(ticket, format) => {
                let feed = ticket.open(match lossless {
                    true => Policy::Lossless,
                    false => Policy::OldestDropped(format.most_waiting()),
                })?;
                sink.set_property("drop", false);
                sink.set_callbacks(audio::callbacks(&feed, *format, stats, clock));
                Some(Arc::new(feed))
            }
        }
    }
}

/// Why a capture ended by itself. Exactly one is reported for each capture, none when it was stopped before; the pipeline
/// still has to be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaptureEvent {
    /// An element failed.
    Error(CaptureError),
    /// The source has no more frames, and the last one was taken from the slot.
    EndOfStream,
    /// A live source delivers no frames any more.
    Stalled {
        /// How long nothing had come.
        after: Duration,
    },
}

/// How stopping went.
#[derive(Debug)]
pub enum Stopped {
    /// The pipeline is gone.
    Clean,
    /// It hangs, probably in a driver, and was left behind on this thread; `None`: there was no thread to stop it.
    Abandoned(Option<JoinHandle<()>>),
}

/// A pipeline that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Capture {
    /// `None` once it was stopped.
    pipeline: Option<gst::Pipeline>,
    feed: Arc<dyn MailboxSink>,
    stopping: Arc<AtomicBool>,
    live: bool,
    other_branches: bool,
}

impl Capture {
    /// Builds the pipeline of `settings` and starts it. Frames or windows go into `inlet`, counters into `stats`; `events`
    /// is called once from a thread of the capture when it ends by itself.
    ///
    /// May block in a driver: call it where blocking is allowed.
    pub fn start(
        settings: &Settings,
        inlet: impl Into<Inlet>,
        stats: &Arc<Stats>,
        events: impl Fn(CaptureEvent) + Send + Sync + 'static,
    ) -> Result<Self, CaptureError> {
        let inlet = inlet.into();
        let line = match &settings.line {
            Some(line) => launch_line(line)?,
            None => settings.wishes.find(inlet.medium())?,
        };
        let prepared = Prepared::new(&line, inlet.medium())?;
        let (pipeline, sink) = prepared.parse()?;
        // From here on an early return drops `built`, which takes the pipeline down.
        let built = Built {
            pipeline,
            sink,
            line: redact(&prepared.launch),
            kept: false,
        };
        built.set_state(gst::State::Ready)?;
        if inlet.medium() == MediaKind::Pictures {
            built.accept_pictures()?;
        }

        built.sink.set_property("max-buffers", 1u32);
        built.sink.set_property("wait-on-eos", false);
        built.sink.set_property("enable-last-sample", false);
        built.sink.set_property("qos", false);
        let live = built.set_state(gst::State::Paused)? == gst::StateChangeSuccess::NoPreroll;
        let lossless = settings.unthrottled && !live;
        built.sink.set_property("sync", !live && !settings.unthrottled);

        let clock = Arc::new(FrameClock::new());
        // Nothing is rendered before PLAYING, so the callbacks come early enough.
        let feed = inlet
            .open(lossless, &built.sink, stats, &clock)
            .ok_or(CaptureError::GivenUp)?;
        if let Err(error) = built.set_state(gst::State::Playing) {
            feed.close();
            return Err(error);
        }
        let stopping = Arc::new(AtomicBool::new(false));
        let other_branches = built.pipeline.iterate_sinks().into_iter().flatten().count() > 1;
        let watch = Watch {
            pipeline: built.pipeline.clone(),
            feed: feed.clone(),
            stopping: Arc::clone(&stopping),
            limits: live.then_some((settings.first_frame_limit, settings.no_frame_limit)),
            clock,
        };
        let capture = Self {
            pipeline: Some(built.keep()),
            feed,
            stopping,
            live,
            other_branches,
        };
        thread::Builder::new()
            .name("capture-watch".to_owned())
            .spawn(move || watch.run(&events))
            .map_err(|error| CaptureError::Thread(error.to_string()))?;
        let kind = if live { "live" } else { "not live" };
        tracing::info!(
            "capture started, from a source that is {kind}: {}",
            redact(&prepared.launch)
        );
        Ok(capture)
    }

    /// Whether the source delivers by its own clock (a camera) and not on demand (a file).
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Whether the line has branches besides the model's (`kvssink`, a recording): they stop and start with the source.
    pub fn has_other_branches(&self) -> bool {
        self.other_branches
    }

    /// The number of this source's opening of the slot.
    pub fn slot_generation(&self) -> u64 {
        self.feed.generation()
    }

    /// Stops the pipeline, on a thread of its own because a driver may hang; waits for that at most `limit`. A frame still
    /// in the slot is thrown away. Call it where blocking is allowed.
    pub fn stop(mut self, limit: Duration) -> Stopped {
        let Some(stopping) = self.begin_stop() else {
            return Stopped::Clean;
        };
        match stopping.done.recv_timeout(limit) {
            Ok(()) => Stopped::Clean,
            Err(_) => {
                tracing::error!("the capture pipeline did not stop within {limit:?} and was abandoned; a driver hangs");
                Stopped::Abandoned(stopping.thread)
            }
        }
    }

    fn begin_stop(&mut self) -> Option<Stopping> {
        let pipeline = self.pipeline.take()?;
        self.stopping.store(true, Ordering::Release);
        // A callback that waits for the slot, and the watching thread that waits for the last frame, return now.
        self.feed.close();
        Some(take_down(pipeline))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.begin_stop();
    }
}

/// A pipeline on its way down.
struct Stopping {
    /// Tells when that is done.
    done: mpsc::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// Takes a pipeline down on its own thread.
fn take_down(pipeline: gst::Pipeline) -> Stopping {
    let (done, wait) = mpsc::channel();
    if let Some(bus) = pipeline.bus() {
        // Wakes the watching thread.
        let _ = bus.post(gst::message::Application::new(gst::Structure::new_empty("stop")));
    }
    let stop = move || {
        if pipeline.set_state(gst::State::Null).is_err() {
            tracing::warn!("an element of the capture pipeline refused to stop");
        }
        drop(pipeline);
        let _ = done.send(());
    };
    let thread = thread::Builder::new()
        .name("capture-stop".to_owned())
        .spawn(stop)
        .inspect_err(|error| {
            tracing::error!("no thread to stop the capture pipeline, it goes on without a reader: {error}");
        });
    Stopping {
        done: wait,
        thread: thread.ok(),
    }
}

/// A pipeline on its way up. Dropped before [`Built::keep`], it is taken down again.
struct Built {
    pipeline: gst::Pipeline,
    sink: gst_app::AppSink,
    /// Without passwords.
    line: String,
    kept: bool,
}

impl Drop for Built {
    fn drop(&mut self) {
        if !self.kept {
            take_down(self.pipeline.clone());
        }
    }
}

impl Built {
    fn keep(mut self) -> gst::Pipeline {
        self.kept = true;
        self.pipeline.clone()
    }

    fn set_state(&self, state: gst::State) -> Result<gst::StateChangeSuccess, CaptureError> {
        self.pipeline.set_state(state).map_err(|_| {
            let reason = self
                .pipeline
                .bus()
                .and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
            match reason.as_ref().map(|message| message.view()) {
                Some(gst::MessageView::Error(error)) => element_error(error),
                _ => CaptureError::NoStart {
                    line: self.line.clone(),
                },
            }
        })
    }

    /// Lets only raw video in ordinary memory into the sink, behind a JPEG decoder where the line delivers JPEG. In READY
    /// a camera is open and says what it has.
    fn accept_pictures(&self) -> Result<(), CaptureError> {
        self.sink.set_caps(Some(&gst::Caps::new_empty_simple("video/x-raw")));
        if !ends_in_jpeg(&self.sink, &self.line)? {
            return Ok(());
        }
        let Some((pad, before)) = self
            .sink
            .static_pad("sink")
            .and_then(|pad| Some((pad.clone(), pad.peer()?)))
        else {
            return Ok(());
        };
        if gst::ElementFactory::find("jpegdec").is_none() {
            let elements = vec![MissingElement::new("jpegdec")];
            return Err(CaptureError::MissingElements {
                elements,
                line: self.line.clone(),
            });
        }
        self.insert_decoder(&before, &pad)
            .map_err(|error| CaptureError::Element {
                element: "jpegdec".to_owned(),
                message: "the source delivers JPEG and the decoder cannot be put in".to_owned(),
                debug: error.to_string(),
            })
    }

    fn insert_decoder(&self, before: &gst::Pad, pad: &gst::Pad) -> Result<(), gst::glib::BoolError> {
        let decoder = gst::ElementFactory::make("jpegdec").build()?;
        self.pipeline.add(&decoder)?;
        before.unlink(pad)?;
        let input = decoder
            .static_pad("sink")
            .ok_or_else(|| gst::glib::bool_error!("jpegdec has no input"))?;
        before.link(&input).map_err(|error| gst::glib::bool_error!("{error}"))?;
        decoder.link(&self.sink)?;
        decoder.sync_state_with_parent()?;
        tracing::info!("the source delivers JPEG: added jpegdec");
        Ok(())
    }
}

/// When the last frame came, shared between GStreamer's thread and the watching one.
#[derive(Debug)]
pub(super) struct FrameClock {
    start: Instant,
    /// Milliseconds from `start` to the last frame, plus one; 0 before the first.
    last: AtomicU64,
}

impl FrameClock {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    pub(super) fn frame(&self, at: Instant) {
        let since = at.saturating_duration_since(self.start).as_millis() as u64;
        self.last.store(since + 1, Ordering::Relaxed);
    }

    /// How long nothing came, when that is longer than the limit (first frame, later frames).
    fn stalled(&self, (first, later): (Duration, Duration)) -> Option<Duration> {
        let running = self.start.elapsed();
        let (quiet, limit) = match self.last.load(Ordering::Relaxed) {
            0 => (running, first),
            last => (running.saturating_sub(Duration::from_millis(last - 1)), later),
        };
        (quiet >= limit).then_some(quiet)
    }
}

/// What GStreamer's thread does with each frame: pass on a reference, nothing else. Duplicates come at 2200/s.
fn callbacks(feed: &MailboxSender, stats: &Arc<Stats>, clock: &Arc<FrameClock>) -> gst_app::AppSinkCallbacks {
    let (ended, feed, stats, clock) = (feed.clone(), feed.clone(), Arc::clone(stats), Arc::clone(clock));
    gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let at = Instant::now();
            clock.frame(at);
            stats.frames_captured.inc();
            match feed.put(Frame { sample, at }) {
                Put::Stored => Ok(gst::FlowSuccess::Ok),
                Put::Replaced => {
                    stats.frames_skipped.inc();
                    Ok(gst::FlowSuccess::Ok)
                }
                // The capture is being stopped. Flushing ends the stream without an error message.
                Put::Closed => Err(gst::FlowError::Flushing),
            }
        })
        .eos(move |_| ended.finish())
        .build()
}

/// The thread that reads the pipeline's messages and looks at the clock.
struct Watch {
    pipeline: gst::Pipeline,
    feed: Arc<dyn MailboxSink>,
    stopping: Arc<AtomicBool>,
    /// First frame, later frames; `None` for a source that is not live.
    limits: Option<(Duration, Duration)>,
    clock: Arc<FrameClock>,
}

impl Watch {
    fn run(self, events: &dyn Fn(CaptureEvent)) {
        // Without a watching thread nobody would ever push_samples of an end.
        let watched = caught(|| self.wait_for_end());
        let Some(event) = watched.unwrap_or_else(|panicked| Some(CaptureEvent::Error(panicked.into()))) else {
            return;
        };
        self.feed.finish();
        if event == CaptureEvent::EndOfStream {
            self.feed.wait_until_taken();
        }
        if !self.stopping.load(Ordering::Acquire) {
            events(event);
        }
    }

    /// `None`: the pipeline is being stopped.
    fn wait_for_end(&self) -> Option<CaptureEvent> {
        let bus = self.pipeline.bus()?;
        loop {
            let message = bus.timed_pop(gst::ClockTime::from_mseconds(TICK.as_millis() as u64));
            if self.stopping.load(Ordering::Acquire) {
                return None;
            }
            if let Some(event) = message.and_then(|message| self.judge(&message)) {
                return Some(event);
            }
            if let Some(after) = self.limits.and_then(|limits| self.clock.stalled(limits)) {
                return Some(CaptureEvent::Stalled { after });
            }
        }
    }

    fn judge(&self, message: &gst::Message) -> Option<CaptureEvent> {
        match message.view() {
            gst::MessageView::Error(error) => Some(CaptureEvent::Error(element_error(error))),
            gst::MessageView::Eos(_) => Some(CaptureEvent::EndOfStream),
            gst::MessageView::Warning(warning) => {
                let element = message
                    .src()
                    .map_or_else(String::new, |source| source.name().to_string());
                tracing::warn!("{element}: {}", redact(warning.error().message()));
                None
            }
            gst::MessageView::Latency(_) => {
                // A source that is added late (rtspsrc) changes the latency of the whole pipeline.
                let _ = self.pipeline.recalculate_latency();
                None
            }
            gst::MessageView::ClockLost(_) => {
                tracing::warn!("the pipeline lost its clock and takes another");
                let taken = self
                    .pipeline
                    .set_state(gst::State::Paused)
                    .and_then(|_| self.pipeline.set_state(gst::State::Playing));
                taken.is_err().then(|| {
                    CaptureEvent::Error(CaptureError::Element {
                        element: self.pipeline.name().to_string(),
                        message: "the pipeline lost its clock and does not start again".to_owned(),
                        debug: String::new(),
                    })
                })
            }
            _ => None,
        }
    }
}

fn element_error(error: &gst::message::Error) -> CaptureError {
    let element = error
        .src()
        .map_or_else(|| "pipeline".to_owned(), |source| source.name().to_string());
    let debug = error.debug().map_or_else(String::new, |debug| debug.to_string());
    CaptureError::Element {
        element,
        message: redact(error.error().message()),
        debug: shortened(&redact(&detail(&debug))),
    }
}

/// GStreamer's debug detail is `file.c(123): function (): /GstPipeline:...:\nwhat happened`; the lines after the first say
/// what a person wants to know.
fn detail(debug: &str) -> String {
    let lines: Vec<&str> = debug.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.split_first() {
        Some((_, rest)) if !rest.is_empty() => rest.join(" "),
        _ => debug.trim().to_owned(),
    }
}
