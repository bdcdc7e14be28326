//! Whole pipelines in this process, from a launch line to frames in the mailbox.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::convert::{Converter, Picture, PictureTarget};
use super::error::CaptureError;
use super::frame::{Frame, FrameMailbox};
use super::mailbox::Received;
use super::registry::init;
use super::session::{Capture, CaptureSettings, StopOutcome};
use super::watchdog::CaptureEvent;
use crate::config::{MicrophoneChannel, ResizeMode, SourceLine};
use crate::status::stats::Stats;

mod formats;
mod stalls;

/// Limit of each wait.
const LIMIT: Duration = Duration::from_secs(20);

struct Run {
    capture: Capture,
    mailbox: Arc<FrameMailbox>,
    stats: Arc<Stats>,
    events: Receiver<CaptureEvent>,
}

impl Run {
    fn of(line: &str) -> Self {
        Self::with(CaptureSettings::new(SourceLine(line.to_owned()))).unwrap()
    }

    fn unthrottled(line: &str) -> Self {
        Self::with(CaptureSettings {
            unthrottled: true,
            ..CaptureSettings::new(SourceLine(line.to_owned()))
        })
        .unwrap()
    }

    fn with(settings: CaptureSettings) -> Result<Self, CaptureError> {
        let (mailbox, stats) = (Arc::new(FrameMailbox::new()), Arc::new(Stats::default()));
        let (sender, events) = mpsc::channel();
        let capture = Capture::start(&settings, &mailbox, &stats, move |event| {
            let _ = sender.send(event);
        })?;
        Ok(Self {
            capture,
            mailbox,
            stats,
            events,
        })
    }

    fn frame(&self) -> Frame {
        match self.mailbox.receive(LIMIT) {
            Received::Value(frame) => frame,
            other => panic!("no frame but {other:?}; {:?}", self.events.try_recv()),
        }
    }

    /// The timestamps of all frames until the end, in milliseconds.
    fn timestamps(&self) -> Vec<u64> {
        let mut timestamps = Vec::new();
        loop {
            match self.mailbox.receive(LIMIT) {
                Received::Value(frame) => timestamps.push(frame.sample.buffer().unwrap().pts().unwrap().mseconds()),
                Received::Closed(_) => return timestamps,
                Received::TimedOut => panic!("no end after {timestamps:?}"),
            }
        }
    }

    fn event(&self) -> CaptureEvent {
        self.events.recv_timeout(LIMIT).unwrap()
    }
}

/// Runs a launch line to its end, to make a file.
fn make(line: &str) {
    init().unwrap();
    let pipeline = gst::parse::launch(line).unwrap();
    let bus = pipeline.bus().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus
        .timed_pop_filtered(gst::ClockTime::from_seconds(20), &wanted)
        .unwrap();
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}

/// 20 frames of MJPEG at 20/s: one second.
fn video_file(directory: &Path) -> String {
    let path = directory.join("video.avi").display().to_string();
    make(&format!(
        "videotestsrc num-buffers=20 pattern=ball ! video/x-raw,format=I420,width=160,height=120,framerate=20/1 ! \
         jpegenc ! avimux ! filesink location={path}"
    ));
    path
}

#[test]
fn a_live_source_delivers_frames_until_it_is_stopped() {
    let run =
        Run::of("videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=100/1 ! videoconvert ! jpegenc");
    assert!(run.capture.is_live());
    let (first, second) = (run.frame(), run.frame());
    assert!(second.at > first.at);
    assert_eq!(first.sample.caps().unwrap().structure(0).unwrap().name(), "video/x-raw");
    assert!(run.stats.frames_captured.get() >= 2);
    assert!(matches!(run.capture.stop(LIMIT), StopOutcome::Clean));
    assert!(matches!(run.mailbox.receive(LIMIT), Received::Closed(_)));
    assert!(run.events.recv_timeout(LIMIT).is_err(), "a requested stop is no event");
}

#[test]
fn a_live_source_keeps_the_newest_frame_and_counts_the_others() {
    let run = Run::of("videotestsrc is-live=true num-buffers=30 ! video/x-raw,width=16,height=16,framerate=300/1");
    // Nothing is received until all frames have arrived: the end of the stream waits for the last frame.
    let start = Instant::now();
    while run.stats.frames_captured.get() < 30 {
        assert!(start.elapsed() < LIMIT);
        std::thread::yield_now();
    }
    assert!(
        run.events.try_recv().is_err(),
        "the end comes after the last frame was taken"
    );
    // A live source may start its stream some time after 0, so only a lower limit of the last timestamp is known.
    assert!(matches!(run.timestamps()[..], [last] if last >= 29 * 1000 / 300));
    assert_eq!(run.stats.frames_skipped.get(), 29);
    assert_eq!(run.event(), CaptureEvent::EndOfStream);
}

