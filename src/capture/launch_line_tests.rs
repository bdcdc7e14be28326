//! Launch lines before and after.

use super::*;

const SINK: &str = "appsink name=frames-for-the-model";

fn runs(line: &str) -> String {
    Prepared::new(line, MediaKind::Pictures).unwrap().launch
}

fn described(line: &str) -> Result<PipelineDescription, CaptureError> {
    describe(&SourceLine::Launch(line.to_owned()), None)
}

#[test]
fn a_final_jpeg_encoder_is_dropped_with_all_that_stored_its_output() {
    for end in [
        "jpegenc",
        "jpegenc quality=90 snapshot=false",
        "avenc_mjpeg ! image/jpeg",
        "vaapijpegenc ! fakesink sync=false",
        "jpegenc ! image/jpeg, width=640 ! multifilesink location=/tmp/frame%05d.jpg post-messages=true",
        "jpegenc ! queue ! multipartmux ! filesink location=x",
        "jpegenc !",
        "multifilesink location=x",
        "videoconvert ! appsink name=sink",
    ] {
        let line = format!("v4l2src ! video/x-raw, width=640 ! {end}");
        let expected = if end.starts_with("videoconvert") {
            " ! videoconvert"
        } else {
            ""
        };
        assert_eq!(
            runs(&line),
            format!("v4l2src ! video/x-raw, width=640{expected} ! {SINK}"),
            "{end}"
        );
        assert!(!Prepared::new(&line, MediaKind::Pictures).unwrap().changes.is_empty());
    }
}

#[test]
fn a_line_in_raw_frames_is_only_given_a_sink() {
    let prepared = Prepared::new(
        "filesrc location=x ! decodebin ! video/x-raw,framerate=5/1",
        MediaKind::Pictures,
    )
    .unwrap();
    assert_eq!(
        prepared.launch,
        format!("filesrc location=x ! decodebin ! video/x-raw,framerate=5/1 ! {SINK}")
    );
    assert!(prepared.changes.is_empty());
}

#[test]
fn an_encoder_in_the_middle_stays() {
    let line = "videotestsrc ! jpegenc ! jpegdec ! videoconvert";
    assert_eq!(runs(line), format!("{line} ! {SINK}"));
}

#[test]
fn nvidia_memory_is_brought_to_ordinary_memory() {
    let camera = "nvarguscamerasrc ! video/x-raw(memory:NVMM),width=1280";
    for line in [
        format!("{camera} ! nvjpegenc"),
        format!("{camera} ! queue ! nvjpegenc ! multifilesink"),
        camera.to_owned(),
    ] {
        let expected = format!(
            "{camera}{} ! nvvidconv ! video/x-raw ! {SINK}",
            if line.contains("queue") { " ! queue" } else { "" }
        );
        assert_eq!(runs(&line), expected);
    }
    let system = format!("{camera} ! nvvidconv ! video/x-raw,format=I420");
    assert_eq!(runs(&format!("{system} ! nvjpegenc")), format!("{system} ! {SINK}"));
    assert_eq!(
        runs("nvarguscamerasrc ! nvjpegenc"),
        format!("nvarguscamerasrc ! nvvidconv ! video/x-raw ! {SINK}")
    );
}

#[test]
fn a_final_jpeg_stream_is_decoded() {
    assert_eq!(
        runs("v4l2src ! image/jpeg,width=640"),
        format!("v4l2src ! image/jpeg,width=640 ! jpegdec ! {SINK}")
    );
    assert_eq!(
        runs("souphttpsrc ! multipartdemux ! fakesink"),
        format!("souphttpsrc ! multipartdemux ! jpegdec ! {SINK}")
    );
}

#[test]
fn sound_is_brought_to_the_models_form() {
    let runs = |line: &str| {
        Prepared::new(line, MediaKind::Sound { frequency: 8000 })
            .unwrap()
            .launch
    };
    let end = format!(
        "audioconvert dithering=none ! audioresample ! audio/x-raw,format=S16LE,layout=interleaved,channels=1,rate=8000 ! {SINK}"
    );
    for (line, kept) in [
        ("alsasrc device=hw:1", "alsasrc device=hw:1"),
        (
            "alsasrc ! audioconvert ! wavenc ! filesink location=x",
            "alsasrc ! audioconvert",
        ),
        ("alsasrc ! autoaudiosink", "alsasrc"),
        ("filesrc location=x.wav", "filesrc location=x.wav ! decodebin"),
        ("pulsesrc ! tee name=t", "pulsesrc ! tee name=t ! queue"),
    ] {
        assert_eq!(runs(line), format!("{kept} ! {end}"));
    }
}

