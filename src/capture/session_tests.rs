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
fn a_live_source_that_delivers_nothing_has_stalled() {
    let quiet = |line: &str, first: u64| {
        let settings = CaptureSettings {
            no_frame_limit: Duration::from_millis(300),
            first_frame_limit: Duration::from_millis(first),
            ..CaptureSettings::new(SourceLine(line.to_owned()))
        };
        let run = Run::with(settings).unwrap();
        let CaptureEvent::Stalled { after } = run.event() else {
            panic!()
        };
        assert!(matches!(run.capture.stop(LIMIT), StopOutcome::Clean));
        (after, run.stats.frames_captured.get())
    };
    let caps = "video/x-raw,width=16,height=16,framerate=50/1";
    // The valve drops every frame, the first one too.
    let (after, frames) = quiet(&format!("videotestsrc is-live=true ! {caps} ! valve drop=true"), 500);
    assert!(after >= Duration::from_millis(500) && frames == 0);
    // The second input prevents the end of the stream after the five frames of the first one.
    let (after, frames) = quiet(
        &format!(
            "videotestsrc is-live=true num-buffers=5 ! {caps} ! funnel name=f videotestsrc is-live=true ! {caps} ! \
             valve drop=true ! f. f. ! jpegenc"
        ),
        20_000,
    );
    assert!(after >= Duration::from_millis(300) && frames == 5);
}

#[test]
fn the_limits_of_a_live_source_do_not_apply_to_others() {
    let settings = CaptureSettings {
        no_frame_limit: Duration::from_millis(50),
        first_frame_limit: Duration::from_millis(50),
        ..CaptureSettings::new(SourceLine(
            "videotestsrc num-buffers=3 ! video/x-raw,width=16,height=16,framerate=2/1".to_owned(),
        ))
    };
    let run = Run::with(settings).unwrap();
    assert_eq!(run.timestamps(), [0, 500, 1000]);
    assert_eq!(run.event(), CaptureEvent::EndOfStream);
}

#[test]
fn a_live_source_may_be_slow_when_its_frame_rate_is() {
    let settings = CaptureSettings {
        no_frame_limit: Duration::from_millis(300),
        ..CaptureSettings::new(SourceLine(
            "videotestsrc is-live=true num-buffers=3 ! video/x-raw,width=16,height=16,framerate=1/1".to_owned(),
        ))
    };
    let run = Run::with(settings).unwrap();
    assert_eq!(run.timestamps().len(), 3);
    assert_eq!(run.event(), CaptureEvent::EndOfStream);
}

#[test]
fn a_source_that_is_not_live_has_stalled_when_it_delivers_nothing_and_nothing_waits() {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    let (reader, mut writer) = std::io::pipe().unwrap();
    let settings = CaptureSettings {
        not_live_limit: Duration::from_millis(500),
        ..CaptureSettings::new(SourceLine(format!(
            "fdsrc fd={} blocksize=256 ! rawvideoparse width=16 height=16 format=gray8 framerate=50/1",
            reader.as_raw_fd()
        )))
    };
    writer.write_all(&[0; 256]).unwrap();
    let run = Run::with(settings).unwrap();
    assert!(!run.capture.is_live());
    let start = Instant::now();
    while run.stats.frames_captured.get() < 1 {
        assert!(start.elapsed() < LIMIT);
        std::thread::yield_now();
    }
    let while_waiting = run.events.recv_timeout(Duration::from_millis(1500));
    assert!(
        while_waiting.is_err(),
        "the frame waits for inference: {while_waiting:?}"
    );
    run.frame();
    let event = run.event();
    assert!(
        matches!(event, CaptureEvent::Stalled { after } if after >= Duration::from_millis(500)),
        "{event:?}"
    );
    drop(writer);
}

#[test]
fn an_mjpeg_stream_without_a_decoder_delivers_its_first_pictures_at_once() {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    let mut jpeg = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut jpeg)
        .encode(&[128; 16 * 16 * 3], 16, 16, image::ExtendedColorType::Rgb8)
        .unwrap();
    let head = format!(
        "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
        jpeg.len()
    );
    let part = [head.as_bytes(), &jpeg, b"\r\n"].concat();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let line = format!("fdsrc fd={} blocksize=512", reader.as_raw_fd());
    writer.write_all(&part.repeat(20)).unwrap();
    let run = Run::with(CaptureSettings::new(SourceLine(line))).unwrap();
    run.frame();
    drop(writer);
}