#[test]
fn a_file_plays_in_real_time_in_order_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = video_file(directory.path());
    let run = Run::of(&format!("filesrc location={path} ! decodebin ! videoconvert ! jpegenc"));
    assert!(!run.capture.is_live());
    let first = run.frame();
    let mut last = first.at;
    let mut timestamps = vec![first.sample.buffer().unwrap().pts().unwrap()];
    while let Received::Value(frame) = run.mailbox.receive(LIMIT) {
        timestamps.push(frame.sample.buffer().unwrap().pts().unwrap());
        last = frame.at;
    }
    assert!(timestamps.is_sorted_by(|a, b| a < b));
    assert_eq!(timestamps.last().unwrap().mseconds(), 950);
    let lasted = last - first.at;
    assert!(
        (Duration::from_millis(700)..Duration::from_secs(5)).contains(&lasted),
        "20 frames at 20/s took {lasted:?}"
    );
    assert_eq!(run.stats.frames_captured.get(), 20);
    assert_eq!(timestamps.len() as u64 + run.stats.frames_skipped.get(), 20);
    assert_eq!(run.event(), CaptureEvent::EndOfStream);
    assert!(
        run.events.recv_timeout(Duration::from_millis(1)).is_err(),
        "the end is reported once"
    );
}

#[test]
fn unthrottled_delivers_every_frame_once_and_faster() {
    let directory = tempfile::tempdir().unwrap();
    let path = video_file(directory.path());
    let run = Run::unthrottled(&format!("filesrc location={path} ! decodebin ! jpegenc"));
    let start = run.frame().at;
    assert_eq!(run.timestamps(), (1..20).map(|frame| frame * 50).collect::<Vec<_>>());
    assert!(
        start.elapsed() < Duration::from_millis(800),
        "it took {:?}",
        start.elapsed()
    );
    assert_eq!(
        (run.stats.frames_captured.get(), run.stats.frames_skipped.get()),
        (20, 0)
    );
    assert_eq!(run.event(), CaptureEvent::EndOfStream);
}

#[test]
fn unthrottled_counts_are_exact_over_many_frames() {
    let run = Run::unthrottled("videotestsrc num-buffers=2000 ! video/x-raw,width=16,height=16,framerate=1000/1");
    assert_eq!(run.timestamps(), (0..2000).collect::<Vec<_>>());
    assert_eq!(run.stats.frames_captured.get(), 2000);
}

#[test]
fn duplicates_of_videorate_arrive_at_their_rate_and_share_their_memory() {
    let run = Run::of(
        "videotestsrc num-buffers=10 ! video/x-raw,width=320,height=240,framerate=20/1 ! videorate ! \
         video/x-raw,framerate=2200/1 ! jpegenc",
    );
    let frame = run.frame();
    let memory = |frame: &Frame| frame.sample.buffer().unwrap().map_readable().unwrap().as_ptr();
    // The copies of videorate are references, so some consecutive frames share their memory.
    let mut before = memory(&frame);
    let mut shared = 0;
    let mut held = vec![frame];
    for _ in 0..5 {
        let frame = run.frame();
        shared += usize::from(memory(&frame) == before);
        before = memory(&frame);
        held.push(frame);
    }
    assert!(shared > 0);
    drop(held);
    while let Received::Value(_) = run.mailbox.receive(LIMIT) {}
    let captured = run.stats.frames_captured.get();
    assert!(captured > 900, "{captured} frames of half a second at 2200/s");
    assert_eq!(run.event(), CaptureEvent::EndOfStream);
}

#[test]
fn a_failing_element_is_reported_once_with_gstreamers_text() {
    let run = Run::of("videotestsrc is-live=true ! identity name=bad error-after=3 ! fakesink");
    let CaptureEvent::Error(CaptureError::Element {
        element,
        message,
        debug,
        line: None,
    }) = run.event()
    else {
        panic!()
    };
    assert_eq!(element, "bad");
    assert!(message.contains("Failed after iterations as requested"), "{message}");
    assert!(debug.contains("GstIdentity:bad"), "{debug}");
    assert!(run.events.recv_timeout(Duration::from_millis(300)).is_err());
    assert!(matches!(run.capture.stop(LIMIT), StopOutcome::Clean));
}

#[test]
fn a_missing_file_is_an_error_at_the_start_that_names_it() {
    let settings = CaptureSettings::new(SourceLine("filesrc:location=/nosuch/film.mp4:!:decodebin".to_owned()));
    let error = Run::with(settings).err().unwrap().to_string();
    assert!(error.contains("/nosuch/film.mp4"), "{error}");
    let line = "understood: filesrc location=/nosuch/film.mp4 ! decodebin";
    assert!(
        error.contains(line) && error.contains("write that colon as `\\:`"),
        "{error}"
    );
}

#[test]
fn the_next_capture_fills_the_same_mailbox() {
    let (mailbox, stats) = (Arc::new(FrameMailbox::new()), Arc::new(Stats::default()));
    let settings = CaptureSettings::new(SourceLine(
        "videotestsrc is-live=true ! video/x-raw,width=16,height=16".to_owned(),
    ));
    for _ in 0..3 {
        let capture = Capture::start(&settings, &mailbox, &stats, |_| {}).unwrap();
        assert!(matches!(mailbox.receive(LIMIT), Received::Value(_)));
        assert!(matches!(capture.stop(LIMIT), StopOutcome::Clean));
    }
}