#[test]
fn check_takes_a_line_with_sound_for_sound() {
    assert_eq!(
        guess("audiotestsrc ! audioconvert"),
        MediaKind::Sound { frequency: 16_000 }
    );
    for line in [
        "v4l2src ! videoconvert",
        "alsasrc ! a. v4l2src ! video/x-raw",
        "filesrc ! decodebin",
    ] {
        assert_eq!(guess(line), MediaKind::Pictures, "{line}");
    }
    let description = described("audiotestsrc ! wavenc ! filesink location=x").unwrap();
    assert!(description.runs.contains("rate=16000"), "{}", description.runs);
}

#[test]
fn branches_stay_and_the_one_with_the_encoder_feeds_the_model() {
    assert_eq!(
        runs("v4l2src ! tee name=t t. ! queue ! jpegenc t. ! queue ! x264enc ! kvssink stream-name=s"),
        format!("v4l2src ! tee name=t t. ! queue ! {SINK} t. ! queue ! x264enc ! kvssink stream-name=s")
    );
    assert_eq!(
        runs("v4l2src ! tee name=t ! queue ! kvssink t. ! queue ! videoconvert"),
        format!("v4l2src ! tee name=t ! queue ! kvssink t. ! queue ! videoconvert ! {SINK}")
    );
    assert_eq!(
        runs("v4l2src ! tee name=t t. ! queue ! kvssink"),
        format!("v4l2src ! tee name=t ! queue ! {SINK} t. ! queue ! kvssink")
    );
}

#[test]
fn a_line_that_ends_in_a_sink_that_is_needed_has_no_end_for_the_model() {
    let error = Prepared::new("v4l2src ! x264enc ! kvssink stream-name=s", MediaKind::Pictures).unwrap_err();
    assert!(
        matches!(&error, CaptureError::NoOpenEnd { last, .. } if last == "kvssink"),
        "{error}"
    );
    assert!(error.to_string().contains("add `tee name=t`"));
    assert_eq!(
        Prepared::new("  ", MediaKind::Pictures).unwrap_err(),
        CaptureError::NoLine
    );
}

#[test]
fn check_lists_every_missing_element_with_its_package() {
    let description = described("nosuchsrc ! x264enc ! nosuchfilter ! videoconvert ! jpegenc").unwrap();
    let missing: Vec<_> = description.missing.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(missing, ["nosuchfilter", "nosuchsrc", "x264enc"]);
    assert_eq!(description.missing[2].package, Some("gstreamer1.0-plugins-ugly"));
    assert_eq!(description.changes.len(), 1);
}

#[test]
fn check_shows_the_decoded_line_without_its_password() {
    let line = "rtspsrc:location=rtsp://u:secret@10.0.0.5:8554/cam:latency=0:!:decodebin:!:jpegenc";
    let description = describe(&SourceLine::Encoded(line.to_owned()), None).unwrap();
    assert_eq!(
        description.line,
        "rtspsrc location=rtsp://u:***@10.0.0.5:8554/cam latency=0 ! decodebin ! jpegenc"
    );
    assert!(!description.runs.contains("secret"));
    assert!(description.missing.is_empty());
}

#[test]
fn gstreamers_errors_come_with_the_line_and_the_word() {
    for (line, wanted) in [
        ("videotestsrc nosuch=1 ! videoconvert", Some("nosuch")),
        ("videotestsrc pattern=nosuch ! videoconvert", Some("pattern")),
        ("videotestsrc ! nosuch/x ! videoconvert", None),
        ("videotestsrc ! audioconvert", Some("videotestsrc0")),
    ] {
        let error = described(line).unwrap_err();
        let CaptureError::Parse {
            word,
            line: shown,
            message,
        } = &error
        else {
            panic!("{line}: {error:?}")
        };
        assert!(shown.starts_with(line), "{shown}");
        assert!(!message.is_empty());
        if wanted.is_some()
            && word.as_deref().map(|w| w.trim_end_matches(char::is_numeric))
                != wanted.map(|w| w.trim_end_matches(char::is_numeric))
        {
            panic!("{line}: {word:?} in {message}");
        }
    }
}

#[test]
fn a_source_without_a_line_says_so() {
    assert_eq!(
        describe(&SourceLine::Encoded("__none__".to_owned()), None),
        Err(CaptureError::NoLine)
    );
    let long = SourceLine::Encoded("a".repeat(gst_args::MAX_LENGTH + 1));
    assert_eq!(
        describe(&long, None),
        Err(CaptureError::TooLong {
            length: gst_args::MAX_LENGTH + 1
        })
    );
}
