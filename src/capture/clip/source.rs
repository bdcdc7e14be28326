//! Where the frames for clips come from: the encoded stream of the camera, or its raw frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use parking_lot::Mutex;

use super::access_unit::AccessUnit;
use super::recorder::ClipRecorder;
use crate::capture::frame::Frame;
use crate::capture::registry::is_installed;

/// Most elements between the sink and the decoder.
const MAX_ELEMENTS: usize = 64;
/// An encoded stream that delivers nothing a clip can begin with for so long is given up. Cameras send a key frame every few seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// The video of one capture, for a [`ClipRecorder`].
#[derive(Debug, Clone)]
pub(in crate::capture) struct ClipSource {
    recorder: Arc<ClipRecorder>,
    video: SourceVideo,
    decoders: Arc<Decoders>,
}

/// Where the frames of a source come from.
#[derive(Debug, Clone)]
enum SourceVideo {
    Unknown,
    /// Its pictures are encoded here.
    Raw,
    /// Its own encoding. The flag gives it up.
    Encoded {
        since: Instant,
        given_up: Arc<AtomicBool>,
    },
}

impl ClipSource {
    /// `is_poll`: each capture delivers one picture only, so there is no stream to look into.
    pub(in crate::capture) fn new(recorder: Arc<ClipRecorder>, is_poll: bool) -> Self {
        Self {
            recorder,
            video: match is_poll {
                true => SourceVideo::Raw,
                false => SourceVideo::Unknown,
            },
            decoders: Arc::default(),
        }
    }

    /// Looks at what decoders of the pipeline get from the begin on: a camera may send the parameters of its stream only once.
    /// To be called before the pipeline plays.
    pub(in crate::capture) fn watch_decoders(&self, pipeline: &gst::Pipeline) {
        if !matches!(self.video, SourceVideo::Unknown) {
            return;
        }
        let elements: Vec<_> = pipeline.iterate_recurse().into_iter().flatten().collect();
        elements.iter().for_each(|element| self.decoders.watch(element));
        let decoders = self.decoders.clone();
        // `decodebin` adds its decoder when it knows the stream.
        pipeline.connect_deep_element_added(move |_, _, element| decoders.watch(element));
    }

    /// A raw frame has arrived at the sink. From the first one on, the encoded stream before the decoder is used if there is one.
    pub(in crate::capture) fn on_frame(&mut self, sink: &gst_app::AppSink, frame: &Frame) {
        if matches!(self.video, SourceVideo::Unknown) {
            self.video = self.follow_encoded(sink, frame.at).unwrap_or(SourceVideo::Raw);
        }
        if let SourceVideo::Encoded { since, given_up } = &self.video {
            let newest = self.recorder.newest().map_or(*since, |newest| newest.max(*since));
            if frame.at.saturating_duration_since(newest) < PATIENCE {
                return;
            }
            given_up.store(true, Ordering::Relaxed);
            tracing::warn!(
                patience = ?PATIENCE,
                "The source's own encoding has no frame with which a clip can begin; clips of events are encoded from its pictures"
            );
            self.video = SourceVideo::Raw;
        }
        self.recorder.offer_raw(frame);
    }

    fn follow_encoded(&self, sink: &gst_app::AppSink, since: Instant) -> Option<SourceVideo> {
        let (pad, stream) = encoded_pad(sink)?;
        let given_up = Arc::new(AtomicBool::new(false));
        let follower = Follower {
            stream,
            recorder: self.recorder.clone(),
            given_up: given_up.clone(),
            state: Mutex::new(FollowerState {
                parameters: self.decoders.parameters(&pad),
                has_begun: false,
            }),
        };
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            follower.on_buffer(pad, info)
        })?;
        tracing::info!(encoding = ?stream, "Clips of events use the source's own encoding");
        Some(SourceVideo::Encoded { since, given_up })
    }
}

/// Parameters of H.264 streams at the inputs of decoders.
#[derive(Debug, Default)]
struct Decoders(Mutex<Vec<(gst::Pad, Vec<u8>)>>);

impl Decoders {
    /// Keeps the first parameters that a video decoder gets. Other elements are ignored.
    fn watch(self: &Arc<Self>, element: &gst::Element) {
        let class = element
            .factory()
            .and_then(|factory| factory.metadata("klass").map(str::to_owned));
        let is_decoder = class.is_some_and(|class| class.contains("Decoder") && class.contains("Video"));
        let Some(pad) = element.static_pad("sink").filter(|_| is_decoder) else {
            return;
        };
        let decoders = self.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let data = info.buffer().and_then(|buffer| buffer.map_readable().ok());
            let unit = data.map(|data| AccessUnit::read(&data)).unwrap_or_default();
            if !unit.begins_sequence() {
                return gst::PadProbeReturn::Ok;
            }
            decoders.0.lock().push((pad.clone(), unit.parameters));
            gst::PadProbeReturn::Remove
        });
    }

    /// The parameters at this input; empty: it got none.
    fn parameters(&self, pad: &gst::Pad) -> Vec<u8> {
        let found = self.0.lock();
        let found = found.iter().find(|(decoder, _)| decoder == pad);
        found.map(|(_, parameters)| parameters.clone()).unwrap_or_default()
    }
}

