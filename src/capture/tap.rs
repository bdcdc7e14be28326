//! Copies of what the source delivers, for the data collection, made only while somebody wants them.
//!
//! Nothing here waits: without a receiver a frame costs one load, a picture that is not fetched in time is replaced by a newer
//! one, and a recording that is not stored in time ends with a gap that its receiver sees.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::frame::Frame;
use super::video_file::VIDEO_RATE;

/// Most copies of frames per second, unless a video is recorded.
const FRAMES_PER_SECOND: u32 = 10;
/// Buffers of audio that wait to be stored. They last for about a second.
const AUDIO_BUFFERS: usize = 128;

/// What the source delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TappedSources {
    /// Width and height of the camera's pictures, in pixels.
    pub camera: Option<(u32, u32)>,
    /// Samples per second of the microphone.
    pub microphone: Option<u32>,
}

/// Copies of frames and audio for the data collection. It outlives the captures.
#[derive(Debug)]
pub struct CaptureTap {
    sources: watch::Sender<TappedSources>,
    frames: watch::Sender<Option<Frame>>,
    next_frame_due: Mutex<Option<Instant>>,
    /// Most copies of frames per second now.
    frame_rate: AtomicU32,
    recording: Mutex<Option<mpsc::Sender<Vec<i16>>>>,
}

impl Default for CaptureTap {
    fn default() -> Self {
        Self {
            sources: watch::Sender::default(),
            frames: watch::Sender::new(None),
            next_frame_due: Mutex::new(None),
            frame_rate: AtomicU32::new(FRAMES_PER_SECOND),
            recording: Mutex::new(None),
        }
    }
}

impl CaptureTap {
    /// Follows what the source delivers.
    pub fn sources(&self) -> watch::Receiver<TappedSources> {
        self.sources.subscribe()
    }

    /// Copies of frames from now on, at most ten a second, while the receiver exists. The first value is not a new frame.
    pub fn frames(&self) -> watch::Receiver<Option<Frame>> {
        let mut frames = self.frames.subscribe();
        frames.mark_unchanged();
        frames
    }

    /// Raises the limit of [`Self::frames`] to that of a video while the guard exists.
    pub fn for_video(self: &Arc<Self>) -> VideoRateGuard {
        self.frame_rate.store(VIDEO_RATE, Ordering::Relaxed);
        VideoRateGuard(self.clone())
    }

    /// The audio from now on, as 16-bit mono. `None`: another recording is in progress. The receiver ends when it was too slow.
    pub fn record(&self) -> Option<mpsc::Receiver<Vec<i16>>> {
        let mut recording = self.recording.lock();
        if recording.as_ref().is_some_and(|sender| !sender.is_closed()) {
            return None;
        }
        let (sender, receiver) = mpsc::channel(AUDIO_BUFFERS);
        *recording = Some(sender);
        Some(receiver)
    }

    /// The source delivers frames of this size.
    pub(super) fn set_camera(&self, size: (u32, u32)) {
        self.change(|sources| sources.camera = Some(size));
    }

    /// The source delivers audio.
    pub(super) fn set_microphone(&self, sample_rate: u32) {
        self.change(|sources| sources.microphone = Some(sample_rate));
    }

    /// The model of the only source changed: what was offered before may not exist any more.
    pub fn forget_sources(&self) {
        self.change(|sources| *sources = TappedSources::default());
    }

    fn change(&self, change: impl FnOnce(&mut TappedSources)) {
        self.sources.send_if_modified(|sources| {
            let before = *sources;
            change(sources);
            *sources != before
        });
    }

    /// Copies the frame if somebody wants one now.
    pub(super) fn offer_frame(&self, frame: &Frame) {
        if self.frames.receiver_count() == 0 || !self.is_due(frame.at) {
            return;
        }
        // A copy: the source needs its buffer back.
        if let Some(copy) = frame.detached() {
            self.frames.send_replace(Some(copy));
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let mut due = self.next_frame_due.lock();
        if due.is_some_and(|due| now < due) {
            return false;
        }
        *due = Some(now + Duration::from_secs(1) / self.frame_rate.load(Ordering::Relaxed));
        true
    }

    /// Copies the samples if they are recorded.
    pub(super) fn offer_audio(&self, samples: &[i16]) {
        let mut recording = self.recording.lock();
        if let Some(sender) = &*recording
            && sender.try_send(samples.to_vec()).is_err()
        {
            *recording = None;
        }
    }
}

/// Copies come at the rate of a video until this is dropped.
#[derive(Debug)]
pub struct VideoRateGuard(Arc<CaptureTap>);

impl Drop for VideoRateGuard {
    fn drop(&mut self) {
        self.0.frame_rate.store(FRAMES_PER_SECOND, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use gstreamer as gst;

    use super::*;

    fn frame(at: Instant) -> Frame {
        crate::capture::init().unwrap();
        let buffer = gst::Buffer::from_slice([1_u8, 2, 3]);
        let caps = gst::Caps::new_empty_simple("video/x-raw");
        let sample = gst::Sample::builder().buffer(&buffer).caps(&caps).build();
        Frame { sample, at }
    }

    #[test]
    fn frames_are_copied_for_a_receiver_only_and_at_most_ten_times_a_second() {
        let (tap, now) = (CaptureTap::default(), Instant::now());
        tap.offer_frame(&frame(now));
        assert!(tap.frames.borrow().is_none());
        let frames = tap.frames();
        let mut copies = 0;
        let mut seen = frames.clone();
        for n in 0..60 {
            tap.offer_frame(&frame(now + Duration::from_secs(1) * n / 60));
            if seen.has_changed().unwrap() {
                seen.mark_unchanged();
                copies += 1;
            }
        }
        assert!((8..=10).contains(&copies), "{copies}");
    }

    #[test]
    fn a_recording_that_is_not_stored_in_time_ends() {
        let tap = CaptureTap::default();
        tap.offer_audio(&[1]);
        let mut recording = tap.record().unwrap();
        assert!(tap.record().is_none(), "one recording at a time");
        for _ in 0..=AUDIO_BUFFERS {
            tap.offer_audio(&[1, 2]);
        }
        let mut buffers = 0;
        while recording.try_recv().is_ok() {
            buffers += 1;
        }
        assert_eq!(buffers, AUDIO_BUFFERS);
        assert_eq!(recording.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        assert!(tap.record().is_some());
    }

    #[test]
    fn only_another_source_is_told() {
        let tap = CaptureTap::default();
        let sources = tap.sources();
        tap.set_camera((640, 480));
        assert!(sources.has_changed().unwrap());
        let mut sources = tap.sources();
        sources.mark_unchanged();
        tap.set_camera((640, 480));
        assert!(!sources.has_changed().unwrap());
    }
}
