//! `gst_args`: a gst-launch line with its spaces written as `:`.

use super::launch_tokens::{closing_indices, has_unquoted_space};

/// Maximum length of a line in bytes. The longest known line has about 600.
pub(super) const MAX_LENGTH: usize = 64 * 1024;

/// Decodes `text` into a launch line. `None` when `text` is empty, `__none__`, or longer than [`MAX_LENGTH`].
///
/// A text with white space outside quotes and brackets is already a launch line and is returned unchanged. Otherwise each `:`
/// becomes a space, except
/// - inside `(...)`, `[...]`, `{...}`, `<...>` and quotes that are closed: `video/x-raw(memory:NVMM)`;
/// - in `://`, and in the user and port part of the URI after it: `rtsp://user:pass@10.0.0.5:8554/cam`. A password with a
///   colon in it must be quoted, or written with `%3A`;
/// - before a digit in a device path: `/dev/v4l/by-path/pci-0000:00:14.0-usb-0:5:1.0-video-index0`;
/// - in the address of a sound card: `device=hw:1,0`, `device=plughw:CARD=C920`;
/// - as `\:`, which becomes `:`.
pub(super) fn decode(text: &str) -> Option<String> {
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed == "__none__" || text.len() > MAX_LENGTH {
        return None;
    }
    if has_unquoted_space(trimmed) {
        return Some(text.to_owned());
    }
    Some(replace_separators(trimmed))
}

fn replace_separators(text: &str) -> String {
    let closed_by = closing_indices(text);
    let mut line = String::with_capacity(text.len());
    let mut token = 0;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let taken = if rest.starts_with("\\:") {
            line.push(':');
            at += 2;
            continue;
        } else if closed_by[at] > 0 {
            closed_by[at] + 1 - at
        } else if let Some(authority) = rest.strip_prefix("://") {
            3 + authority_length(authority)
        } else if c == ':' && !is_in_device_path(&line[token..], &rest[1..]) {
            line.push(' ');
            token = line.len();
            at += 1;
            continue;
        } else {
            c.len_utf8()
        };
        line.push_str(&rest[..taken]);
        at += taken;
    }
    line
}

/// Length of `user:pass@host:port` at the start of `text`: the part of a URI in which a colon is no separator.
fn authority_length(text: &str) -> usize {
    let mut length = 0;
    while let Some(user) = user_length(&text[length..]) {
        length += user;
    }
    length += host_length(&text[length..]);
    length + port_length(&text[length..])
}

/// Length of `user@` or `user:pass@`, with the `@`.
fn user_length(text: &str) -> Option<usize> {
    let ends = |c: char| matches!(c, ':' | '@' | '/' | '?' | '#' | '"' | '\'') || c.is_whitespace();
    let first = text.find(ends)?;
    let end = if text[first..].starts_with(':') {
        first + 1 + text[first + 1..].find(ends)?
    } else {
        first
    };
    text[end..].starts_with('@').then_some(end + 1)
}

fn host_length(text: &str) -> usize {
    // An IPv6 address: `[fe80::1]`.
    if text.starts_with('[')
        && let Some(end) = text.find(']')
    {
        return end + 1;
    }
    text.find([':', '/', '?', '#', '\\', '"', '\'']).unwrap_or(text.len())
}

/// Length of `:8554` when the authority ends after the digits; 0 otherwise.
fn port_length(text: &str) -> usize {
    let Some(port) = text.strip_prefix(':') else { return 0 };
    let digits = port.len() - port.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let ended = port[digits..]
        .chars()
        .next()
        .is_none_or(|c| matches!(c, ':' | '/' | '?' | '#' | '"' | '\'' | ',' | ';'));
    if digits > 0 && ended { 1 + digits } else { 0 }
}

/// Whether a colon between `token` and `rest` belongs to a device path or the address of a sound card. No token of a launch line
/// starts with a digit.
fn is_in_device_path(token: &str, rest: &str) -> bool {
    let names_device = token.contains("/dev/") || token.starts_with("device=");
    names_device && (rest.starts_with(|c: char| c.is_ascii_digit()) || rest.starts_with("CARD="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::launch_tokens::split_tokens;
    use proptest::prelude::*;

    const TUTORIAL: &str = include_str!("../../tests/data/tutorial-gst_args.txt");

    fn decoded(text: &str) -> String {
        decode(text).expect("a pipeline")
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
            assert_eq!(decode(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_text_over_the_maximum_length_is_refused() {
        assert_eq!(decode(&"a".repeat(MAX_LENGTH + 1)), None);
        assert!(decode(&"a:".repeat(MAX_LENGTH / 2)).is_some());
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

    fn token() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z][a-z0-9]{0,8}",
            "[a-z]{1,6}=[a-z0-9/._-]{1,12}",
            Just("!".to_owned()),
            Just("t.".to_owned()),
            "(video/x-raw|image/jpeg)(\\(memory:(NVMM|DMABuf)\\))?,width=\\(int\\)[0-9]{1,4},framerate=[0-9]{1,2}/1",
            "location=(rtsp|http)://([a-z]{1,5}:[a-z0-9!=]{1,6}@)?(cam\\.local|10\\.0\\.0\\.5|\\[fe80::1\\])(:[0-9]{1,5})?/[a-z:0-9]{0,6}",
            "location=\"[a-z :!/\\[(]{0,12}\"",
            "caps=\"video/x-raw, format=\\{ NV12, I420 \\}\"",
            "device=/dev/[a-z0-9:.-]{1,12}",
            "x=[a-z:]{1,6}",
        ]
    }

    fn uri_tail() -> impl Strategy<Value = String> {
        "(rtsp|http)://([a-z]{1,5}:[a-z0-9]{1,6}@)?(cam\\.local|10\\.0\\.0\\.5|\\[fe80::1\\])(:[0-9]{1,5})?(/[a-z0-9/]{0,6})?"
    }

    proptest! {
        #[test]
        fn an_encoded_launch_line_decodes_to_itself(tokens in prop::collection::vec(token(), 2..12)) {
            let line = tokens.join(" ");
            prop_assert_eq!(decode(&encode(&line)), Some(line));
        }

        #[test]
        fn a_uri_needs_no_escapes(uri in uri_tail(), next in "(!|latency=0|[a-z]{1,5}=[a-z0-9]{1,5})") {
            let decoded = decode(&format!("rtspsrc:location={uri}:{next}"));
            prop_assert_eq!(decoded, Some(format!("rtspsrc location={uri} {next}")));
        }

        #[test]
        fn any_text_is_decoded_without_panic_and_never_longer(text in "[a-z:/\\\\@\\[\\](){}<>\"' é0-9!=.]{0,80}") {
            if let Some(line) = decode(&text) {
                prop_assert!(line.len() <= text.len());
            }
        }
    }
}
