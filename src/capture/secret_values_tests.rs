use gstreamer as gst;
use gstreamer::prelude::*;
use proptest::prelude::*;

use super::*;
use crate::capture::launch_line::{MediaKind, PreparedLine, decode_source};
use crate::config::SourceLine;

/// Gives the same value for each reference.
#[derive(Debug)]
struct FixedResolver(&'static str);

impl SecretResolver for FixedResolver {
    fn resolve(&self, references: &[SecretReference]) -> Result<Vec<Secret>, String> {
        Ok(references.iter().map(|_| Secret::new(self.0)).collect())
    }
}

fn prepared(line: &str, value: &'static str) -> Result<PreparedLine, CaptureError> {
    let text = decode_source(&SourceLine(line.to_owned()))?;
    let mut prepared = PreparedLine::new(&text, MediaKind::Video)?;
    prepared.insert_secrets(Some(&FixedResolver(value)))?;
    Ok(prepared)
}

/// The property `location` of the first element, as GStreamer read it.
fn location(line: &str, value: &'static str) -> String {
    let prepared = prepared(line, value).unwrap();
    let (pipeline, _) = prepared.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
    let elements: Vec<gst::Element> = pipeline.iterate_sources().into_iter().flatten().collect();
    elements[0].property::<Option<String>>("location").unwrap_or_default()
}

/// Characters that a launch line, a shell, a URI or GStreamer's own quoting reads in a special way.
const DIFFICULT: &str = " a\"b'c\\d:e!f@g#h/i?j%k&l=m{n}o\\";

#[test]
fn a_value_of_any_characters_reaches_its_property() {
    for value in [
        DIFFICULT,
        "\\",
        "\"quoted\"",
        "'x'",
        "NULL",
        "!",
        ":!:",
        "a ! b",
        "pässwörd",
        "a\nb",
        "{{secret:a:b}}",
        "x=\"y",
    ] {
        for line in [
            "filesrc location={{secret:cam:file}} ! decodebin",
            "filesrc:location={{secret:cam:file}}:!:decodebin:!:jpegenc",
            "filesrc location = {{secret:cam:file}} ! decodebin",
            "filesrc location=\"{{secret:cam:file}}\" ! decodebin ! capsfilter caps=\"video/x-raw\"",
            "filesrc:location={{secret:arn:aws:secretsmanager:eu-west-1:123456789012:secret:cam-AbCdEf:file}}:!:decodebin",
        ] {
            assert_eq!(location(line, value), value, "{line}");
        }
    }
    assert_eq!(
        location("filesrc location=\"/a b/{{secret:cam:dir}}/c\" ! decodebin", "x y"),
        "/a b/x y/c"
    );
}

#[test]
fn a_value_within_a_uri_is_percent_encoded_and_a_whole_uri_is_not() {
    for (line, value, uri) in [
        (
            "filesrc location=rtsp://{{secret:cam:user}}:{{secret:cam:pw}}@h:554/x?a=b ! decodebin",
            "a b@c:d/e",
            "rtsp://a%20b%40c%3Ad%2Fe:a%20b%40c%3Ad%2Fe@h:554/x?a=b",
        ),
        (
            "filesrc:location=rtsp://admin:{{secret:cam:pw}}@h:554/x:!:decodebin",
            "p#?&",
            "rtsp://admin:p%23%3F%26@h:554/x",
        ),
        (
            "filesrc location=http://h/x?token={{secret:cam:token}} ! decodebin",
            "a&b=c",
            "http://h/x?token=a%26b%3Dc",
        ),
        (
            "filesrc location={{secret:cam:uri}} ! decodebin",
            "rtsp://a:b@h/x?y=z",
            "rtsp://a:b@h/x?y=z",
        ),
        (
            "filesrc location=http://h/{{secret:cam:path}} ! decodebin",
            "a/b?c=d",
            "http://h/a/b?c=d",
        ),
    ] {
        assert_eq!(location(line, value), uri, "{line}");
    }
}

#[test]
fn a_value_in_a_structure_keeps_its_field() {
    for fields in [
        r#"extra-headers="a,Authorization=(string){{secret:api:token}}""#,
        r#"extra-headers="a,Authorization=(string)\"{{secret:api:token}}\"""#,
        r#"extra-headers="a,Authorization=\"{{secret:api:token}}\"""#,
    ] {
        for value in ["Bearer a,b=c", "x\"y\\", "a;b"] {
            let line = format!("souphttpsrc location=http://h/ {fields} ! decodebin");
            let prepared = prepared(&line, value).unwrap();
            let (pipeline, _) = prepared.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
            let source: gst::Element = pipeline.iterate_sources().into_iter().flatten().next().unwrap();
            let headers = source.property::<gst::Structure>("extra-headers");
            assert_eq!(headers.get::<String>("Authorization").unwrap(), value, "{line}");
        }
    }
}

#[test]
fn the_reference_is_shown_and_the_value_is_hidden_in_every_text() {
    let line = "filesrc location=rtsp://admin:{{secret:cam:pw}}@h/x user-pw={{secret:cam:pw}} ! decodebin";
    let prepared = prepared(line, "Hunter 2#x").unwrap();
    assert!(
        prepared
            .shown
            .starts_with("filesrc location=rtsp://admin:{{secret:cam:pw}}@h/x user-pw={{secret:cam:pw}} ! decodebin"),
        "{}",
        prepared.shown
    );
    assert!(
        prepared.launch.contains(r"Hunter\\045202\\04523x"),
        "{}",
        prepared.launch
    );
    let error = prepared.parse().unwrap_err().to_string();
    assert!(error.contains("user-pw") && !error.contains("Hunter"), "{error}");
    for text in [
        "cannot open Hunter 2#x",
        "at Hunter%202%23x",
        r"is Hunter\0402\043x",
        "no Hunter",
    ] {
        let shown = prepared.secrets.mask(text);
        assert!(shown.contains("***") && !shown.contains("Hunter"), "{shown}");
    }
}

#[test]
fn a_reference_that_is_broken_or_misplaced_is_refused_with_the_notation() {
    for (line, part) in [
        ("filesrc location={{secret:cam ! decodebin", "write {{secret:NAME:KEY}}"),
        ("filesrc location={{secret:}} ! decodebin", "write {{secret:NAME:KEY}}"),
        ("{{secret:cam:line}} ! decodebin", "not for elements"),
        (
            "videotestsrc ! video/x-raw, width={{secret:cam:width}} ! videoconvert",
            "not for elements",
        ),
        (
            "videotestsrc ! video/x-raw,width={{secret:cam:width}} ! videoconvert",
            "not for elements",
        ),
    ] {
        let error = prepared(line, "Hunter2").unwrap_err();
        let shown = error.to_string();
        assert!(matches!(error, CaptureError::SecretReference(_)), "{error:?}");
        assert!(shown.contains(part) && !shown.contains("Hunter2"), "{shown}");
    }
}

#[test]
fn a_number_may_come_from_a_secret_and_check_leaves_it_out() {
    let line = "videotestsrc num-buffers={{secret:cam:count}} ! videoconvert";
    prepared(line, "7").unwrap().parse().unwrap();
    let text = decode_source(&SourceLine(line.to_owned())).unwrap();
    let mut checked = PreparedLine::new(&text, MediaKind::Video).unwrap();
    checked.without_secrets().unwrap();
    checked.parse().unwrap();
    assert!(
        checked.shown.contains("num-buffers={{secret:cam:count}}"),
        "{}",
        checked.shown
    );
}

proptest! {
    #[test]
    fn any_printable_value_reaches_its_property(value in "[ -~]{1,24}", encoded in any::<bool>()) {
        let text = if encoded {
            "filesrc:location={{secret:cam:file}}:!:decodebin:!:jpegenc"
        } else {
            "filesrc location={{secret:cam:file}} ! decodebin"
        };
        let value: &'static str = Box::leak(value.into_boxed_str());
        prop_assert_eq!(location(text, value), value);
    }
}
