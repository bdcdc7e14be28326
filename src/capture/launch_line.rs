//! Rewrites a launch line before GStreamer gets it. Existing lines were written for a program that stored JPEG files;
//! this program needs raw frames in system memory at the end of the line, or audio samples in the model's format.
//!
//! When the line has several branches (`tee`), this one feeds the model: the last one that ends in a JPEG encoder (for
//! audio: an audio encoder); otherwise the last one that has an open end (an open `tee` gets a further branch, with a
//! `queue`); otherwise the last one whose sink only stores, shows or drops frames. All other branches stay unchanged.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::elements::{
    AFTER_ENCODER, AUDIO_ENCODERS, BYTE_SOURCES, JPEG_ENCODERS, JPEG_SOURCES, NVIDIA_MEMORY_SOURCES, PASS_THROUGH,
    RAW_PARSERS, REPLACEABLE_SINKS,
};
use super::error::{CaptureError, is_plain_name, offending_word, without_values};
use super::gst_args;
use super::launch_tokens::{Chain, Node, NodeKind, parse_chains};
use super::packages::MissingElement;
use super::registry::{GstRegistry, find_new_plugins, init, is_installed};
use super::secret_values::{Placeholders, SecretResolver};
use crate::config::{MicrophoneChannel, SourceLine};
use crate::model::ModelInput;
use crate::util::redact::{STARS, SecretWords};

/// Name of the `appsink`, as GStreamer's messages show it.
pub(super) const SINK_NAME: &str = "frames-for-the-model";

/// What the end of a line has to deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// Raw frames in system memory.
    Video,
    /// 16-bit samples: mono, or interleaved where a channel has to be selected.
    Audio {
        /// Samples per second.
        sample_rate: u32,
        /// The channel of a microphone with several.
        channel: MicrophoneChannel,
    },
}

impl MediaKind {
    /// The input of a model; `None`: neither video nor audio.
    pub(super) fn of(input: &ModelInput, channel: MicrophoneChannel) -> Option<Self> {
        match *input {
            ModelInput::Image { .. } => Some(Self::Video),
            ModelInput::Audio { frequency, .. } => Some(Self::Audio {
                sample_rate: frequency,
                channel,
            }),
            ModelInput::SeveralImages(_) | ModelInput::Unsupported(_) => None,
        }
    }

    /// The name in the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio { .. } => "audio",
        }
    }

    fn encoders(self) -> &'static [&'static str] {
        match self {
            Self::Video => &JPEG_ENCODERS,
            Self::Audio { .. } => &AUDIO_ENCODERS,
        }
    }

    /// The data that a line without a decoder does not deliver, as the list of changes names it.
    fn media(self) -> &'static str {
        match self {
            Self::Video => "pictures",
            Self::Audio { .. } => "sound",
        }
    }

    /// The data that the model gets, as the list of changes names it.
    fn data(self) -> &'static str {
        match self {
            Self::Video => "frames",
            Self::Audio { .. } => "samples",
        }
    }
}

/// The launch line of a source, decoded and otherwise as the user wrote it.
///
/// # Errors
/// [`CaptureError::TooLong`], [`CaptureError::SecretReference`] or [`CaptureError::NoLine`]
pub(super) fn decode_source(SourceLine(text): &SourceLine) -> Result<SourceText, CaptureError> {
    if text.len() > gst_args::MAX_LENGTH {
        return Err(CaptureError::TooLong { length: text.len() });
    }
    let mut secrets = SecretWords::of(text);
    let (text, placeholders) = Placeholders::replace(text)?;
    placeholders.show_in(&mut secrets);
    let line = gst_args::decode(&text, &GstRegistry).ok_or(CaptureError::NoLine)?;
    let colons = |text: &str| text.matches(':').count();
    Ok(SourceText {
        has_separators: colons(&line) < colons(&text),
        line,
        secrets,
        placeholders,
    })
}

/// A launch line, and the secrets in the text that it was decoded from. A line that was decoded in another way than its
/// author meant may hold parts of a password as words of their own.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceText {
    /// The line with a word in place of each `{{secret:NAME:KEY}}`.
    pub line: String,
    pub secrets: SecretWords,
    pub placeholders: Placeholders,
    /// Whether colons were read as spaces.
    pub has_separators: bool,
}

impl SourceText {
    /// Adds the advice on colons to an error of this line, if colons were read as spaces.
    pub fn with_colon_advice(&self, error: CaptureError) -> CaptureError {
        if self.has_separators {
            error.with_colon_advice(&self.secrets.mask(&self.line))
        } else {
            error
        }
    }
}

