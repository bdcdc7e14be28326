//! What happens to the launch line before GStreamer gets it. It was written for a program that stored JPEG files; this one
//! wants raw frames in ordinary memory at its end, or sound as the model hears it.
//!
//! Which end, when the line has branches (`tee`): the last one that ends in a JPEG encoder (for sound: a sound encoder); else the last that is open
//! (ends in no sink; an open `tee` gets one more branch, behind a `queue`); else the last whose sink only stores, shows
//! or throws away pictures. All other branches stay as they are.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::elements::{
    AFTER_ENCODER, BYTES, ENCODERS, JPEG_SOURCES, NVIDIA_MEMORY, PASS_THROUGH, SOUND, SOUND_ENCODERS, SPARE_SINKS,
};
use super::error::{CaptureError, offending_word, redact, shortened};
use super::gst_args;
use super::launch_tokens::{self, Chain, Kind, Segment};
use super::packages::MissingElement;
use crate::config::SourceLine;
use crate::model::ModelInput;

/// Name of the element that hands the frames over; it shows up in GStreamer's messages.
pub(super) const SINK_NAME: &str = "frames-for-the-model";

/// What the end of a line is to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// Raw frames in ordinary memory.
    Pictures,
    /// 16-bit mono sound.
    Sound {
        /// Samples per second.
        frequency: u32,
    },
}

impl MediaKind {
    /// What a model is fed with; `None`: it wants another sensor.
    fn of(input: &ModelInput) -> Option<Self> {
        match *input {
            ModelInput::Image { .. } => Some(Self::Pictures),
            ModelInput::Audio { frequency, .. } => Some(Self::Sound { frequency }),
            ModelInput::Unsupported(_) => None,
        }
    }

    fn encoders(self) -> &'static [&'static str] {
        match self {
            Self::Pictures => &ENCODERS,
            Self::Sound { .. } => &SOUND_ENCODERS,
        }
    }

    /// What the model is fed with.
    fn food(self) -> &'static str {
        match self {
            Self::Pictures => "raw frames",
            Self::Sound { .. } => "raw samples",
        }
    }
}

/// Frequency of most audio models, for [`describe`] where no model is known.
const USUAL_FREQUENCY: u32 = 16_000;

/// What `check` tells about a line, found out without starting anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineDescription {
    /// The line as decoded, without passwords.
    pub line: String,
    /// What would run, without passwords.
    pub runs: String,
    /// What was changed and why, one sentence each.
    pub changes: Vec<String>,
    /// Elements that are not installed; the pipeline cannot run while there are any.
    pub missing: Vec<MissingElement>,
}

/// Reads the line and lets GStreamer build it for a model with this `input`, without opening the camera or anything else; without
/// a model what the line is for is guessed. Missing elements are listed in the description; all other faults are an error.
pub fn describe(source: &SourceLine, input: Option<&ModelInput>) -> Result<PipelineDescription, CaptureError> {
    let line = launch_line(source)?;
    let medium = input.and_then(MediaKind::of).unwrap_or_else(|| guess(&line));
    let prepared = Prepared::new(&line, medium)?;
    let missing = match prepared.parse() {
        Ok((_, sink)) if medium == MediaKind::Pictures => {
            ends_in_jpeg(&sink, &redact(&prepared.launch))?;
            Vec::new()
        }
        Ok(_) => Vec::new(),
        Err(CaptureError::MissingElements { elements, .. }) => elements,
        Err(error) => return Err(error),
    };
    Ok(PipelineDescription {
        line: redact(&line),
        runs: redact(&prepared.launch),
        changes: prepared.changes,
        missing,
    })
}

/// Whether what would be linked to the sink for pictures offers only JPEG, as far as it can tell at the moment. `line`: without
/// passwords.
///
/// # Errors
/// It offers neither raw pictures nor JPEG.
pub(super) fn ends_in_jpeg(sink: &gst_app::AppSink, line: &str) -> Result<bool, CaptureError> {
    // Not linked yet: a demuxer or decoder links itself when it knows what it has.
    let Some(before) = sink.static_pad("sink").and_then(|pad| pad.peer()) else {
        return Ok(false);
    };
    let offered = before.query_caps(None);
    if offered.can_intersect(&gst::Caps::new_empty_simple("video/x-raw")) {
        return Ok(false);
    }
    if offered.can_intersect(&gst::Caps::new_empty_simple("image/jpeg")) {
        return Ok(true);
    }
    Err(CaptureError::NotVideo {
        caps: shortened(&offered.to_string()),
        line: line.to_owned(),
    })
}

