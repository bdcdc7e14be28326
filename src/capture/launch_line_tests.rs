//! Launch lines before and after they are rewritten.

use super::*;

const SINK: &str = "appsink name=frames-for-the-model";

fn prepared(line: &str) -> String {
    PreparedLine::new(&line.to_owned().into(), MediaKind::Video)
        .unwrap()
        .launch
}

#[test]
fn a_final_jpeg_encoder_is_dropped_with_the_elements_that_store_its_output() {
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
            prepared(&line),
            format!("v4l2src ! video/x-raw, width=640{expected} ! {SINK}"),
            "{end}"
        );
        assert!(
            !PreparedLine::new(&line.clone().into(), MediaKind::Video)
                .unwrap()
                .changes
                .is_empty()
        );
    }
}

#[test]
fn a_line_that_delivers_raw_frames_gets_only_a_sink() {
    let prepared = PreparedLine::new(
        &"filesrc location=x ! decodebin ! video/x-raw,framerate=5/1"
            .to_owned()
            .into(),
        MediaKind::Video,
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
    assert_eq!(prepared(line), format!("{line} ! {SINK}"));
}

#[test]
fn frames_in_nvidia_memory_are_copied_to_system_memory() {
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
        assert_eq!(prepared(&line), expected);
    }
    let system = format!("{camera} ! nvvidconv ! video/x-raw,format=I420");
    assert_eq!(prepared(&format!("{system} ! nvjpegenc")), format!("{system} ! {SINK}"));
    assert_eq!(
        prepared("nvarguscamerasrc ! nvjpegenc"),
        format!("nvarguscamerasrc ! nvvidconv ! video/x-raw ! {SINK}")
    );
}

#[test]
fn a_final_jpeg_stream_is_decoded() {
    assert_eq!(
        prepared("v4l2src ! image/jpeg,width=640"),
        format!("v4l2src ! image/jpeg,width=640 ! jpegdec ! {SINK}")
    );
    assert_eq!(
        prepared("souphttpsrc ! multipartdemux ! fakesink"),
        format!("souphttpsrc ! multipartdemux ! jpegdec ! {SINK}")
    );
}

#[test]
fn a_line_without_a_decoder_gets_one() {
    for (line, added) in [
        ("filesrc location=x.avi", "decodebin"),
        ("filesrc location=x.avi ! fakesink", "decodebin"),
        ("souphttpsrc location=http://c/snap.jpg", "decodebin"),
        (
            "rtspsrc location=rtsp://c/1 latency=0",
            "application/x-rtp,media=video ! decodebin",
        ),
        ("filesrc location=x.avi ! queue", "decodebin"),
        ("udpsrc port=5000 caps=application/x-rtp,media=video", "decodebin"),
        ("udpsrc port=5000 ! application/x-rtp,media=video", "decodebin"),
        ("rtspsrc location=rtsp://c/1 ! rtph264depay", "decodebin"),
        (
            "rtspsrc location=rtsp://c/1 ! rtph264depay ! h264parse ! queue",
            "decodebin",
        ),
        ("filesrc location=x.mp4 ! qtdemux", "decodebin"),
        ("v4l2src ! video/x-h264,width=1280", "decodebin"),
    ] {
        let rewritten = PreparedLine::new(&line.to_owned().into(), MediaKind::Video).unwrap();
        let kept = line.trim_end_matches(" ! fakesink");
        assert_eq!(rewritten.launch, format!("{kept} ! {added} ! {SINK}"));
        let change = rewritten.changes.last().unwrap();
        assert!(change.starts_with("added `decodebin`"), "{change}");
    }
}

#[test]
fn a_line_that_delivers_raw_pictures_gets_no_decoder() {
    for line in [
        "v4l2src ! video/x-bayer,format=rggb ! bayer2rgb",
        "v4l2src ! video/x-raw(memory:DMABuf),width=640",
        "fdsrc ! rawvideoparse width=16 height=16",
        "udpsrc ! application/x-rtp ! rtpvrawdepay ! queue",
        "filesrc location=x ! decodebin",
    ] {
        let prepared = PreparedLine::new(&line.to_owned().into(), MediaKind::Video).unwrap();
        assert_eq!(prepared.launch, format!("{line} ! {SINK}"));
    }
}

#[test]
fn audio_is_converted_to_the_format_of_the_model() {
    let prepared = |line: &str| {
        let kind = MediaKind::Audio {
            sample_rate: 8000,
            channel: MicrophoneChannel::Auto,
        };
        PreparedLine::new(&line.to_owned().into(), kind).unwrap().launch
    };
    let format = "audio/x-raw,format=S16LE,layout=interleaved,rate=8000";
    let end = format!(
        "audioconvert dithering=none ! audioresample ! \
         capsfilter caps=\"{format},channels=1;{format},channels=[3,64],channel-mask=(bitmask)0\" ! {SINK}"
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
        assert_eq!(prepared(line), format!("{kept} ! {end}"));
    }
}

#[test]
fn branches_stay_and_the_one_with_the_encoder_feeds_the_model() {
    assert_eq!(
        prepared("v4l2src ! tee name=t t. ! queue ! jpegenc t. ! queue ! x264enc ! kvssink stream-name=s"),
        format!("v4l2src ! tee name=t t. ! queue ! {SINK} t. ! queue ! x264enc ! kvssink stream-name=s")
    );
    assert_eq!(
        prepared("v4l2src ! tee name=t ! queue ! kvssink t. ! queue ! videoconvert"),
        format!("v4l2src ! tee name=t ! queue ! kvssink t. ! queue ! videoconvert ! {SINK}")
    );
    assert_eq!(
        prepared("v4l2src ! tee name=t t. ! queue ! kvssink"),
        format!("v4l2src ! tee name=t ! queue ! {SINK} t. ! queue ! kvssink")
    );
}

#[test]
fn a_line_whose_only_sink_is_needed_is_an_error() {
    let error = PreparedLine::new(
        &"v4l2src ! x264enc ! kvssink stream-name=s".to_owned().into(),
        MediaKind::Video,
    )
    .unwrap_err();
    assert!(
        matches!(&error, CaptureError::NoOpenEnd { last, .. } if last == "kvssink"),
        "{error}"
    );
    assert!(error.to_string().contains("add `tee name=t`"));
    assert_eq!(
        PreparedLine::new(&"  ".to_owned().into(), MediaKind::Video).unwrap_err(),
        CaptureError::NoLine
    );
}