impl From<String> for SourceText {
    fn from(line: String) -> Self {
        let secrets = SecretWords::of(&line);
        Self {
            line,
            secrets,
            placeholders: Placeholders::default(),
            has_separators: false,
        }
    }
}

/// A line that ends in our `appsink`.
#[derive(Debug)]
pub(super) struct PreparedLine {
    /// The line for GStreamer.
    pub launch: String,
    /// The line without secrets, for messages.
    pub shown: String,
    /// The secrets in the line, to hide them in GStreamer's messages.
    pub secrets: SecretWords,
    /// What was changed and why, one sentence each.
    pub changes: Vec<String>,
    /// Names of all elements, for the list of missing ones.
    elements: Vec<String>,
    placeholders: Placeholders,
}

impl PreparedLine {
    /// Rewrites `line` as described at the top of this file.
    ///
    /// # Errors
    /// [`CaptureError::NoOpenEnd`] or [`CaptureError::NoLine`]
    pub fn new(source: &SourceText, kind: MediaKind) -> Result<Self, CaptureError> {
        let SourceText {
            line,
            secrets,
            placeholders,
            ..
        } = source;
        let mut chains = parse_chains(line);
        let mut changes = Vec::new();
        let end = find_model_branch(&chains, kind).ok_or_else(|| no_open_end(&chains, source))?;
        let mut tail: Vec<String> = Vec::new();
        if let Some(chain) = chains.get_mut(end) {
            drop_encoder_and_sinks(chain, kind, &mut changes);
            tail.extend(converters(chain, kind, &mut changes).into_iter().map(str::to_owned));
        }
        if let MediaKind::Audio { sample_rate, channel } = kind {
            let format = format!("audio/x-raw,format=S16LE,layout=interleaved,rate={sample_rate}");
            let caps = match channel {
                MicrophoneChannel::Number(number) => {
                    // This comes before the conversion, because that would add missing channels.
                    tail.push(format!(
                        "capsfilter name=microphone_channel-{number} caps=\"audio/x-raw,channels=[{number},64]\""
                    ));
                    changes.push(format!(
                        "the model gets channel {number} of the microphone (`microphone_channel`)"
                    ));
                    format
                }
                // Without positions GStreamer cannot mix, so such channels are delivered unmixed.
                _ => format!("{format},channels=1;{format},channels=[3,64],channel-mask=(bitmask)0"),
            };
            // Dithering adds noise, which would hide that a microphone is silent.
            tail.extend(["audioconvert dithering=none", "audioresample"].map(str::to_owned));
            tail.push(format!("capsfilter caps=\"{caps}\""));
        }
        tail.push(format!("appsink name={SINK_NAME}"));

        let nodes = chains.iter().flat_map(|chain| &chain.nodes);
        let elements = nodes
            .filter(|node| node.kind() == NodeKind::Element)
            .map(Node::name)
            .chain(tail.iter().filter_map(|text| text.split(' ').next()))
            .filter(|name| !name.contains('/'))
            .map(str::to_owned)
            .collect();
        let mut branches: Vec<_> = chains.iter().map(ToString::to_string).collect();
        if let Some(branch) = branches.get_mut(end) {
            *branch = format!("{branch} ! {}", tail.join(" ! "));
        }
        let launch = branches.join(" ");
        Ok(Self {
            shown: secrets.mask(&launch),
            launch,
            secrets: secrets.clone(),
            changes: changes.iter().map(|change| secrets.mask(change)).collect(),
            elements,
            placeholders: placeholders.clone(),
        })
    }

    /// Puts the secrets that the line names into the line. May block.
    ///
    /// # Errors
    /// [`CaptureError::Secret`] or [`CaptureError::SecretReference`]
    pub fn insert_secrets(&mut self, resolver: Option<&dyn SecretResolver>) -> Result<(), CaptureError> {
        if self.placeholders.is_empty() {
            return Ok(());
        }
        let resolver = resolver.ok_or_else(|| {
            CaptureError::Secret("gst_args names a secret, which only `run` reads from AWS Secrets Manager".to_owned())
        })?;
        let values = resolver
            .resolve(self.placeholders.references())
            .map_err(CaptureError::Secret)?;
        self.launch = self.placeholders.insert(&self.launch, &values, &mut self.secrets)?;
        Ok(())
    }