#[test]
fn stopping_wakes_a_callback_that_waits_for_the_mailbox() {
    let run = Run::unthrottled("videotestsrc ! video/x-raw,width=16,height=16");
    let start = Instant::now();
    // The first frame is in the mailbox; the callback waits with the second one.
    while run.stats.frames_captured.get() < 2 {
        assert!(start.elapsed() < LIMIT);
        std::thread::yield_now();
    }
    assert!(matches!(run.capture.stop(LIMIT), StopOutcome::Clean));
    assert_eq!(run.stats.frames_captured.get(), 2);
}

#[test]
fn stopping_wakes_a_watchdog_that_waits_for_the_last_frame() {
    let run = Run::of("videotestsrc num-buffers=1 ! video/x-raw,width=16,height=16");
    let start = Instant::now();
    while run.stats.frames_captured.get() < 1 {
        assert!(start.elapsed() < LIMIT);
        std::thread::yield_now();
    }
    assert!(matches!(run.capture.stop(LIMIT), StopOutcome::Clean));
    assert!(run.events.recv_timeout(LIMIT).is_err(), "a stop is not reported");
}

#[test]
fn a_pipeline_that_hangs_is_abandoned() {
    let run =
        Run::of("videotestsrc is-live=true ! video/x-raw,width=16,height=16 ! identity name=slow sleep-time=3000000");
    let start = Instant::now();
    // A thread that sleeps in `identity` prevents the stop, as a driver does. Wait until it sleeps.
    run.frame();
    let next = run.mailbox.receive(Duration::from_millis(300));
    assert!(
        matches!(next, Received::TimedOut),
        "the next frame is held in `identity`: {next:?}"
    );
    assert!(matches!(
        run.capture.stop(Duration::from_millis(100)),
        StopOutcome::Abandoned(Some(_))
    ));
    assert!(start.elapsed() < Duration::from_secs(6));
}

#[test]
fn both_branches_of_a_tee_run() {
    let directory = tempfile::tempdir().unwrap();
    let stored = directory.path().join("stored.y4m").display().to_string();
    let run = Run::unthrottled(&format!(
        "videotestsrc num-buffers=5 ! video/x-raw,format=I420,width=16,height=16,framerate=10/1 ! tee name=t \
         t. ! queue ! jpegenc ! fakesink t. ! queue ! y4menc ! filesink location={stored}"
    ));
    assert_eq!(run.timestamps(), [0, 100, 200, 300, 400]);
    assert_eq!(run.event(), CaptureEvent::EndOfStream);
    assert!(matches!(run.capture.stop(LIMIT), StopOutcome::Clean));
    let bytes = std::fs::metadata(stored).unwrap().len();
    assert!(bytes > 5 * 16 * 16 * 3 / 2, "{bytes}");
}

#[test]
fn a_source_of_jpeg_is_decoded_to_the_same_picture() {
    let picture = |line: &str| {
        let run = Run::unthrottled(line);
        let mut picture = Picture::default();
        let target = PictureTarget {
            width: 64,
            height: 48,
            grey: false,
            resize: ResizeMode::Squash,
        };
        Converter::new(target).convert(&run.frame(), &mut picture).unwrap();
        picture
    };
    // JPEG has full-range colours.
    let source = "videotestsrc num-buffers=2 pattern=ball ! \
                  video/x-raw,format=I420,width=64,height=48,framerate=10/1,colorimetry=1:4:0:0";
    let plain = picture(source);
    // Known from the last caps, and found from what the last element offers.
    for end in [
        "jpegenc quality=95 ! queue name=q ! image/jpeg,width=64 ! identity",
        "jpegenc quality=95 ! valve",
    ] {
        let decoded = picture(&format!("{source} ! {end}"));
        let difference: u64 = plain
            .data
            .iter()
            .zip(&decoded.data)
            .map(|(a, b)| u64::from(a.abs_diff(*b)))
            .sum();
        let mean = difference as f64 / plain.data.len() as f64;
        assert!(mean < 2.0, "{end}: {mean:.1}");
    }
}

#[test]
fn jpeg_is_decoded_without_a_bias() {
    let original = image::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pictures/wide.png")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wide.jpg");
    let mut file = std::fs::File::create(&path).unwrap();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 90)
        .encode_image(&original.to_luma8())
        .unwrap();
    let decoded = image::open(&path).unwrap().to_luma8();
    let target = PictureTarget {
        width: decoded.width(),
        height: decoded.height(),
        grey: true,
        resize: ResizeMode::Squash,
    };
    let source = format!(
        "multifilesrc location={} num-buffers=3 caps=image/jpeg,framerate=10/1",
        path.display()
    );
    for (decoder, biased) in [
        ("", false),
        (" ! jpegdec", false),
        (" ! decodebin", false),
        (" ! jpegdec idct-method=ifast", true),
    ] {
        let run = Run::unthrottled(&format!("{source}{decoder}"));
        let mut picture = Picture::default();
        Converter::new(target).convert(&run.frame(), &mut picture).unwrap();
        let pixels = picture.data.iter().zip(decoded.as_raw());
        let difference: i64 = pixels.map(|(a, b)| i64::from(*a) - i64::from(*b)).sum();
        let bias = difference as f64 / decoded.len() as f64;
        assert_eq!(bias.abs() > 0.4, biased, "{decoder}: {bias:.2}");
    }
}