/// Lets the recorder see each buffer that passes a pad.
struct Follower {
    stream: EncodedStream,
    recorder: Arc<ClipRecorder>,
    given_up: Arc<AtomicBool>,
    state: Mutex<FollowerState>,
}

struct FollowerState {
    /// The last parameters of an H.264 stream with start codes.
    parameters: Vec<u8>,
    /// A key frame has come. What comes before it cannot be decoded, and belongs to no earlier clip either.
    has_begun: bool,
}

impl Follower {
    fn on_buffer(&self, pad: &gst::Pad, info: &gst::PadProbeInfo<'_>) -> gst::PadProbeReturn {
        if self.given_up.load(Ordering::Relaxed) {
            return gst::PadProbeReturn::Remove;
        }
        if let Some(buffer) = info.buffer()
            && let Some(caps) = pad.current_caps()
        {
            let mut state = self.state.lock();
            let FollowerState { parameters, has_begun } = &mut *state;
            let (is_key, missing) = self.stream.inspect(buffer, parameters);
            *has_begun |= is_key;
            if *has_begun {
                self.recorder
                    .offer_encoded(buffer, missing, caps, is_key, Instant::now());
            }
        }
        gst::PadProbeReturn::Ok
    }
}

/// An encoding that is taken as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EncodedStream {
    Jpeg,
    /// H.264 in packets with lengths.
    Avc,
    /// H.264 with start codes.
    ByteStream,
}

impl EncodedStream {
    fn of(caps: &gst::CapsRef) -> Option<Self> {
        let format = caps.structure(0)?;
        match format.name().as_str() {
            "image/jpeg" => Some(Self::Jpeg),
            "video/x-h264" if format.get("alignment").is_ok_and(|alignment: &str| alignment == "au") => {
                match format.get::<&str>("stream-format").ok()? {
                    "avc" => Some(Self::Avc),
                    // `mp4mux` takes packets only, and h264parse makes them.
                    "byte-stream" => is_installed("h264parse").then_some(Self::ByteStream),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Whether a decoder can begin with this frame, and the parameters that must stand before it because it lacks them. `known`:
    /// the last parameters of a stream with start codes.
    fn inspect<'p>(self, buffer: &gst::BufferRef, known: &'p mut Vec<u8>) -> (bool, &'p [u8]) {
        match self {
            Self::Jpeg => (true, &[]),
            Self::Avc => (!buffer.flags().contains(gst::BufferFlags::DELTA_UNIT), &[]),
            // Drivers of cameras often mark no frame.
            Self::ByteStream => {
                let data = buffer.map_readable();
                let unit = data.map(|data| AccessUnit::read(&data)).unwrap_or_default();
                if unit.begins_sequence() {
                    *known = unit.parameters;
                    (true, &[])
                } else if unit.is_idr && !known.is_empty() {
                    (true, known)
                } else {
                    (false, &[])
                }
            }
        }
    }
}

/// The pad nearest to the sink through which an encoded stream flows that is taken as it is. `None`: there is none, or several
/// sources are mixed before the sink.
fn encoded_pad(sink: &gst_app::AppSink) -> Option<(gst::Pad, EncodedStream)> {
    let mut pad = sink.static_pad("sink")?;
    for _ in 0..MAX_ELEMENTS {
        if let Some(caps) = pad.current_caps()
            && let Some(stream) = EncodedStream::of(&caps)
        {
            return Some((pad, stream));
        }
        pad = input_before(&pad)?;
    }
    None
}

/// The only input of the element before this input.
fn input_before(pad: &gst::Pad) -> Option<gst::Pad> {
    let mut output = pad.peer()?;
    loop {
        output = match output.downcast::<gst::GhostPad>() {
            // The output of a bin.
            Ok(ghost) => ghost.target()?,
            Err(pad) => match pad.downcast::<gst::ProxyPad>() {
                // The inner side of the input of a bin.
                Ok(proxy) => return proxy.internal().map(Cast::upcast),
                Err(pad) => {
                    let inputs = pad.parent_element()?.sink_pads();
                    return match &inputs[..] {
                        [only] => Some(only.clone()),
                        _ => None,
                    };
                }
            },
        };
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