    /// Removes the properties that GStreamer can parse only with their secrets, so that the rest can be checked.
    ///
    /// # Errors
    /// [`CaptureError::SecretReference`]
    pub fn without_secrets(&mut self) -> Result<(), CaptureError> {
        if !self.placeholders.is_empty() {
            self.launch = self.placeholders.without_numbers(&self.launch)?;
        }
        Ok(())
    }

    /// Lets GStreamer build the pipeline. Opens no device.
    ///
    /// # Errors
    /// [`CaptureError::MissingElements`] or [`CaptureError::Parse`]
    pub fn parse(&self) -> Result<(gst::Pipeline, gst_app::AppSink), CaptureError> {
        init()?;
        let mut context = gst::ParseContext::new();
        // Without FATAL_ERRORS GStreamer returns a part of the pipeline when the line has errors.
        let mut build = || gst::parse::launch_full(&self.launch, Some(&mut context), gst::ParseFlags::FATAL_ERRORS);
        let built = match build() {
            Err(error) if error.matches(gst::ParseError::NoSuchElement) && find_new_plugins() => build(),
            built => built,
        };
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
        // The context also lists installed elements that have another error, so the kind of error decides.
        if error.matches(gst::ParseError::NoSuchElement) {
            // GStreamer stops at the first missing element; the user needs the names of all.
            names = missing
                .iter()
                .chain(&self.elements)
                .filter(|name| !is_installed(name))
                .collect();
            names.sort();
            names.dedup();
        }
        let is_any_missing = !names.is_empty();
        names.retain(|name| is_plain_name(name) && !self.secrets.occur_in(name));
        if !names.is_empty() {
            return CaptureError::MissingElements {
                elements: names.into_iter().map(MissingElement::new).collect(),
                line: self.shown.clone(),
            };
        }
        if is_any_missing {
            return self
                .unexpected("a word that is not shown, because it may be a part of a secret, is not an element");
        }
        let message = without_values(&self.secrets.mask(error.message()));
        CaptureError::Parse {
            word: offending_word(&message),
            message,
            line: self.shown.clone(),
        }
    }

    fn unexpected(&self, message: &str) -> CaptureError {
        CaptureError::Parse {
            message: message.to_owned(),
            word: None,
            line: self.shown.clone(),
        }
    }
}

