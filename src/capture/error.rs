//! What can go wrong between the configured line and a running pipeline, in sentences.

use super::gst_args::MAX_LENGTH;
use super::packages::MissingElement;
use crate::util::panics::Panicked;

/// Why there are no frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// GStreamer itself does not start.
    #[error("GStreamer does not start: {0}; is libgstreamer1.0-0 with its plugins installed?")]
    Init(String),
    /// `__none__` or nothing.
    #[error(
        "gst_args names no pipeline; give a gst-launch line with spaces written as \":\", for example \"v4l2src:device=/dev/video0\""
    )]
    NoLine,
    /// Longer than [`MAX_LENGTH`].
    #[error("the pipeline has {length} bytes; at most {max} are read", max = MAX_LENGTH)]
    TooLong {
        /// Bytes given.
        length: usize,
    },
    /// GStreamer cannot read the line.
    #[error(
        "GStreamer cannot build the pipeline: {message}; {}the line as it was understood: {line}",
        at_word(word)
    )]
    Parse {
        /// GStreamer's own text.
        message: String,
        /// The word it stumbled over, where it says so.
        word: Option<String>,
        /// The line as it was decoded and changed, without passwords.
        line: String,
    },
    /// Elements that are not installed.
    #[error("not installed: {}; the line as it was understood: {line}", list(elements))]
    MissingElements {
        /// All of them.
        elements: Vec<MissingElement>,
        /// The line as it was decoded and changed, without passwords.
        line: String,
    },
    /// Every branch ends in a sink.
    #[error(
        "the pipeline has no open end to take pictures from: each branch ends in a sink (the last is \"{last}\"); \
         add `tee name=t` before it and end the line in `t. ! queue ! videoconvert`; the line as it was understood: {line}"
    )]
    NoOpenEnd {
        /// The sink at the end.
        last: String,
        /// The line, without passwords.
        line: String,
    },
    /// The end gives neither raw video nor JPEG.
    #[error(
        "the pipeline ends in {caps}, not in pictures; decode it (for example with `decodebin ! videoconvert`); \
         the line as it was understood: {line}"
    )]
    NotVideo {
        /// What the end gives.
        caps: String,
        /// The line, without passwords.
        line: String,
    },
    /// An element reported an error, at the start or while it ran.
    #[error("{element}: {message}{}", detail(debug))]
    Element {
        /// Name of the element.
        element: String,
        /// GStreamer's own text.
        message: String,
        /// GStreamer's debug detail, shortened; empty when there is none.
        debug: String,
    },
    /// The pipeline refused to start and no element said why.
    #[error("the pipeline does not start and GStreamer gives no reason; the line as it was understood: {line}")]
    NoStart {
        /// The line, without passwords.
        line: String,
    },
    /// No camera, or not the one that is wanted.
    #[error(
        "{}; {}, or give a pipeline in gst_args{}",
        looked_for("camera", wanted),
        found_list(found, "--camera"),
        hint_text(hint)
    )]
    NoCamera {
        /// `--camera`
        wanted: Option<String>,
        /// What is there, one line each.
        found: Vec<String>,
        /// What may be the cause, where the machine shows it.
        hint: Option<String>,
    },
    /// No microphone, or not the one that is wanted.
    #[error(
        "{}; {}, or give a pipeline in gst_args{}",
        looked_for("microphone", wanted),
        found_list(found, "--microphone"),
        hint_text(hint)
    )]
    NoMicrophone {
        /// `--microphone`
        wanted: Option<String>,
        /// What is there, one line each.
        found: Vec<String>,
        /// What may be the cause.
        hint: Option<String>,
    },
    /// It came up after it had been given up.
    #[error("the source came up so late that it had been given up")]
    GivenUp,
    /// A thread of the capture panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The operating system gave no thread.
    #[error("no thread for the capture: {0}")]
    Thread(String),
}

fn at_word(word: &Option<String>) -> String {
    word.as_ref()
        .map_or_else(String::new, |word| format!("look at \"{word}\"; "))
}

fn looked_for(kind: &str, wanted: &Option<String>) -> String {
    match wanted {
        Some(name) => format!("there is no {kind} \"{name}\""),
        None => format!("there is no {kind}"),
    }
}

