//! The thread that reads the pipeline's messages and detects a stalled source.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::error::CaptureError;
use super::mailbox::MailboxControl;
use crate::util::panics::caught;
use crate::util::redact::SecretWords;

/// How long the thread waits for a message before it looks at the clock.
const TICK: gst::ClockTime = gst::ClockTime::from_mseconds(200);

/// Why a capture ended by itself. Each capture reports at most one event, and none after it was stopped. The pipeline still
/// has to be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaptureEvent {
    /// An element failed.
    Error(CaptureError),
    /// The source has no more frames, and the last one was received from the mailbox.
    EndOfStream,
    /// A live source delivers no more frames.
    Stalled {
        /// Time since the last frame, or since the start.
        after: Duration,
    },
}

/// How long a live source may deliver nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct StallLimits {
    pub first_frame: Duration,
    pub next_frame: Duration,
}

/// When the last frame arrived. GStreamer's thread writes it, the watchdog reads it.
#[derive(Debug)]
pub(super) struct FrameClock {
    start: Instant,
    /// Milliseconds from `start` to the last frame, plus one; 0 before the first frame.
    last: AtomicU64,
}

impl FrameClock {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    pub fn record_frame(&self, at: Instant) {
        let since = at.saturating_duration_since(self.start).as_millis() as u64;
        self.last.store(since + 1, Ordering::Relaxed);
    }

    /// How long no frame arrived, when that exceeds the limit.
    fn stalled(&self, limits: StallLimits) -> Option<Duration> {
        let running = self.start.elapsed();
        let (quiet, limit) = match self.last.load(Ordering::Relaxed) {
            0 => (running, limits.first_frame),
            last => (
                running.saturating_sub(Duration::from_millis(last - 1)),
                limits.next_frame,
            ),
        };
        (quiet >= limit).then_some(quiet)
    }
}

/// What the thread needs.
pub(super) struct Watchdog {
    pub pipeline: gst::Pipeline,
    pub mailbox: Arc<dyn MailboxControl>,
    pub stopping: Arc<AtomicBool>,
    /// `None` for a source that is not live.
    pub limits: Option<StallLimits>,
    pub clock: Arc<FrameClock>,
    /// The secrets in the launch line.
    pub secrets: SecretWords,
}

impl Watchdog {
    /// Waits for the end of the capture and reports it, unless the capture is stopped first.
    pub fn run(self, report: &dyn Fn(CaptureEvent)) {
        // If this thread panicked silently, the end of the capture would never be reported.
        let end = caught(|| self.wait_for_end());
        let Some(event) = end.unwrap_or_else(|panicked| Some(CaptureEvent::Error(panicked.into()))) else {
            return;
        };
        self.mailbox.finish();
        if event == CaptureEvent::EndOfStream {
            self.mailbox.wait_until_drained();
        }
        if !self.stopping.load(Ordering::Acquire) {
            report(event);
        }
    }

    /// `None`: the capture is being stopped.
    fn wait_for_end(&self) -> Option<CaptureEvent> {
        let bus = self.pipeline.bus()?;
        loop {
            let message = bus.timed_pop(TICK);
            if self.stopping.load(Ordering::Acquire) {
                return None;
            }
            if let Some(event) = message.and_then(|message| self.handle_message(&message)) {
                return Some(event);
            }
            if let Some(after) = self.limits.and_then(|limits| self.clock.stalled(limits)) {
                return Some(CaptureEvent::Stalled { after });
            }
        }
    }

    /// Returns an event when the message means that the capture has ended.
    fn handle_message(&self, message: &gst::Message) -> Option<CaptureEvent> {
        match message.view() {
            gst::MessageView::Error(error) => {
                Some(CaptureEvent::Error(CaptureError::from_message(error, &self.secrets)))
            }
            gst::MessageView::Eos(_) => Some(CaptureEvent::EndOfStream),
            gst::MessageView::Warning(warning) => {
                let element = message.src().map(|source| source.name().to_string());
                let reason = self.secrets.mask(warning.error().message());
                tracing::warn!(element, reason, "A GStreamer element reported a warning");
                None
            }
            gst::MessageView::Latency(_) => {
                // An element that is added late (inside rtspsrc) changes the latency of the whole pipeline.
                let _ = self.pipeline.recalculate_latency();
                None
            }
            gst::MessageView::ClockLost(_) => self.select_new_clock().err().map(CaptureEvent::Error),
            _ => None,
        }
    }

    /// A pipeline selects a clock when it goes from PAUSED to PLAYING.
    fn select_new_clock(&self) -> Result<(), CaptureError> {
        tracing::warn!("The pipeline lost its clock and selects a new one");
        self.pipeline
            .set_state(gst::State::Paused)
            .and_then(|_| self.pipeline.set_state(gst::State::Playing))
            .map(drop)
            .map_err(|_| CaptureError::Element {
                element: self.pipeline.name().to_string(),
                message: "the pipeline lost its clock and does not start again".to_owned(),
                debug: String::new(),
            })
    }
}