/// Sound when the line has an element that only sound has, and no video.
fn guess(line: &str) -> MediaKind {
    let chains = launch_tokens::chains(line);
    let mut segments = chains.iter().flat_map(|chain| &chain.segments);
    if segments.clone().any(|segment| segment.head().starts_with("video")) {
        return MediaKind::Pictures;
    }
    match segments.any(|segment| is_one_of(segment, &SOUND)) {
        true => MediaKind::Sound {
            frequency: USUAL_FREQUENCY,
        },
        false => MediaKind::Pictures,
    }
}

/// The launch line of a source, decoded and otherwise as the user wrote it.
pub(super) fn launch_line(source: &SourceLine) -> Result<String, CaptureError> {
    let (SourceLine::Encoded(text) | SourceLine::Launch(text)) = source;
    if text.len() > gst_args::MAX_LENGTH {
        return Err(CaptureError::TooLong { length: text.len() });
    }
    let line = match source {
        SourceLine::Encoded(text) => gst_args::decode(text),
        SourceLine::Launch(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
    };
    line.ok_or(CaptureError::NoLine)
}

/// A line that ends in our `appsink`.
#[derive(Debug)]
pub(super) struct Prepared {
    /// What is handed to GStreamer.
    pub launch: String,
    /// What was changed and why.
    pub changes: Vec<String>,
    /// Names of all elements, for the list of missing ones.
    elements: Vec<String>,
}

impl Prepared {
    /// Changes `line` as described at the top of this file.
    pub fn new(line: &str, medium: MediaKind) -> Result<Self, CaptureError> {
        let mut chains = launch_tokens::chains(line);
        let mut changes = Vec::new();
        let end = find_end(&chains, medium).ok_or_else(|| no_open_end(&chains, line))?;
        let mut tail = Vec::new();
        if let Some(chain) = chains.get_mut(end) {
            tail = rework(chain, medium, &mut changes);
        }
        let sink = format!("appsink name={SINK_NAME}");
        let sound;
        if let MediaKind::Sound { frequency } = medium {
            sound = format!("audio/x-raw,format=S16LE,layout=interleaved,channels=1,rate={frequency}");
            // Noise added on purpose would hide that a microphone is silent.
            tail.extend(["audioconvert dithering=none", "audioresample", &sound]);
        }
        tail.push(&sink);
        let text = |(index, chain): (usize, &Chain<'_>)| {
            let mut text = launch_tokens::join(chain);
            if index == end {
                for element in &tail {
                    text.push_str(" ! ");
                    text.push_str(element);
                }
            }
            text
        };
        let launch = chains.iter().enumerate().map(text).collect::<Vec<_>>().join(" ");
        let names = |chain: &Chain<'_>| {
            chain
                .segments
                .iter()
                .filter(|s| s.kind() == Kind::Element)
                .map(|s| s.head().to_owned())
                .collect::<Vec<_>>()
        };
        let mut elements: Vec<String> = chains.iter().flat_map(names).collect();
        elements.extend(
            tail.iter()
                .filter_map(|text| text.split(' ').next())
                .filter(|name| !name.contains('/'))
                .map(str::to_owned),
        );
        Ok(Self {
            launch,
            changes,
            elements,
        })
    }

    /// Lets GStreamer build the pipeline; nothing is opened yet.
    pub fn parse(&self) -> Result<(gst::Pipeline, gst_app::AppSink), CaptureError> {
        super::init()?;
        let mut context = gst::ParseContext::new();
        // Without FATAL_ERRORS a line with faults gives a part of the pipeline.
        let built = gst::parse::launch_full(&self.launch, Some(&mut context), gst::ParseFlags::FATAL_ERRORS);
        let element = built.map_err(|error| self.parse_error(&error, &context.missing_elements()))?;
        let pipeline = element
            .downcast::<gst::Pipeline>()
            .map_err(|element| self.unexpected(&format!("{} is not a pipeline", element.name())))?;
        let sink = pipeline
            .by_name(SINK_NAME)
            .and_then(|sink| sink.downcast::<gst_app::AppSink>().ok());
        let sink = sink.ok_or_else(|| self.unexpected("the end of the pipeline is missing"))?;
        Ok((pipeline, sink))
    }

    fn parse_error(&self, error: &gst::glib::Error, missing: &[String]) -> CaptureError {
        let mut names: Vec<&String> = Vec::new();
        // The context also names elements that are there and have another fault, so the kind of error decides.
        if error.matches(gst::ParseError::NoSuchElement) {
            // GStreamer stops at the first one; the person at the device wants to install them all at once.
            names = missing
                .iter()
                .chain(&self.elements)
                .filter(|name| gst::ElementFactory::find(name).is_none())
                .collect();
            names.sort();
            names.dedup();
        }
        if names.is_empty() {
            let message = redact(error.message());
            return CaptureError::Parse {
                word: offending_word(&message),
                message,
                line: redact(&self.launch),
            };
        }
        let elements = names.into_iter().map(MissingElement::new).collect();
        CaptureError::MissingElements {
            elements,
            line: redact(&self.launch),
        }
    }

    fn unexpected(&self, message: &str) -> CaptureError {
        CaptureError::Parse {
            message: message.to_owned(),
            word: None,
            line: redact(&self.launch),
        }
    }
}