/// What is there, and what can be done with it.
fn found_list(found: &[String], option: &str) -> String {
    match found {
        [] => "none was found; plug one in".to_owned(),
        found => format!(
            "found: {}; plug one in, name one of these with {option}",
            found.join("; ")
        ),
    }
}

fn hint_text(hint: &Option<String>) -> String {
    hint.as_ref().map_or_else(String::new, |hint| format!(". {hint}"))
}

fn list(elements: &[MissingElement]) -> String {
    elements.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn detail(debug: &str) -> String {
    if debug.is_empty() {
        String::new()
    } else {
        format!(" ({debug})")
    }
}

/// Properties whose value is a secret.
const SECRET_PROPERTIES: [&str; 9] = [
    "user-pw=",
    "proxy-pw=",
    "password=",
    "passphrase=",
    "secret-key=",
    "access-key=",
    "session-token=",
    "auth-token=",
    "token=",
];

/// `text` with passwords of URIs and secret properties written as `***`.
pub(super) fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(property) = SECRET_PROPERTIES.iter().find(|property| rest.starts_with(**property)) {
            clean.push_str(property);
            clean.push_str("***");
            rest = after_value(&rest[property.len()..]);
        } else if let Some(authority) = rest.strip_prefix("://") {
            clean.push_str("://");
            let end = authority
                .find(|c: char| matches!(c, '/' | '"' | '\'') || c.is_whitespace())
                .unwrap_or(authority.len());
            rest = authority;
            if let Some(at) = authority[..end].rfind('@')
                && let Some(colon) = authority[..at].find(':')
            {
                clean.push_str(&authority[..colon]);
                clean.push_str(":***");
                rest = &authority[at..];
            }
        } else {
            clean.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    clean
}

/// What follows a property's value.
fn after_value(text: &str) -> &str {
    let (start, closer): (usize, fn(char) -> bool) = match text.chars().next() {
        Some('"') => (1, |c| c == '"'),
        Some('\'') => (1, |c| c == '\''),
        _ => (0, char::is_whitespace),
    };
    let end = text[start..].find(closer).map_or(text.len(), |end| start + end + start);
    &text[end..]
}

/// The first word in quotes of one of GStreamer's messages (`no element "foo"`), or the element named in
/// `could not link foo0 to bar0`.
pub(super) fn offending_word(message: &str) -> Option<String> {
    let quoted = message.split('"').nth(1).filter(|word| !word.is_empty());
    let linked = || message.strip_prefix("could not link ")?.split([' ', ',']).next();
    quoted.or_else(linked).map(str::to_owned)
}

/// Longest debug detail that is passed on, in characters.
const DEBUG_LENGTH: usize = 400;

pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(DEBUG_LENGTH) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (text, clean) in [
            (
                "rtspsrc location=rtsp://u:secret@h:1/x latency=0",
                "rtspsrc location=rtsp://u:***@h:1/x latency=0",
            ),
            ("a user-pw=secret b", "a user-pw=*** b"),
            (
                "kvssink access-key=\"x y\" secret-key='q' z",
                "kvssink access-key=*** secret-key=*** z",
            ),
            ("rtsp://h:554/a:b@c", "rtsp://h:554/a:b@c"),
            ("password=", "password=***"),
        ] {
            assert_eq!(redact(text), clean);
        }
    }

    #[test]
    fn the_offending_word_is_found_in_gstreamers_text() {
        assert_eq!(offending_word("no element \"foo\"").as_deref(), Some("foo"));
        assert_eq!(
            offending_word("no property \"bar\" in element \"queue0\"").as_deref(),
            Some("bar")
        );
        assert_eq!(offending_word("could not link a0 to b0").as_deref(), Some("a0"));
        assert_eq!(offending_word("syntax error"), None);
    }

    #[test]
    fn a_missing_element_names_its_package() {
        let error = CaptureError::MissingElements {
            elements: vec![MissingElement::new("x264enc"), MissingElement::new("nosuch")],
            line: "x264enc ! nosuch".to_owned(),
        };
        let text = error.to_string();
        assert!(text.contains("\"x264enc\" (in gstreamer1.0-plugins-ugly)"), "{text}");
        assert!(text.contains("\"nosuch\" (package not known"), "{text}");
    }
}
