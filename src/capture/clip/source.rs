//! Where the frames for clips come from: the encoded stream of the camera, or its raw frames.

use std::sync::Arc;
use std::time::Instant;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::recorder::ClipRecorder;
use crate::capture::frame::Frame;
use crate::capture::registry::is_installed;

/// Most elements between the sink and the decoder.
const MAX_ELEMENTS: usize = 64;

/// The video of one capture, for a [`ClipRecorder`].
#[derive(Debug, Clone)]
pub(in crate::capture) struct ClipSource {
    recorder: Arc<ClipRecorder>,
    /// `None`: not known yet.
    is_encoded: Option<bool>,
}

impl ClipSource {
    /// `is_poll`: each capture delivers one picture only, so there is no stream to look into.
    pub(in crate::capture) fn new(recorder: Arc<ClipRecorder>, is_poll: bool) -> Self {
        Self {
            recorder,
            is_encoded: is_poll.then_some(false),
        }
    }

    /// A raw frame has arrived at the sink. From the first one on, the encoded stream before the decoder is used if there is one.
    pub(in crate::capture) fn on_frame(&mut self, sink: &gst_app::AppSink, frame: &Frame) {
        let recorder = &self.recorder;
        let is_encoded = *self.is_encoded.get_or_insert_with(|| match encoded_pad(sink) {
            Some((pad, stream)) => {
                tracing::info!(encoding = ?stream, "Clips of events use the source's own encoding");
                follow(&pad, stream, Arc::clone(recorder))
            }
            None => false,
        });
        if !is_encoded {
            recorder.offer_raw(frame);
        }
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

    /// Whether a decoder can begin with this frame.
    fn is_key(self, buffer: &gst::BufferRef) -> bool {
        match self {
            Self::Jpeg => true,
            Self::Avc => !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
            // Drivers of cameras often mark no frame.
            Self::ByteStream => buffer.map_readable().is_ok_and(|data| begins_sequence(&data)),
        }
    }
}

/// Whether an access unit with start codes has parameters of a sequence (SPS), which a decoder needs first. Those stand before
/// the picture (H.264, 7.4.1.2.3).
fn begins_sequence(data: &[u8]) -> bool {
    let mut units = data
        .windows(4)
        .filter(|bytes| bytes[..3] == [0, 0, 1])
        .map(|bytes| bytes[3] & 0x1f);
    units
        .find(|unit| (1..=5).contains(unit) || *unit == 7)
        .is_some_and(|unit| unit == 7)
}

/// Lets the recorder see each buffer that passes the pad.
fn follow(pad: &gst::Pad, stream: EncodedStream, recorder: Arc<ClipRecorder>) -> bool {
    let probe = pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        if let Some(buffer) = info.buffer()
            && let Some(caps) = pad.current_caps()
        {
            recorder.offer_encoded(buffer, caps, stream.is_key(buffer), Instant::now());
        }
        gst::PadProbeReturn::Ok
    });
    probe.is_some()
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
