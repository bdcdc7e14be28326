//! The errors between a configured source and a running pipeline.

use gstreamer as gst;
use gstreamer::prelude::*;

use super::gst_args::MAX_LENGTH;
use super::packages::MissingElement;
use crate::util::panics::Panicked;
use crate::util::redact::{STARS, SecretWords};

/// Ends an error text that shows the decoded line.
const COLON_ADVICE: &str = "; if a colon of gst_args is missing in this line, write that colon as `\\:` to keep it";

/// Why a capture does not start, or why it ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// GStreamer itself does not start.
    #[error("GStreamer does not start: {0}; is libgstreamer1.0-0 with its plugins installed?")]
    Init(String),
    /// `gst_args` is empty or `__none__`.
    #[error(
        "gst_args names no pipeline; give a gst-launch line with spaces written as \":\", for example \"v4l2src:device=/dev/video0\""
    )]
    NoLine,
    /// A `{{secret:NAME:KEY}}` that is not complete, or in a place where no secret is accepted.
    #[error("{0}")]
    SecretReference(String),
    /// A secret that the line names cannot be read. The text has the reason and what to do about it.
    #[error("{0}")]
    Secret(String),
    /// The line is longer than [`MAX_LENGTH`].
    #[error("the pipeline has {length} bytes; the maximum is {max}", max = MAX_LENGTH)]
    TooLong {
        /// Bytes given.
        length: usize,
    },
    /// GStreamer cannot parse the line.
    #[error(
        "GStreamer cannot build the pipeline: {message}; {}the line as it was understood: {line}",
        at_word(word)
    )]
    Parse {
        /// GStreamer's own text.
        message: String,
        /// The part of the line that GStreamer names in its message.
        word: Option<String>,
        /// The line as decoded and rewritten, without passwords.
        line: String,
    },
    /// Elements that are not installed.
    #[error("not installed: {}; the line as it was understood: {line}", joined(elements))]
    MissingElements {
        /// All missing elements.
        elements: Vec<MissingElement>,
        /// The line as decoded and rewritten, without passwords.
        line: String,
    },
    /// No branch of the line has an open end.
    #[error(
        "the pipeline has no open end to take pictures from: each branch ends in a sink (the last is \"{last}\"); \
         add `tee name=t` before it and end the line in `t. ! queue ! videoconvert`; the line as it was understood: {line}"
    )]
    NoOpenEnd {
        /// The sink at the end of the last branch.
        last: String,
        /// The line, without passwords.
        line: String,
    },
    /// The end of the line delivers neither raw video nor JPEG.
    #[error(
        "the pipeline ends in {caps}, not in pictures; decode it (for example with `decodebin ! videoconvert`); \
         the line as it was understood: {line}"
    )]
    NotVideo {
        /// What the end delivers.
        caps: String,
        /// The line, without passwords.
        line: String,
    },
    /// An element reported an error.
    #[error("{element}: {message}{}{}", in_parentheses(debug), understood(line))]
    Element {
        /// Name of the element.
        element: String,
        /// GStreamer's own text.
        message: String,
        /// GStreamer's debug detail, shortened; may be empty.
        debug: String,
        /// The line without secrets, if it was decoded and may have been misread.
        line: Option<String>,
    },
    /// The pipeline does not start, and no element reported an error.
    #[error("the pipeline does not start and GStreamer gives no reason; the line as it was understood: {line}")]
    NoStart {
        /// The line, without passwords.
        line: String,
    },
    /// No camera is connected, or not the one that is wanted.
    #[error(
        "{}; {}, or give a pipeline in gst_args{}",
        not_found("camera", wanted),
        list_found(found, "--camera"),
        hint_text(hint)
    )]
    NoCamera {
        /// `--camera`
        wanted: Option<String>,
        /// The devices that are connected, one line each.
        found: Vec<String>,
        /// The probable cause, if known.
        hint: Option<String>,
    },
    /// No microphone is connected, or not the one that is wanted.
    #[error(
        "{}; {}, or give a pipeline in gst_args{}",
        not_found("microphone", wanted),
        list_found(found, "--microphone"),
        hint_text(hint)
    )]
    NoMicrophone {
        /// `--microphone`
        wanted: Option<String>,
        /// The devices that are connected, one line each.
        found: Vec<String>,
        /// The probable cause, if known.
        hint: Option<String>,
    },
    /// The pipeline started after its mailbox was reserved for another capture.
    #[error("the source started too late: the program has already abandoned this attempt")]
    GivenUp,
    /// A thread of the capture panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The operating system did not start a thread.
    #[error("cannot start a thread for the capture: {0}")]
    Thread(String),
}

