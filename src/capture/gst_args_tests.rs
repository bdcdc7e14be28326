use proptest::prelude::*;

use super::super::registry::GstRegistry;
use super::*;

const TUTORIAL: &str = include_str!("../../tests/data/tutorial-gst_args.txt");

/// Lines that people pasted, and what they mean.
const REAL: &str = include_str!("../../tests/data/gst_args-real.tsv");

/// Elements that are installed nowhere: only the grammar decides.
struct NothingInstalled;

impl ElementRegistry for NothingInstalled {
    fn is_element(&self, _name: &str) -> bool {
        false
    }

    fn has_property(&self, _element: &str, _property: &str) -> Option<bool> {
        None
    }
}

fn decoded(text: &str) -> String {
    decode(text, &GstRegistry).expect("a pipeline")
}

#[test]
fn the_lines_that_people_paste_are_decoded() {
    let mut wrong = Vec::new();
    let lines: Vec<_> = REAL.lines().filter_map(|line| line.split_once('\t')).collect();
    assert!(lines.len() > 20);
    for (text, line) in lines {
        for registry in [&GstRegistry as &dyn ElementRegistry, &NothingInstalled] {
            let decoded = decode(text, registry).expect("a pipeline");
            if decoded != line {
                wrong.push(format!("{text}\n  got  {decoded}\n  want {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn other_ways_of_writing_a_line_are_understood() {
    for (text, line) in [
        // A command copied from a terminal or a script.
        (
            "GST_DEBUG=3 gst-launch-1.0 -e -v v4l2src ! videoconvert",
            "v4l2src ! videoconvert",
        ),
        (
            "/usr/bin/gst-launch-1.0:-q:v4l2src:!:videoconvert",
            "v4l2src ! videoconvert",
        ),
        (
            "gst-launch-1.0 v4l2src device=/dev/video0 \\\n  ! videoconvert \\\n  ! jpegenc",
            "v4l2src device=/dev/video0    ! videoconvert    ! jpegenc",
        ),
        (r"v4l2src \! videoconvert", "v4l2src ! videoconvert"),
        ("'v4l2src ! videoconvert'", "v4l2src ! videoconvert"),
        (
            r#"rtspsrc "location=rtsp://u:p@h/x?a=1&b=2" ! decodebin"#,
            "rtspsrc location=rtsp://u:p@h/x?a=1&b=2 ! decodebin",
        ),
        (
            r#"filesrc "location=/a b.mp4" ! decodebin"#,
            r#"filesrc location="/a b.mp4" ! decodebin"#,
        ),
        (
            r#"v4l2src:!:"video/x-raw,width=640":!:videoconvert"#,
            "v4l2src ! video/x-raw,width=640 ! videoconvert",
        ),
        (
            "GST_DEBUG=2 DISPLAY=:0 gst-launch-1.0 -e --gst-debug=v4l2*:5 --gst-debug-level 2 v4l2src ! fakesink",
            "v4l2src ! fakesink",
        ),
        (
            "pi@raspberrypi:~ $ gst-launch-1.0 v4l2src ! fakesink 2>&1 | tee log.txt",
            "v4l2src ! fakesink",
        ),
        ("gst-launch-1.0.exe v4l2src ! fakesink &", "v4l2src ! fakesink"),
        ("v4l2src ! videoconvert # my camera", "v4l2src ! videoconvert"),
        (
            "filesrc location=/opt/gst-launch-1.0 ! decodebin",
            "filesrc location=/opt/gst-launch-1.0 ! decodebin",
        ),
        // Text from a web page or an editor, and text that was escaped twice.
        ("v4l2src\u{a0}io-mode=2\u{a0}! queue", "v4l2src io-mode=2 ! queue"),
        (
            "v4l2src ! \u{201c}video/x-raw,width=640\u{201d} ! videoconvert",
            "v4l2src ! video/x-raw,width=640 ! videoconvert",
        ),
        (
            "rtspsrc:location=rtsp://u:\u{201c}x\u{201d}@10.0.0.5/x:latency=0",
            "rtspsrc location=rtsp://u:\u{201c}x\u{201d}@10.0.0.5/x latency=0",
        ),
        (
            r#"udpsrc:caps=\"application/x-rtp, payload=96\":!:rtpjpegdepay"#,
            r#"udpsrc caps="application/x-rtp, payload=96" ! rtpjpegdepay"#,
        ),
        (
            r#""udpsrc caps=\"application/x-rtp, payload=96\" ! rtpjpegdepay""#,
            r#"udpsrc caps="application/x-rtp, payload=96" ! rtpjpegdepay"#,
        ),
        (
            r#"rtspsrc:location=rtsp://u:a\"b@10.0.0.5/x:latency=0"#,
            r#"rtspsrc location=rtsp://u:a\"b@10.0.0.5/x latency=0"#,
        ),
        // The quotes of a value with spaces round the sign are no quotes of a shell.
        (
            r#"udpsrc caps = "application/x-rtp, payload=96" ! "application/x-rtp, payload=96" ! rtpjpegdepay"#,
            r#"udpsrc caps = "application/x-rtp, payload=96" ! application/x-rtp, payload=96 ! rtpjpegdepay"#,
        ),
        // Colons and white space in one line.
        (
            "v4l2src:device=/dev/video0 ! video/x-raw, width=640 ! videoconvert",
            "v4l2src device=/dev/video0 ! video/x-raw, width=640 ! videoconvert",
        ),
        ("v4l2src :!: videoconvert", "v4l2src  !  videoconvert"),
        // Values with colons.
        (
            "videotestsrc:!:video/x-raw,colorimetry=2:4:7:1:!:videoconvert",
            "videotestsrc ! video/x-raw,colorimetry=2:4:7:1 ! videoconvert",
        ),
        (
            "srtsrc:uri=srt://h:8890?streamid=#!::r=live/cam,m=request:latency=200:!:tsdemux",
            "srtsrc uri=srt://h:8890?streamid=#!::r=live/cam,m=request latency=200 ! tsdemux",
        ),
        (
            "rtspsrc:location=rtsp://admin:key=9:a@b/c@10.0.0.5:554/x:latency=0:!:decodebin",
            "rtspsrc location=rtsp://admin:key=9:a@b/c@10.0.0.5:554/x latency=0 ! decodebin",
        ),
        (
            "rtspsrc:location=rtsp://10.0.0.5/x:user-id=a@b:user-pw=c:d!e:latency=0",
            "rtspsrc location=rtsp://10.0.0.5/x user-id=a@b user-pw=c:d!e latency=0",
        ),
        (
            "pulsesrc:device=bluez_source.AA:BB:CC:DD:EE:FF.a2dp:!:audioconvert",
            "pulsesrc device=bluez_source.AA:BB:CC:DD:EE:FF.a2dp ! audioconvert",
        ),
        (
            "rtspsrc:location=rtsp://h/x:name=s:s.:!:queue:s.:!:queue",
            "rtspsrc location=rtsp://h/x name=s s. ! queue s. ! queue",
        ),
        // A property that does not exist stays a word of its own, so that GStreamer names it.
        (
            "v4l2src:device=/dev/video0:devise-fd=1:!:videoconvert",
            "v4l2src device=/dev/video0 devise-fd=1 ! videoconvert",
        ),
        ("v4l2src:io-mod=2:!:videoconvert", "v4l2src io-mod=2 ! videoconvert"),
    ] {
        assert_eq!(decoded(text), line, "{text}");
    }
}

#[test]
fn the_lines_of_the_tutorial_are_decoded() {
    let lines: Vec<_> = TUTORIAL.lines().map(decoded).collect();
    assert_eq!(
        lines,
        [
            "v4l2src device=/dev/video0 ! video/x-raw,width=640,height=480 ! videoconvert ! jpegenc",
            "filesrc location=/home/ggc_user/data/testSample.mp4 ! decodebin ! videoconvert ! videorate ! \
             video/x-raw,framerate=2200/1 ! jpegenc",
        ]
    );
}

#[test]
fn an_empty_text_is_no_pipeline() {
    for text in ["", "  \n", "__none__", " __none__\n"] {
        assert_eq!(decode(text, &GstRegistry), None, "{text:?}");
    }
}

#[test]
fn a_text_over_the_maximum_length_is_refused() {
    assert_eq!(decode(&"a".repeat(MAX_LENGTH + 1), &GstRegistry), None);
    for text in ["a:", "://", "a::", ":a=", "(\"'", "name=a:", "a.:", "://u:p@", ":!"] {
        let text = text.repeat(MAX_LENGTH / text.len());
        assert!(decode(&text, &GstRegistry).is_some());
    }
}

#[test]
fn a_launch_line_stays_as_it_is() {
    let line = "v4l2src device=/dev/video0 ! video/x-raw(memory:NVMM) ! a:b";
    assert_eq!(decoded(line), line);
}

#[test]
fn colons_that_belong_to_a_token_stay() {
    let cases = [
        (
            "nvarguscamerasrc:!:video/x-raw(memory:NVMM),width=1:!:x",
            "nvarguscamerasrc ! video/x-raw(memory:NVMM),width=1 ! x",
        ),
        (
            "rtspsrc:location=rtsp://h/x:latency=0",
            "rtspsrc location=rtsp://h/x latency=0",
        ),
        (
            "rtsp://user:pass@10.0.0.5:8554/cam:latency=0",
            "rtsp://user:pass@10.0.0.5:8554/cam latency=0",
        ),
        (
            "rtspsrc:location=rtsp://u@h:554/x:!:y",
            "rtspsrc location=rtsp://u@h:554/x ! y",
        ),
        (
            "rtspsrc:location=rtsp://u:p@ss@h:554:!:y",
            "rtspsrc location=rtsp://u:p@ss@h:554 ! y",
        ),
        ("souphttpsrc:location=http://h:!:y", "souphttpsrc location=http://h ! y"),
        (
            "souphttpsrc:location=http://h:8080:!:y",
            "souphttpsrc location=http://h:8080 ! y",
        ),
        (
            "souphttpsrc:location=http://h:!:y:user=a@b",
            "souphttpsrc location=http://h ! y user=a@b",
        ),
        (
            "rtspsrc:location=rtsp://[fe80::1]:554/x:!:y",
            "rtspsrc location=rtsp://[fe80::1]:554/x ! y",
        ),
        (
            "rtspsrc:location=rtsp://u:p@[fe80::1]:554/x:!:y",
            "rtspsrc location=rtsp://u:p@[fe80::1]:554/x ! y",
        ),
        ("filesrc:location=file:///a/b:!:y", "filesrc location=file:///a/b ! y"),
        (
            r#"rtspsrc:location="rtsp://u:p@h:1/a:b":!:y"#,
            r#"rtspsrc location="rtsp://u:p@h:1/a:b" ! y"#,
        ),
        (
            r#"filesrc:location="/a b:c.mp4":!:y"#,
            r#"filesrc location="/a b:c.mp4" ! y"#,
        ),
        (r"filesrc:location=/a\:b.mp4:!:y", "filesrc location=/a:b.mp4 ! y"),
        (
            "v4l2src:device=/dev/v4l/by-id/usb-046d_C920-video-index0:!:y",
            "v4l2src device=/dev/v4l/by-id/usb-046d_C920-video-index0 ! y",
        ),
        (
            "v4l2src:device=/dev/v4l/by-path/pci-0000:00:14.0-usb-0:5:1.0-video-index0:!:y",
            "v4l2src device=/dev/v4l/by-path/pci-0000:00:14.0-usb-0:5:1.0-video-index0 ! y",
        ),
        ("alsasrc:device=hw:1,0:!:y", "alsasrc device=hw:1,0 ! y"),
        (
            "alsasrc:device=plughw:CARD=C920,DEV=0:provide-clock=false:!:y",
            "alsasrc device=plughw:CARD=C920,DEV=0 provide-clock=false ! y",
        ),
        (
            "x:caps=video/x-raw,format={NV12:I420}:!:y",
            "x caps=video/x-raw,format={NV12:I420} ! y",
        ),
        ("filesrc:location=/o'brien/(x:!:y", "filesrc location=/o'brien/(x ! y"),
    ];
    for (text, line) in cases {
        assert_eq!(decoded(text), line, "{text}");
    }
}

/// The opposite of [`decode`]: with a backslash before each colon that must stay.
fn encode(line: &str) -> String {
    let escaped = |token: &str| {
        let closed_by = closing_indices(token);
        let mut text = String::new();
        let mut skip_to = 0;
        for (at, c) in token.char_indices() {
            if at >= skip_to && closed_by[at] > 0 {
                skip_to = closed_by[at] + 1;
            }
            if c == ':' && at >= skip_to {
                text.push('\\');
            }
            text.push(c);
        }
        text
    };
    split_tokens(line)
        .into_iter()
        .map(escaped)
        .collect::<Vec<_>>()
        .join(":")
}

/// Elements and properties of the generated lines.
struct Generated;

impl ElementRegistry for Generated {
    fn is_element(&self, name: &str) -> bool {
        ["rtspsrc", "videoconvert", "queue", "tee", "alsasrc", "mixer"].contains(&name)
    }

    fn has_property(&self, element: &str, property: &str) -> Option<bool> {
        let properties = ["location", "latency", "device", "name", "text", "caps", "user-id"];
        self.is_element(element).then(|| properties.contains(&property))
    }
}

fn assignment() -> impl Strategy<Value = String> {
    prop_oneof![
        "latency=[0-9]{1,4}",
        "text=[A-Za-z0-9/._%-]{1,12}",
        "location=(rtsp|http)://([a-z]{1,5}:[a-z0-9!=]{1,6}@)?(cam\\.local|10\\.0\\.0\\.5|\\[fe80::1\\])(:[0-9]{1,5})?/[a-z:0-9]{0,6}",
        "location=\"[a-z :!/\\[(]{0,12}\"",
        "caps=\"video/x-raw, format=\\{ NV12, I420 \\}\"",
        "device=/dev/[a-z0-9:.-]{1,12}",
        "text=[a-z:]{1,6}",
    ]
}

fn node() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["rtspsrc", "videoconvert", "queue", "alsasrc", "foreign-element"]);
    let element = (name, prop::collection::vec(assignment(), 0..3)).prop_map(|(name, properties)| {
        let words = std::iter::once(name.to_owned()).chain(properties);
        words.collect::<Vec<_>>().join(" ")
    });
    prop_oneof![
        4 => element,
        1 => "(video/x-raw|image/jpeg)(\\(memory:(NVMM|DMABuf)\\))?,width=\\(int\\)[0-9]{1,4},framerate=[0-9]{1,2}/1",
    ]
}

fn launch_line() -> impl Strategy<Value = String> {
    let chain = |most| prop::collection::vec(node(), 2..most).prop_map(|nodes| nodes.join(" ! "));
    (chain(4), prop::collection::vec(chain(4), 0..3)).prop_map(|(first, branches)| {
        let mut line = format!("queue ! {first} ! tee name=t");
        for branch in branches {
            line.push_str(" t. ! ");
            line.push_str(&branch);
        }
        line
    })
}

/// Any printable characters without the ones that end a word for certain.
fn printable() -> impl Strategy<Value = String> {
    "[!-\\[\\]-~éß€]{1,16}".prop_filter("a link or a property of the element", |text| {
        let is_property = |property: &str| text.contains(&format!("{property}="));
        !text.contains(":!:")
            && !text.ends_with(":!")
            && !["location", "latency", "device", "name", "text", "caps", "user-id"]
                .iter()
                .any(|p| is_property(p))
    })
}

proptest! {
    #[test]
    fn an_encoded_launch_line_decodes_to_itself(line in launch_line()) {
        prop_assert_eq!(decode(&encode(&line), &Generated), Some(line));
    }

    #[test]
    fn passwords_need_no_escapes(password in printable(), host in "(cam\\.local|10\\.0\\.0\\.5|\\[fe80::1\\])(:[0-9]{1,5})?") {
        let uri = format!("rtsp://admin:{password}@{host}/ch0");
        prop_assume!(!uri.contains(":!:"));
        let decoded = decode(&format!("rtspsrc:location={uri}:latency=0:!:videoconvert"), &Generated);
        prop_assert_eq!(decoded, Some(format!("rtspsrc location={uri} latency=0 ! videoconvert")));
    }

    #[test]
    fn queries_need_no_escapes(query in printable(), path in "(/[A-Za-z0-9._:-]{1,12}){1,3}") {
        let uri = format!("rtsp://cam.local:554{path}?{query}");
        let decoded = decode(&format!("rtspsrc:location={uri}:latency=0:!:videoconvert"), &Generated);
        prop_assert_eq!(decoded, Some(format!("rtspsrc location={uri} latency=0 ! videoconvert")));
    }

    #[test]
    fn any_text_is_decoded_without_panic(text in "[a-z:/\\\\@\\[\\](){}<>\"' é0-9!=.\n-]{0,80}") {
        let _ = decode(&text, &NothingInstalled);
        let _ = decode(&text, &GstRegistry);
    }
}