fn no_open_end(chains: &[Chain<'_>], line: &str) -> CaptureError {
    let last = chains.iter().rev().find_map(|chain| chain.segments.last());
    match last {
        None => CaptureError::NoLine,
        Some(last) => CaptureError::NoOpenEnd {
            last: last.head().to_owned(),
            line: redact(line),
        },
    }
}

/// Index of the branch the model looks at.
fn find_end(chains: &[Chain<'_>], medium: MediaKind) -> Option<usize> {
    let last = |wanted: &dyn Fn(&Chain<'_>) -> bool| chains.iter().rposition(wanted);
    last(&|chain| encoder_at_end(&chain.segments, medium).is_some())
        .or_else(|| last(&|chain| is_open(chain)))
        .or_else(|| {
            last(&|chain| {
                chain.segments.len() > 1 && chain.segments.last().is_some_and(|end| is_one_of(end, &SPARE_SINKS))
            })
        })
}

fn is_open(chain: &Chain<'_>) -> bool {
    let Some(end) = chain.segments.last() else { return false };
    match end.kind() {
        Kind::Element => !end.head().ends_with("sink"),
        Kind::Caps => chain.segments.len() > 1,
        Kind::Reference => false,
        // Nothing after a last `!`, or a bin in parentheses.
        Kind::Other => true,
    }
}

fn is_one_of(segment: &Segment<'_>, names: &[&str]) -> bool {
    names.iter().any(|name| segment.is_element(name))
}

/// Index of the encoder when nothing of use to the model comes after it.
fn encoder_at_end(segments: &[Segment<'_>], medium: MediaKind) -> Option<usize> {
    let spare = |segment: &Segment<'_>| {
        segment.words.is_empty()
            || is_one_of(segment, &SPARE_SINKS)
            || is_one_of(segment, &AFTER_ENCODER)
            || segment.is_caps_of("image/jpeg")
            || segment.is_caps_of("multipart/x-mixed-replace")
    };
    let at = segments.iter().rposition(|segment| !spare(segment))?;
    is_one_of(&segments[at], medium.encoders())
        .then_some(at)
        .filter(|at| *at > 0)
}

/// Drops what the model has no use for at the end of its branch, and returns what is to be added.
fn rework(chain: &mut Chain<'_>, medium: MediaKind, changes: &mut Vec<String>) -> Vec<&'static str> {
    let segments = &mut chain.segments;
    if let Some(at) = encoder_at_end(segments, medium) {
        let dropped = segments.split_off(at);
        changes.push(format!(
            "dropped `{}`: the model is fed with {}",
            launch_tokens::join(&Chain { segments: dropped }),
            medium.food()
        ));
    }
    while segments.len() > 1
        && segments
            .last()
            .is_some_and(|end| end.words.is_empty() || is_one_of(end, &SPARE_SINKS))
    {
        if let Some(dropped) = segments.pop().filter(|dropped| !dropped.words.is_empty()) {
            changes.push(format!(
                "dropped `{}`: the {} go to the model instead",
                dropped.words.join(" "),
                if medium == MediaKind::Pictures {
                    "frames"
                } else {
                    "samples"
                }
            ));
        }
    }
    let mut tail = Vec::new();
    let Some(end) = segments.last() else { return tail };
    if end.is_element("tee") {
        tail.push("queue");
        changes.push("added a branch to the open `tee` for the model".to_owned());
    }
    if medium != MediaKind::Pictures {
        if is_one_of(end, &BYTES) {
            tail.push("decodebin");
            changes.push(format!("added `decodebin`: `{}` gives a file, not sound", end.head()));
        }
    } else if end.is_caps_of("image/jpeg") || is_one_of(end, &JPEG_SOURCES) {
        tail.push("jpegdec");
        changes.push("added `jpegdec`: the source delivers JPEG".to_owned());
    } else if ends_in_nvidia_memory(segments) {
        tail.extend(["nvvidconv", "video/x-raw"]);
        changes.push("added `nvvidconv ! video/x-raw`: the frames were in NVIDIA memory".to_owned());
    }
    tail
}

fn ends_in_nvidia_memory(segments: &[Segment<'_>]) -> bool {
    let last = segments.iter().rfind(|segment| !is_one_of(segment, &PASS_THROUGH));
    last.is_some_and(|last| match last.kind() {
        Kind::Caps => last.words.iter().any(|word| word.contains("memory:NVMM")),
        _ => is_one_of(last, &NVIDIA_MEMORY),
    })
}

#[cfg(test)]
#[path = "launch_line_tests.rs"]
mod tests;
