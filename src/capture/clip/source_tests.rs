use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::super::recorder::{ClipSettings, FinishedClip};
use super::super::testing::{H264_FILE, ms, play, written};
use super::*;
use crate::capture::{Capture, CaptureOutput, CaptureSettings, FrameMailbox, Haste, init};
use crate::config::SourceLine;
use crate::status::health::HealthFlag;

const LIMIT: Duration = Duration::from_secs(20);

/// Records a clip of half a second before and after an event of a second. The last value: frames of the source.
fn record(line: &str) -> FinishedClip {
    let (sender, complete) = mpsc::channel();
    let settings = ClipSettings {
        before: ms(500),
        after: ms(500),
    };
    let recorder = ClipRecorder::new(settings, Arc::default(), HealthFlag::default(), move |clip| {
        drop(sender.send(clip))
    });
    let recorder = Arc::new(recorder);
    let settings = CaptureSettings {
        clips: Some(recorder.clone()),
        ..CaptureSettings::new(SourceLine(line.to_owned()))
    };
    let mailbox = Arc::new(FrameMailbox::new());
    let capture = Capture::start(&settings, CaptureOutput::from(&mailbox), &Arc::default(), |_| {}).unwrap();
    let begin = Instant::now();
    let id = uuid::Uuid::new_v4();
    // The clip can start when there is video of half a second.
    while begin.elapsed() < ms(700) || !recorder.start(id, Instant::now()) {
        assert!(begin.elapsed() < LIMIT, "there is no video");
        std::thread::sleep(ms(20));
    }
    recorder.finish(id, Instant::now() + ms(1_000));
    let clip = complete.recv_timeout(LIMIT).expect("a clip");
    drop(capture);
    clip
}

fn check(clip: &FinishedClip, wanted_frames: std::ops::RangeInclusive<usize>) {
    let (_, file) = written(clip, &Haste::default());
    assert!(file.duration.abs_diff(ms(2_000)) < ms(300), "{:?}", file.duration);
    assert!(
        wanted_frames.contains(&file.frames.len()),
        "{} frames",
        file.frames.len()
    );
}

#[test]
fn raw_frames_are_encoded_at_a_reduced_rate() {
    let clip = record("videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1");
    check(&clip, 17..=23);
}

#[test]
fn jpeg_before_the_decoder_is_taken_as_it_is() {
    for decoder in ["jpegdec", "decodebin", "queue ! decodebin ! videoconvert"] {
        let clip = record(&format!(
            "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=5/1 ! jpegenc quality=31 ! {decoder}"
        ));
        // The quality of the encoder of the line, and not of ours, shows in the first bytes.
        let caps = &clip.frames[0].caps;
        assert!(
            caps.to_string().contains("framerate=(fraction)5/1"),
            "{decoder}: {caps}"
        );
        check(&clip, 8..=13);
    }
}

#[test]
fn the_encoded_stream_is_found_through_bins_and_queues() {
    init().unwrap();
    for line in [
        format!("filesrc location={H264_FILE} ! qtdemux ! queue ! identity ! tee ! appsink name=sink"),
        format!("filesrc location={H264_FILE} ! ( qtdemux ! queue ) ! identity ! appsink name=sink"),
    ] {
        let (pipeline, sink) = play(&line);
        let _sample = sink.pull_sample().unwrap();
        assert_eq!(
            encoded_pad(&sink).map(|(_, stream)| stream),
            Some(EncodedStream::Avc),
            "{line}"
        );
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn a_mix_of_several_sources_has_no_encoding_of_its_own() {
    init().unwrap();
    let line = "videotestsrc num-buffers=3 ! jpegenc ! jpegdec ! compositor name=mix ! appsink name=sink \
                videotestsrc num-buffers=3 ! jpegenc ! jpegdec ! mix.";
    let (pipeline, sink) = play(line);
    let _sample = sink.pull_sample().unwrap();
    assert!(encoded_pad(&sink).is_none());
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn h264_before_the_decoder_is_taken_as_it_is_where_it_can_be_decoded() {
    init().unwrap();
    if !["x264enc", "h264parse", "openh264dec"]
        .iter()
        .all(|element| is_installed(element))
    {
        return;
    }
    for format in ["avc", "byte-stream"] {
        let clip = record(&format!(
            "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! x264enc tune=zerolatency \
             key-int-max=10 ! h264parse ! video/x-h264,stream-format={format},alignment=au ! h264parse ! openh264dec"
        ));
        let caps = clip.frames[0].caps.to_string();
        assert!(caps.starts_with("video/x-h264"), "{caps}");
        check(&clip, 50..=75);
    }
}

/// Needs plugins that the tests do not install (`gstreamer1.0-plugins-ugly`, `gstreamer1.0-plugins-bad`).
fn has_h264() -> bool {
    init().unwrap();
    ["x264enc", "h264parse", "openh264dec"]
        .iter()
        .all(|element| is_installed(element))
}

/// A stream whose parameters stand before its first picture only.
fn without_later_parameters(group: u32, rest: &str) -> String {
    format!(
        "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! x264enc tune=zerolatency \
         key-int-max={group} option-string=repeat-headers=0 ! video/x-h264,stream-format=avc ! h264parse ! \
         video/x-h264,stream-format=byte-stream,alignment=au ! {rest}"
    )
}

#[test]
fn parameters_that_a_camera_sends_once_are_added_to_the_clip() {
    if !has_h264() {
        return;
    }
    for rest in ["openh264dec", "decodebin"] {
        let clip = record(&without_later_parameters(10, rest));
        let caps = clip.frames[0].caps.to_string();
        assert!(caps.starts_with("video/x-h264"), "{rest}: {caps}");
        let data = clip.frames[0].buffer.map_readable().unwrap();
        assert!(AccessUnit::read(&data).begins_sequence(), "{rest}");
        drop(data);
        let (_, file) = written(&clip, &Haste::default());
        assert!(
            file.codec() == "video/x-h264" && file.frames.len() == clip.frames.len(),
            "{rest}"
        );
    }
}

#[test]
fn an_encoding_without_key_frames_is_given_up_for_the_pictures() {
    if !has_h264() {
        return;
    }
    let (sender, complete) = mpsc::channel();
    let settings = ClipSettings {
        before: ms(500),
        after: ms(0),
    };
    let recorder = ClipRecorder::new(settings, Arc::default(), HealthFlag::default(), move |clip| {
        drop(sender.send(clip));
    });
    let recorder = Arc::new(recorder);
    let (pipeline, sink) = play(&format!(
        "{} ! appsink name=sink sync=false",
        without_later_parameters(100_000, "openh264dec")
    ));
    let mut source = ClipSource::new(recorder.clone(), false);
    // The time of the pictures passes faster than the stream.
    for n in 0..40 {
        let sample = sink.pull_sample().unwrap();
        let frame = Frame {
            sample,
            at: Instant::now() + Duration::from_secs(n),
        };
        source.on_frame(&sink, &frame);
    }
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(matches!(source.video, SourceVideo::Raw));
    drop(complete);
}
