//! The clips in progress.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use parking_lot::Mutex;
use uuid::Uuid;

use super::frame::{ClipFrame, FrameMemory};
use super::jpeg_encoder::JpegEncoder;
use super::ring::ClipRing;
use super::timeline::Timeline;
use crate::capture::frame::Frame;
use crate::status::health::HealthFlag;
use crate::status::stats::Stats;
use crate::util::log_limiter::LogLimiter;

/// Frames a second of clips that this program encodes, and of cameras that deliver JPEG.
pub(super) const CLIP_RATE: u32 = 10;
/// Most bytes of the ring.
const RING_BYTES: usize = 32 << 20;
/// Most bytes of all frames, also of clips that wait to be written. At this limit the clips in progress end.
const MAX_BYTES: usize = 96 << 20;
/// Most clips in progress.
const MAX_CLIPS: usize = 8;
/// A clip ends at the latest this long after the start of its event.
const MAX_EVENT: Duration = Duration::from_secs(60);
/// Video that ends longer before the begin of a clip does not belong to it: the source has stopped.
const MAX_AGE: Duration = Duration::from_secs(5);
/// A clip waits this long for frames that are still on their way when it should end.
const LATE_FRAMES: Duration = Duration::from_secs(1);
/// An encoder that failed is started again after this time.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClipSettings {
    /// Time before the start of an event.
    pub before: Duration,
    /// Time after the end of an event.
    pub after: Duration,
}

/// A clip that is complete and must be written.
#[derive(Debug)]
pub struct FinishedClip {
    /// Id of the event.
    pub id: Uuid,
    /// In order of decoding, the first one is a key frame, all of one format.
    pub(super) frames: Vec<Arc<ClipFrame>>,
    /// When it should end.
    pub(super) end: Instant,
}

impl FinishedClip {
    /// Number of bytes.
    pub fn size(&self) -> usize {
        self.frames.iter().map(|frame| frame.size()).sum()
    }

    /// How long it shows something: at most a second longer than from the first to the last frame.
    pub fn length(&self) -> Duration {
        match (self.frames.first(), self.frames.last()) {
            (Some(first), Some(last)) => last.at - first.at + self.last_frame(),
            _ => Duration::ZERO,
        }
    }

    /// How long the last frame is shown.
    pub(super) fn last_frame(&self) -> Duration {
        let interval = Duration::from_secs(1) / CLIP_RATE;
        let Some(last) = self.frames.last() else {
            return interval;
        };
        let before = self.frames.iter().rev().nth(1);
        let usual = before.map_or(interval, |before| last.at - before.at);
        let most = usual.min(Duration::from_secs(1));
        self.end
            .saturating_duration_since(last.at)
            .clamp(interval.min(most), most)
    }
}

struct OpenClip {
    id: Uuid,
    /// When the event started.
    start: Instant,
    /// When the clip ends; until the end of the event its latest possible end.
    end: Instant,
    frames: Vec<Arc<ClipFrame>>,
    /// It cannot be continued: the format changed, or the memory is full.
    is_cut: bool,
}

struct RecorderState {
    ring: ClipRing,
    timeline: Timeline,
    clips: Vec<OpenClip>,
    encoder: Option<JpegEncoder>,
    /// The health says that the encoder fails.
    has_failed: bool,
    retry_at: Option<Instant>,
    next_due: Option<Instant>,
    /// Longest time between the start of an event and the call that starts its clip.
    delay: Duration,
    log_limiter: LogLimiter,
}

type ClipSink = Box<dyn Fn(FinishedClip) + Send + Sync>;

/// Keeps the last frames, and records clips. It outlives the captures. No method waits for the disk.
pub struct ClipRecorder {
    settings: ClipSettings,
    memory: FrameMemory,
    max_bytes: usize,
    stats: Arc<Stats>,
    health: HealthFlag,
    sink: ClipSink,
    state: Mutex<RecorderState>,
}