impl CaptureError {
    /// The error that an element reported.
    pub(super) fn from_message(message: &gst::message::Error, secrets: &SecretWords) -> Self {
        let element = message
            .src()
            .map_or_else(|| "pipeline".to_owned(), |source| source.name().to_string());
        let debug = message.debug().map_or_else(String::new, |debug| debug.to_string());
        Self::Element {
            element: secrets.mask(&element),
            message: secrets.mask(message.error().message()),
            debug: shortened(&secrets.mask(&without_location(&debug))),
            line: None,
        }
    }

    /// Adds the advice on colons to an error of a decoded line, because a misread colon may be its cause.
    ///
    /// `decoded`: the line without secrets, for errors that do not show it.
    pub(super) fn with_colon_advice(mut self, decoded: &str) -> Self {
        match &mut self {
            Self::Parse { line, .. }
            | Self::MissingElements { line, .. }
            | Self::NoOpenEnd { line, .. }
            | Self::NotVideo { line, .. }
            | Self::NoStart { line } => line.push_str(COLON_ADVICE),
            Self::Element { line, .. } => *line = Some(format!("{decoded}{COLON_ADVICE}")),
            Self::Init(_)
            | Self::NoLine
            | Self::SecretReference(_)
            | Self::Secret(_)
            | Self::TooLong { .. }
            | Self::NoCamera { .. }
            | Self::NoMicrophone { .. }
            | Self::GivenUp
            | Self::Panicked(_)
            | Self::Thread(_) => {}
        }
        self
    }
}

/// GStreamer's debug detail is `file.c(123): function (): /GstPipeline:...:\nexplanation`. Only the lines after the
/// first one explain the error.
fn without_location(debug: &str) -> String {
    let lines: Vec<&str> = debug.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.split_first() {
        Some((_, rest)) if !rest.is_empty() => rest.join(" "),
        _ => debug.trim().to_owned(),
    }
}

fn at_word(word: &Option<String>) -> String {
    word.as_ref()
        .map_or_else(String::new, |word| format!("look at \"{word}\"; "))
}

fn not_found(kind: &str, wanted: &Option<String>) -> String {
    match wanted {
        Some(name) => format!("there is no {kind} \"{name}\""),
        None => format!("there is no {kind}"),
    }
}

fn list_found(found: &[String], option: &str) -> String {
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

fn joined(elements: &[MissingElement]) -> String {
    elements.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn in_parentheses(debug: &str) -> String {
    if debug.is_empty() {
        String::new()
    } else {
        format!(" ({debug})")
    }
}

fn understood(line: &Option<String>) -> String {
    line.as_ref()
        .map_or_else(String::new, |line| format!("; the line as it was understood: {line}"))
}

/// The part of the launch line that a message of GStreamer names: the first quoted word (`no element "foo"`), or the
/// element in `could not link foo0 to bar0`.
pub(super) fn offending_word(message: &str) -> Option<String> {
    let quoted = message.split('"').nth(1);
    let linked = || message.strip_prefix("could not link ")?.split([' ', ',']).next();
    let word = quoted.filter(|word| !word.is_empty()).or_else(linked);
    word.filter(|word| is_plain_name(word)).map(str::to_owned)
}

/// Whether the text can be the name of an element or a property. No other word of a launch line is repeated in an
/// error.
pub(super) fn is_plain_name(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.len() <= 64 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(is_part)
}

/// A message of GStreamer's parser with `***` in place of each quoted text that is not a plain name. A value may hold
/// quotes itself, so all of it is hidden.
pub(super) fn without_values(message: &str) -> String {
    const VALUE: &str = "\" to \"";
    let (start, value) = match message.split_once(VALUE) {
        Some((start, value)) => (format!("{start}\""), Some(value.trim_end_matches('"'))),
        None => (message.to_owned(), None),
    };
    let pieces: Vec<_> = start.split('"').collect();
    let shown = |(index, piece): (usize, &&str)| match index % 2 {
        1 if index + 1 < pieces.len() && !is_plain_name(piece) => STARS.to_owned(),
        _ => (*piece).to_owned(),
    };
    let mut text = pieces.iter().enumerate().map(shown).collect::<Vec<_>>().join("\"");
    if let Some(value) = value {
        let value = if is_plain_name(value) { value } else { STARS };
        text.push_str(&format!(" to \"{value}\""));
    }
    text
}

/// Longest text of GStreamer in an error, in characters.
const MAX_DETAIL: usize = 400;

pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_DETAIL) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn values_are_not_repeated_from_gstreamers_text() {
        for (message, shown) in [
            ("no element \"foo\"", "no element \"foo\""),
            ("no element \"Hunter2#x\"", "no element \"***\""),
            (
                "could not set property \"location\" in element \"filesrc0\" to \"a\"Hunter2 b\"",
                "could not set property \"location\" in element \"filesrc0\" to \"***\"",
            ),
            ("could not link a0 to b0", "could not link a0 to b0"),
        ] {
            assert_eq!(without_values(message), shown);
        }
        assert_eq!(offending_word("no element \"***\""), None);
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