fn no_open_end(chains: &[Chain<'_>], source: &SourceText) -> CaptureError {
    let last = chains.iter().rev().find_map(|chain| chain.nodes.last());
    match last {
        None => CaptureError::NoLine,
        Some(last) => CaptureError::NoOpenEnd {
            last: if is_plain_name(last.name()) {
                source.secrets.mask(last.name())
            } else {
                STARS.to_owned()
            },
            line: source.secrets.mask(&source.line),
        },
    }
}

/// Index of the branch that feeds the model.
fn find_model_branch(chains: &[Chain<'_>], kind: MediaKind) -> Option<usize> {
    let last = |condition: &dyn Fn(&Chain<'_>) -> bool| chains.iter().rposition(condition);
    last(&|chain| find_encoder_at_end(&chain.nodes, kind).is_some())
        .or_else(|| last(&has_open_end))
        .or_else(|| last(&|chain| chain.nodes.len() > 1 && ends_in_replaceable_sink(&chain.nodes)))
}

fn has_open_end(chain: &Chain<'_>) -> bool {
    let Some(end) = chain.nodes.last() else { return false };
    match end.kind() {
        NodeKind::Element => !end.name().ends_with("sink"),
        NodeKind::Caps => chain.nodes.len() > 1,
        NodeKind::Reference => false,
        // Nothing after a last `!`, or a bin in parentheses.
        NodeKind::Other => true,
    }
}

fn ends_in_replaceable_sink(nodes: &[Node<'_>]) -> bool {
    nodes.last().is_some_and(|end| end.is_one_of(&REPLACEABLE_SINKS))
}

/// Index of the encoder when only elements that the model does not need follow it.
fn find_encoder_at_end(nodes: &[Node<'_>], kind: MediaKind) -> Option<usize> {
    let is_useless = |node: &Node<'_>| {
        node.tokens.is_empty()
            || node.is_one_of(&REPLACEABLE_SINKS)
            || node.is_one_of(&AFTER_ENCODER)
            || node.is_caps_of("image/jpeg")
            || node.is_caps_of("multipart/x-mixed-replace")
    };
    let at = nodes.iter().rposition(|node| !is_useless(node))?;
    (at > 0 && nodes[at].is_one_of(kind.encoders())).then_some(at)
}

/// Drops what the model does not need at the end of its branch.
fn drop_encoder_and_sinks(chain: &mut Chain<'_>, kind: MediaKind, changes: &mut Vec<String>) {
    let nodes = &mut chain.nodes;
    if let Some(at) = find_encoder_at_end(nodes, kind) {
        let dropped = Chain {
            nodes: nodes.split_off(at),
        };
        changes.push(format!(
            "dropped `{dropped}`: the model is fed with raw {}",
            kind.data()
        ));
    }
    let is_droppable = |nodes: &[Node<'_>]| {
        nodes.len() > 1 && (ends_in_replaceable_sink(nodes) || nodes.last().is_some_and(|end| end.tokens.is_empty()))
    };
    while is_droppable(nodes) {
        if let Some(dropped) = nodes.pop().filter(|dropped| !dropped.tokens.is_empty()) {
            changes.push(format!(
                "dropped `{dropped}`: the {} go to the model instead",
                kind.data()
            ));
        }
    }
}

/// The elements to add at the end of the model's branch so that it delivers raw data in system memory.
fn converters(chain: &Chain<'_>, kind: MediaKind, changes: &mut Vec<String>) -> Vec<&'static str> {
    let mut tail = Vec::new();
    let Some(end) = chain.nodes.last() else { return tail };
    if end.is_element("tee") {
        tail.push("queue");
        changes.push("added a branch to the open `tee` for the model".to_owned());
    }
    if let Some(encoded) = find_encoded(&chain.nodes, kind) {
        let (media, name) = (kind.media(), encoded.name());
        if end.is_element("rtspsrc") {
            // A camera with a microphone offers both streams, and the first one would be linked.
            tail.push(match kind {
                MediaKind::Video => "application/x-rtp,media=video",
                MediaKind::Audio { .. } => "application/x-rtp,media=audio",
            });
        }
        tail.push("decodebin");
        changes.push(format!(
            "added `decodebin`: `{name}` delivers an encoded stream, not {media}"
        ));
    } else if kind != MediaKind::Video {
        return tail;
    } else if end.is_caps_of("image/jpeg") || end.is_one_of(&JPEG_SOURCES) {
        tail.push("jpegdec");
        changes.push("added `jpegdec`: the source delivers JPEG".to_owned());
    } else if ends_in_nvidia_memory(&chain.nodes) {
        tail.extend(["nvvidconv", "video/x-raw"]);
        changes.push("added `nvvidconv ! video/x-raw`: the frames were in NVIDIA memory".to_owned());
    }
    tail
}

/// The last node, not counting queues, if its output needs a decoder.
fn find_encoded<'n, 'a>(nodes: &'n [Node<'a>], kind: MediaKind) -> Option<&'n Node<'a>> {
    let last = nodes
        .iter()
        .rfind(|node| !node.is_one_of(&["queue", "queue2", "identity"]))?;
    let name = last.name();
    let needs_decoder = match last.kind() {
        NodeKind::Caps => is_encoded(name.split([',', '(']).next().unwrap_or_default(), kind),
        NodeKind::Element => {
            let delivers_stream = ["parse", "depay", "demux"].iter().any(|end| name.ends_with(end));
            let has_own_rule = last.is_one_of(&JPEG_SOURCES) || last.is_one_of(&RAW_PARSERS);
            last.is_one_of(&BYTE_SOURCES) || (delivers_stream && !has_own_rule)
        }
        NodeKind::Reference | NodeKind::Other => false,
    };
    needs_decoder.then_some(last)
}

/// Whether caps of this media type describe an encoded stream. JPEG and raw Bayer data have their own elements.
fn is_encoded(media_type: &str, kind: MediaKind) -> bool {
    let class = match kind {
        MediaKind::Video => "video/",
        MediaKind::Audio { .. } => "audio/",
    };
    let is_other = media_type.starts_with(class) && !["x-raw", "x-bayer"].contains(&&media_type[class.len()..]);
    is_other || ["application/x-rtp", "application/ogg", "video/mpegts", "image/png"].contains(&media_type)
}

fn ends_in_nvidia_memory(nodes: &[Node<'_>]) -> bool {
    let last = nodes.iter().rfind(|node| !node.is_one_of(&PASS_THROUGH));
    last.is_some_and(|last| match last.kind() {
        NodeKind::Caps => last.tokens.iter().any(|token| token.contains("memory:NVMM")),
        _ => last.is_one_of(&NVIDIA_MEMORY_SOURCES),
    })
}

#[cfg(test)]
#[path = "launch_line_tests.rs"]
mod tests;
