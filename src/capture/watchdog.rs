//! The thread that reads the pipeline's messages and detects a stalled source.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::error::CaptureError;
use super::launch_line::SINK_NAME;
use super::mailbox::MailboxControl;
use crate::util::panics::catch_panic;
use crate::util::redact::SecretWords;

/// How long the thread waits for a message before it looks at the clock.
const TICK: gst::ClockTime = gst::ClockTime::from_mseconds(200);

/// Why a capture ended by itself. Each capture reports at most one event, and none after it was stopped. The pipeline
/// still has to be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaptureEvent {
    /// An element failed.
    Error(CaptureError),
    /// The source has no more frames, and the last one was received from the mailbox.
    EndOfStream,
    /// The source delivers no more frames.
    Stalled {
        /// Time since the last frame, or since the start.
        after: Duration,
    },
}

/// A slow source may be silent for this many of its frame intervals.
const SILENT_INTERVALS: u32 = 3;

/// How long a source may deliver nothing, unless its frame interval allows more.
#[derive(Debug, Clone, Copy)]
pub(super) struct StallLimits {
    /// Until the first frame, and until the interval of the frames is known.
    pub first_frame: Duration,
    pub next_frame: Duration,
}

impl StallLimits {
    /// The limit after this many frames. A source with one frame a minute (`videorate`) has not stalled.
    fn limit(self, frames: u64, interval: Option<Duration>) -> Duration {
        let limit = match (frames, interval) {
            (0, _) | (_, None) => self.first_frame.max(self.next_frame),
            _ => self.next_frame,
        };
        limit.max(interval.unwrap_or_default().saturating_mul(SILENT_INTERVALS))
    }
}

/// When the last frame arrived. GStreamer's thread writes it, the watchdog reads it.
#[derive(Debug)]
pub(super) struct FrameClock {
    start: Instant,
    frames: AtomicU64,
    /// Milliseconds from `start` to the last frame.
    last: AtomicU64,
    /// Milliseconds between two frames: the longest time, reduced by an eighth with each later frame.
    interval: AtomicU64,
}

impl FrameClock {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            frames: AtomicU64::new(0),
            last: AtomicU64::new(0),
            interval: AtomicU64::new(0),
        }
    }

    /// Only one thread may call it.
    pub fn record_frame(&self, at: Instant) {
        let now = at.saturating_duration_since(self.start).as_millis() as u64;
        let before = self.last.swap(now, Ordering::Relaxed);
        if self.frames.load(Ordering::Relaxed) > 0 {
            let longest = self.interval.load(Ordering::Relaxed);
            let interval = (longest - longest.div_ceil(8)).max(now.saturating_sub(before));
            self.interval.store(interval, Ordering::Relaxed);
        }
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    /// How many frames arrived.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// The time between two frames; `None` before the second one.
    fn interval(&self) -> Option<Duration> {
        (self.frames() > 1).then(|| Duration::from_millis(self.interval.load(Ordering::Relaxed)))
    }

    /// Time since the last frame, or since the start.
    fn silence(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }
}

/// The state of the watchdog thread.
pub(super) struct Watchdog {
    pub pipeline: gst::Pipeline,
    pub mailbox: Arc<dyn MailboxControl>,
    pub stopping: Arc<AtomicBool>,
    pub limits: StallLimits,
    /// Whether the source waits for room in the mailbox. Then it has not stalled while a value waits there.
    pub waits_for_mailbox: bool,
    pub clock: Arc<FrameClock>,
    /// The secrets in the launch line.
    pub secrets: SecretWords,
}

impl Watchdog {
    /// Waits for the end of the capture and reports it, unless the capture is stopped first.
    pub fn run(self, report: &dyn Fn(CaptureEvent)) {
        // If this thread panicked silently, the end of the capture would never be reported.
        let end = catch_panic(|| self.wait_for_end());
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
        let mut idle_since = Instant::now();
        loop {
            let message = bus.timed_pop(TICK);
            if self.stopping.load(Ordering::Acquire) {
                return None;
            }
            if let Some(event) = message.and_then(|message| self.handle_message(&message)) {
                return Some(event);
            }
            if self.waits_for_mailbox && !self.mailbox.is_empty() {
                idle_since = Instant::now();
            }
            let mut after = self.clock.silence();
            if self.waits_for_mailbox {
                after = after.min(idle_since.elapsed());
            }
            if after >= self.limits.next_frame && after >= self.stall_limit() {
                return Some(CaptureEvent::Stalled { after });
            }
        }
    }

    fn stall_limit(&self) -> Duration {
        let interval = self.negotiated_interval().or_else(|| self.clock.interval());
        self.limits.limit(self.clock.frames(), interval)
    }

    /// The time between two frames, as the caps at the sink state it.
    fn negotiated_interval(&self) -> Option<Duration> {
        let caps = self.pipeline.by_name(SINK_NAME)?.static_pad("sink")?.current_caps()?;
        let rate: gst::Fraction = caps.structure(0)?.get("framerate").ok()?;
        match (u32::try_from(rate.numer()), u64::try_from(rate.denom())) {
            (Ok(frames @ 1..), Ok(seconds)) => Some(Duration::from_secs(seconds) / frames),
            _ => None,
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
                line: None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_limit_is_three_frame_intervals_of_a_slow_source() {
        let limits = StallLimits {
            first_frame: seconds(30),
            next_frame: seconds(10),
        };
        for (frames, interval, limit) in [
            (0, None, 30),
            (0, Some(seconds(60)), 180),
            // The interval is not known yet.
            (1, None, 30),
            (1, Some(seconds(60)), 180),
            (9, Some(seconds(4)), 12),
            (9, Some(Duration::from_millis(33)), 10),
        ] {
            assert_eq!(limits.limit(frames, interval), seconds(limit), "{frames} {interval:?}");
        }
    }

    #[test]
    fn the_learned_interval_is_the_longest_recent_one() {
        let clock = FrameClock::new();
        let frame_at = |ms| clock.record_frame(clock.start + Duration::from_millis(ms));
        frame_at(9_000);
        assert_eq!((clock.frames(), clock.interval()), (1, None));
        frame_at(17_000);
        frame_at(17_100);
        assert_eq!(clock.interval(), Some(seconds(7)));
        for frame in 0..80 {
            frame_at(17_200 + 100 * frame);
        }
        assert_eq!(clock.interval(), Some(Duration::from_millis(100)));
    }
}