impl fmt::Debug for ClipRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClipRecorder")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl ClipRecorder {
    /// A recorder without frames. `sink` gets each complete clip and must not wait. `health` fails while events get no clip.
    pub fn new(
        settings: ClipSettings,
        stats: Arc<Stats>,
        health: HealthFlag,
        sink: impl Fn(FinishedClip) + Send + Sync + 'static,
    ) -> Self {
        Self {
            settings,
            memory: FrameMemory::default(),
            max_bytes: MAX_BYTES,
            stats,
            health,
            sink: Box::new(sink),
            state: Mutex::new(RecorderState {
                ring: ClipRing::new(RING_BYTES),
                timeline: Timeline::default(),
                clips: Vec::new(),
                encoder: None,
                has_failed: false,
                retry_at: None,
                next_due: None,
                delay: Duration::ZERO,
                log_limiter: LogLimiter::default(),
            }),
        }
    }

    /// Sets the longest time between the start of an event and [`Self::start`]: so much more is kept.
    pub fn set_delay(&self, delay: Duration) {
        self.state.lock().delay = delay.min(MAX_EVENT);
    }

    /// Starts the clip of an event that started at `at`, which may be in the past. Returns `false` if there will be no clip: the
    /// source delivers no video, or too many clips are in progress (counted).
    pub fn start(&self, event_id: Uuid, at: Instant) -> bool {
        let mut state = self.state.lock();
        let begin = at.checked_sub(self.settings.before).unwrap_or(at);
        let newest = state.ring.newest().filter(|newest| *newest + MAX_AGE >= begin);
        let Some(newest) = newest else {
            if let Some(suppressed) = state.log_limiter.check(Instant::now(), "no video") {
                tracing::warn!(
                    suppressed = suppressed.count(),
                    "An event gets no clip: there is no video of the source from this time"
                );
            }
            return false;
        };
        // The age of an event is taken from the clock of the day, which can be set meanwhile.
        let earliest = newest.checked_sub(state.delay + MAX_AGE);
        let at = earliest.map_or(at, |earliest| at.max(earliest));
        let begin = at.checked_sub(self.settings.before).unwrap_or(at);
        if state.clips.len() >= MAX_CLIPS || self.memory.bytes() > self.max_bytes {
            self.stats.clips_failed.inc();
            self.health
                .set_failing("an event got no clip: too many clips are in progress or wait to be written");
            if let Some(suppressed) = state.log_limiter.check(Instant::now(), "too many clips") {
                tracing::error!(
                    suppressed = suppressed.count(),
                    clips = state.clips.len(),
                    bytes = self.memory.bytes(),
                    "An event gets no clip: too many clips are in progress or wait to be written"
                );
            }
            return false;
        }
        let frames = state.ring.since(begin);
        state.clips.push(OpenClip {
            id: event_id,
            start: at,
            end: at + MAX_EVENT,
            frames,
            is_cut: false,
        });
        true
    }

    /// The event ended at `at`: its clip ends after the configured time. An event without a clip is ignored.
    pub fn finish(&self, event_id: Uuid, at: Instant) {
        let mut state = self.state.lock();
        for clip in state.clips.iter_mut().filter(|clip| clip.id == event_id) {
            clip.end = (at + self.settings.after).min(clip.start + MAX_EVENT);
        }
    }

    /// Ends the clips whose time is over. To be called now and then, because the source may have stopped.
    pub fn finish_due(&self, now: Instant) {
        let due = take_clips(&mut self.state.lock(), |clip| clip.end + LATE_FRAMES <= now);
        self.deliver(due);
    }

    /// Ends all clips now, with what there is.
    pub fn finish_all(&self, now: Instant) {
        let mut all = take_clips(&mut self.state.lock(), |_| true);
        for clip in &mut all {
            clip.end = clip.end.min(now);
        }
        self.deliver(all);
    }

    /// The time of the newest frame that a clip can show.
    pub(super) fn newest(&self) -> Option<Instant> {
        self.state.lock().ring.newest()
    }

    /// Adds a frame that the source has encoded, with the parameters that it lacks before it.
    pub(super) fn offer_encoded(
        &self,
        buffer: &gst::BufferRef,
        missing: &[u8],
        caps: gst::Caps,
        is_key: bool,
        arrived: Instant,
    ) {
        let mut state = self.state.lock();
        let is_jpeg = caps.structure(0).is_some_and(|format| format.name() == "image/jpeg");
        if is_jpeg && !is_due(&mut state.next_due, arrived) {
            return;
        }
        let timestamp = buffer.dts().or(buffer.pts());
        let at = state.timeline.place(arrived, timestamp);
        let show_after = buffer
            .pts()
            .zip(buffer.dts())
            .and_then(|(pts, dts)| pts.checked_sub(dts));
        let Some(copy) = copy_after(missing, buffer) else {
            return;
        };
        let show_after = show_after.map_or(Duration::ZERO, Into::into);
        let complete = self.add(&mut state, copy, caps, (at, show_after), is_key);
        drop(state);
        self.deliver(complete);
    }

    /// Encodes a raw frame of the source, at most [`CLIP_RATE`] a second.
    pub(super) fn offer_raw(self: &Arc<Self>, frame: &Frame) {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.retry_at.is_some_and(|due| frame.at < due) || !is_due(&mut state.next_due, frame.at) {
            return;
        }
        state.retry_at = None;
        let encoder = match state.encoder.take().filter(|encoder| encoder.takes(frame)) {
            Some(encoder) => Ok(encoder),
            None => JpegEncoder::start(frame, self),
        };
        let pushed = encoder.and_then(|encoder| encoder.push(frame).map(|()| encoder));
        match pushed {
            Ok(encoder) => {
                state.encoder = Some(encoder);
                if std::mem::take(&mut state.has_failed) {
                    self.health.set_ok();
                }
            }
            Err(error) => {
                state.retry_at = Some(frame.at + RETRY_AFTER);
                state.has_failed = true;
                self.health.set_failing(&error);
                if let Some(suppressed) = state.log_limiter.check(frame.at, "encoder") {
                    tracing::error!(
                        suppressed = suppressed.count(), %error,
                        "The pictures of the source cannot be encoded for clips of events; trying again"
                    );
                }
            }
        }
    }

    /// Adds a frame that [`JpegEncoder`] has encoded.
    pub(super) fn add_encoded(&self, buffer: gst::Buffer, caps: gst::Caps, at: Instant) {
        let mut state = self.state.lock();
        let at = state.timeline.place(at, None);
        let complete = self.add(&mut state, buffer, caps, (at, Duration::ZERO), true);
        drop(state);
        self.deliver(complete);
    }

    fn add(
        &self,
        state: &mut RecorderState,
        buffer: gst::Buffer,
        caps: gst::Caps,
        times: (Instant, Duration),
        is_key: bool,
    ) -> Vec<FinishedClip> {
        let frame = Arc::new(ClipFrame::new(buffer, caps, times, is_key, &self.memory));
        state.ring.push(&frame, self.settings.before + state.delay);
        let is_full = self.memory.bytes() > self.max_bytes;
        for clip in &mut state.clips {
            let fits = clip.frames.last().is_none_or(|last| last.caps == frame.caps);
            clip.is_cut |= is_full || !fits;
            if !clip.is_cut && frame.at < clip.end {
                clip.frames.push(Arc::clone(&frame));
            }
        }
        take_clips(state, |clip| clip.is_cut || clip.end <= frame.at)
    }

    fn deliver(&self, clips: Vec<FinishedClip>) {
        clips.into_iter().for_each(&self.sink);
    }

    #[cfg(test)]
    pub(super) fn with_max_bytes(self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self }
    }
}

fn take_clips(state: &mut RecorderState, is_complete: impl Fn(&OpenClip) -> bool) -> Vec<FinishedClip> {
    let complete = state.clips.extract_if(.., |clip| is_complete(clip));
    complete
        .map(|clip| FinishedClip {
            id: clip.id,
            frames: clip.frames,
            end: clip.end,
        })
        .collect()
}

/// A copy of the bytes, because the source needs its buffer back.
fn copy_after(missing: &[u8], buffer: &gst::BufferRef) -> Option<gst::Buffer> {
    if missing.is_empty() {
        return buffer.copy_deep().ok();
    }
    let data = buffer.map_readable().ok()?;
    Some(gst::Buffer::from_slice([missing, &data].concat()))
}

/// Whether it is time for the next of [`CLIP_RATE`] frames a second.
fn is_due(next: &mut Option<Instant>, now: Instant) -> bool {
    let due = next.unwrap_or(now);
    if now < due {
        return false;
    }
    let interval = Duration::from_secs(1) / CLIP_RATE;
    // On average exact, also if the frames come a little late; but nothing is caught up after a pause.
    *next = Some((due + interval).max(now));
    true
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
