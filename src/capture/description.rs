//! What `check` shows about a launch line, without opening a device.

use std::path::Path;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::elements::AUDIO_ELEMENTS;
use super::error::CaptureError;
use super::launch_line::{MediaKind, PreparedLine, SourceText, decode_source};
use super::launch_tokens::parse_chains;
use super::packages::MissingElement;
use super::pipeline::delivers_jpeg;
use crate::config::{MicrophoneChannel, SourceLine};
use crate::model::ModelInput;

/// The sample rate of most audio models, used when no model is known.
const DEFAULT_SAMPLE_RATE: u32 = 16_000;

/// A launch line and the pipeline that `run` would start from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineDescription {
    /// The line as decoded, without passwords.
    pub line: String,
    /// The line as GStreamer would get it, without passwords.
    pub effective_line: String,
    /// What was changed and why, one sentence each.
    pub changes: Vec<String>,
    /// Elements that are not installed. The pipeline runs only when the list is empty.
    pub missing_elements: Vec<MissingElement>,
    /// Devices and files of the sources that do not exist now, without secrets.
    pub missing_files: Vec<String>,
}

/// Lets GStreamer build the line for a model with this `input`, without opening a device. Without a model the elements
/// of the line decide whether it delivers video or audio.
///
/// # Errors
/// All errors in the line except missing elements, which are part of the description.
pub fn describe_pipeline(
    source: &SourceLine,
    input: Option<&ModelInput>,
    channel: MicrophoneChannel,
) -> Result<PipelineDescription, CaptureError> {
    let text = decode_source(source)?;
    describe_text(&text, input, channel).map_err(|error| text.with_colon_advice(error))
}

fn describe_text(
    text: &SourceText,
    input: Option<&ModelInput>,
    channel: MicrophoneChannel,
) -> Result<PipelineDescription, CaptureError> {
    let kind = input
        .and_then(|input| MediaKind::of(input, channel))
        .unwrap_or_else(|| guess_kind(&text.line, channel));
    let mut prepared = PreparedLine::new(text, kind)?;
    prepared.without_secrets()?;
    let effective_line = prepared.shown.clone();
    let mut missing_files = Vec::new();
    let missing_elements = match prepared.parse() {
        Ok((pipeline, sink)) => {
            if kind == MediaKind::Video {
                delivers_jpeg(&sink, &effective_line)?;
            }
            missing_files = find_missing_files(&pipeline);
            Vec::new()
        }
        Err(CaptureError::MissingElements { elements, .. }) => elements,
        Err(error) => return Err(error),
    };
    Ok(PipelineDescription {
        line: text.secrets.mask(&text.line),
        effective_line,
        changes: prepared.changes,
        missing_elements,
        missing_files: missing_files.iter().map(|file| text.secrets.mask(file)).collect(),
    })
}

/// The devices and files of the sources in the pipeline that do not exist.
fn find_missing_files(pipeline: &gst::Pipeline) -> Vec<String> {
    /// The elements and their property that names the file.
    const SOURCES: [(&str, &str); 2] = [("v4l2src", "device"), ("filesrc", "location")];
    let elements = pipeline.iterate_sources().into_iter().flatten();
    let files = elements.filter_map(|element| {
        let factory = element.factory()?.name();
        let (_, property) = SOURCES.iter().find(|(name, _)| *name == factory)?;
        let value = element.property_value(property);
        value.get::<Option<String>>().ok().flatten()
    });
    files.filter(|file| !Path::new(file).exists()).collect()
}

/// Audio when the line has an audio element and no video, otherwise video.
fn guess_kind(line: &str, channel: MicrophoneChannel) -> MediaKind {
    let chains = parse_chains(line);
    let mut nodes = chains.iter().flat_map(|chain| &chain.nodes);
    let has_video = nodes.clone().any(|node| node.name().starts_with("video"));
    if !has_video && nodes.any(|node| node.is_one_of(&AUDIO_ELEMENTS)) {
        return MediaKind::Audio {
            sample_rate: DEFAULT_SAMPLE_RATE,
            channel,
        };
    }
    MediaKind::Video
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::gst_args;

    fn described(line: &str) -> Result<PipelineDescription, CaptureError> {
        describe_pipeline(&SourceLine(line.to_owned()), None, MicrophoneChannel::Auto)
    }

    #[test]
    fn a_line_with_audio_elements_is_described_as_audio() {
        assert_eq!(
            guess_kind("audiotestsrc ! audioconvert", MicrophoneChannel::Auto),
            MediaKind::Audio {
                sample_rate: 16_000,
                channel: MicrophoneChannel::Auto
            }
        );
        for line in [
            "v4l2src ! videoconvert",
            "alsasrc ! a. v4l2src ! video/x-raw",
            "filesrc ! decodebin",
        ] {
            assert_eq!(guess_kind(line, MicrophoneChannel::Auto), MediaKind::Video, "{line}");
        }
        let description = described("audiotestsrc ! wavenc ! filesink location=x").unwrap();
        assert!(
            description.effective_line.contains("rate=16000"),
            "{}",
            description.effective_line
        );
    }

    #[test]
    fn every_missing_element_is_listed_with_its_package() {
        let description = described("nosuchsrc ! x264enc ! nosuchfilter ! videoconvert ! jpegenc").unwrap();
        let missing: Vec<_> = description.missing_elements.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(missing, ["nosuchfilter", "nosuchsrc", "x264enc"]);
        assert_eq!(
            description.missing_elements[2].package,
            Some("gstreamer1.0-plugins-ugly")
        );
        assert_eq!(description.changes.len(), 1);
    }

    #[test]
    fn the_decoded_line_is_shown_without_its_password() {
        let line = "rtspsrc:location=rtsp://u:secret@10.0.0.5:8554/cam:latency=0:!:decodebin:!:jpegenc";
        let description = describe_pipeline(&SourceLine(line.to_owned()), None, MicrophoneChannel::Auto).unwrap();
        assert_eq!(
            description.line,
            "rtspsrc location=rtsp://u:***@10.0.0.5:8554/cam latency=0 ! decodebin ! jpegenc"
        );
        assert!(!description.effective_line.contains("secret"));
        assert!(description.missing_elements.is_empty());
    }

    #[test]
    fn an_error_of_gstreamer_has_the_line_and_the_offending_word() {
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
    fn an_error_of_a_decoded_line_says_how_a_colon_stays() {
        let advice = "write that colon as `\\:`";
        for line in ["videotestsrc:nosuch=1:!:videoconvert", "videotestsrc:!:audioconvert"] {
            let message = described(line).unwrap_err().to_string();
            assert!(
                message.contains(advice) && message.contains("as it was understood: v"),
                "{message}"
            );
        }
        let spaces = described("videotestsrc nosuch=1 ! videoconvert")
            .unwrap_err()
            .to_string();
        assert!(!spaces.contains(advice), "no colon was decoded: {spaces}");
    }

    #[test]
    fn an_empty_or_too_long_source_is_an_error() {
        assert_eq!(
            describe_pipeline(&SourceLine("__none__".to_owned()), None, MicrophoneChannel::Auto),
            Err(CaptureError::NoLine)
        );
        let long = SourceLine("a".repeat(gst_args::MAX_LENGTH + 1));
        assert_eq!(
            describe_pipeline(&long, None, MicrophoneChannel::Auto),
            Err(CaptureError::TooLong {
                length: gst_args::MAX_LENGTH + 1
            })
        );
    }
}