#[test]
fn a_source_with_a_choice_takes_the_cheapest_format() {
    let source = "videotestsrc num-buffers=2 ! video/x-raw,width=640,height=480,framerate=30/1";
    for (line, format) in [
        // The line of the tutorial, and similar lines.
        (format!("{source} ! videoconvert ! jpegenc"), "I420"),
        (format!("{source} ! jpegenc"), "I420"),
        (format!("{source} ! videoconvert"), "I420"),
        (source.to_owned(), "I420"),
        (
            format!("{source} ! videorate ! videoscale ! videoconvert ! jpegenc"),
            "I420",
        ),
        (format!("{source} ! jpegenc ! image/jpeg"), "I420"),
        // Without a choice the frames are not converted.
        (format!("{source},format=YUY2 ! videoconvert ! jpegenc"), "YUY2"),
        (format!("{source},format=NV12 ! videoconvert ! jpegenc"), "NV12"),
        (format!("{source},format=BGRx ! videoconvert ! jpegenc"), "BGRx"),
        (format!("{source},format=v210"), "v210"),
        (format!("{source},format={{BGR,GRAY8,NV12,ARGB64}}"), "NV12"),
    ] {
        let run = Run::unthrottled(&line);
        let frame = run.frame();
        let caps = frame.sample.caps().unwrap();
        let found = caps.structure(0).unwrap().get::<String>("format").unwrap();
        assert_eq!(found, format, "{line}");
    }
}

#[test]
fn a_line_that_delivers_no_video_is_refused_with_its_caps() {
    let settings = CaptureSettings::new(SourceLine("audiotestsrc ! audio/x-raw ! queue".to_owned()));
    let error = Run::with(settings).err().unwrap();
    assert!(
        matches!(&error, CaptureError::NotVideo { caps, .. } if caps.contains("audio/x-raw")),
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

#[test]
fn a_file_plays_without_a_decoder_in_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = video_file(directory.path());
    let run = Run::unthrottled(&format!("filesrc location={path}"));
    assert_eq!(run.timestamps(), (0..20).map(|frame| frame * 50).collect::<Vec<_>>());
    assert_eq!(run.event(), CaptureEvent::EndOfStream);
}

/// The loudest sample of a source whose four channels have 10, 20, 40 and 80 percent of full scale.
fn loudest_of_four_channels(positions: &str, channel: MicrophoneChannel) -> i16 {
    use super::audio::{AudioFormat, AudioMailbox};
    use super::output::CaptureOutput;
    let inputs = [0.1, 0.2, 0.4, 0.8].map(|volume| {
        format!(
            " audiotestsrc wave=square freq=1 volume={volume} samplesperbuffer=800 num-buffers=4 \
             ! audio/x-raw,format=S16LE,rate=16000,channels=1 ! i."
        )
    });
    let line = format!("interleave name=i {positions}{}", inputs.concat());
    let settings = CaptureSettings {
        unthrottled: true,
        microphone_channel: channel,
        ..CaptureSettings::new(SourceLine(line))
    };
    let mailbox = Arc::new(AudioMailbox::new());
    let format = AudioFormat {
        sample_rate: 16_000,
        window: 1600,
        step: 1600,
        continuous: false,
    };
    let (sender, events) = mpsc::channel();
    let output = CaptureOutput::Audio(mailbox.reserve(), format);
    let capture = Capture::start(&settings, output, &Arc::default(), move |event| {
        let _ = sender.send(event);
    })
    .unwrap();
    let Received::Value(window) = mailbox.receive(LIMIT) else {
        panic!("no sound: {:?}", events.try_recv())
    };
    capture.stop(LIMIT);
    window
        .samples
        .iter()
        .map(|sample| sample.saturating_abs())
        .max()
        .unwrap()
}

#[test]
fn a_microphone_with_four_channels_without_positions_gives_the_configured_one() {
    for (channel, percent) in [
        (MicrophoneChannel::Auto, 10.0),
        (MicrophoneChannel::Number(3), 40.0),
        (MicrophoneChannel::Mix, 37.5),
    ] {
        let loudest = f64::from(loudest_of_four_channels("", channel)) / 327.67;
        assert!((loudest - percent).abs() < 1.0, "{channel}: {loudest} %");
    }
}
