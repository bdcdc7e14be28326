//! What sources deliver: formats, decoders, branches, channels.

use super::*;

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
fn a_file_plays_without_a_decoder_in_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = video_file(directory.path());
    let run = Run::unthrottled(&format!("filesrc location={path}"));
    assert_eq!(run.timestamps(), (0..20).map(|frame| frame * 50).collect::<Vec<_>>());
    assert_eq!(run.event(), CaptureEvent::EndOfStream);
}

/// The loudest sample of a source whose four channels have 10, 20, 40 and 80 percent of full scale.
fn loudest_of_four_channels(positions: &str, channel: MicrophoneChannel) -> i16 {
    use crate::capture::audio::{AudioFormat, AudioMailbox};
    use crate::capture::output::CaptureOutput;
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
