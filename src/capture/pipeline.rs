//! Starts and stops a pipeline.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::error::{CaptureError, shortened};
use super::formats;
use super::launch_line::PreparedLine;
use super::packages::MissingElement;
use super::registry::is_installed;
use crate::util::redact::SecretWords;

/// A pipeline that is being stopped.
pub(super) struct TearDown {
    /// Receives one message when the pipeline is stopped.
    pub done: mpsc::Receiver<()>,
    /// `None` when no thread could be started.
    pub thread: Option<JoinHandle<()>>,
}

/// Stops a pipeline, on a thread of its own because a driver may hang.
pub(super) fn tear_down(pipeline: gst::Pipeline) -> TearDown {
    let (done, receiver) = mpsc::channel();
    let span = tracing::Span::current();
    let stop = move || {
        let _entered = span.enter();
        if let Some(bus) = pipeline.bus() {
            // Wakes the watchdog. The bus of GStreamer 1.22 can hang.
            let _ = bus.post(gst::message::Application::new(gst::Structure::new_empty("stop")));
        }
        if pipeline.set_state(gst::State::Null).is_err() {
            tracing::warn!("An element of the pipeline refused to stop");
        }
        drop(pipeline);
        let _ = done.send(());
    };
    let thread = thread::Builder::new()
        .name("capture-stop".to_owned())
        .spawn(stop)
        .inspect_err(|error| {
            tracing::error!(%error, "Cannot start a thread to stop the pipeline; it keeps running without a receiver");
        });
    TearDown {
        done: receiver,
        thread: thread.ok(),
    }
}

/// A pipeline that is being started. Dropping it before [`Self::keep_running`] stops the pipeline.
pub(super) struct StartingPipeline {
    pub pipeline: gst::Pipeline,
    pub sink: gst_app::AppSink,
    /// The launch line, without secrets.
    line: String,
    secrets: SecretWords,
    keep_running: bool,
}

impl Drop for StartingPipeline {
    fn drop(&mut self) {
        if !self.keep_running {
            tear_down(self.pipeline.clone());
        }
    }
}

impl StartingPipeline {
    /// `prepared`: the line from which GStreamer built `pipeline`.
    pub fn new(pipeline: gst::Pipeline, sink: gst_app::AppSink, prepared: &PreparedLine) -> Self {
        // The mailbox is the only queue, so the sink holds one buffer and keeps none after it is pulled.
        sink.set_property("max-buffers", 1u32);
        sink.set_property("enable-last-sample", false);
        sink.set_property("wait-on-eos", false);
        sink.set_property("qos", false);
        pipeline.connect_deep_element_added(|_, _, element| expect_single_stream(element));
        if !prepared.launch.contains(IDCT_METHOD) {
            // The elements of the line, and those that `decodebin` adds.
            for element in pipeline.iterate_recurse().into_iter().flatten() {
                decode_accurately(&element);
            }
            pipeline.connect_deep_element_added(|_, _, element| decode_accurately(element));
        }
        Self {
            pipeline,
            sink,
            line: prepared.shown.clone(),
            secrets: prepared.secrets.clone(),
            keep_running: false,
        }
    }

    pub fn keep_running(mut self) -> gst::Pipeline {
        self.keep_running = true;
        self.pipeline.clone()
    }

    pub fn set_state(&self, state: gst::State) -> Result<gst::StateChangeSuccess, CaptureError> {
        self.pipeline.set_state(state).map_err(|_| {
            let message = self
                .pipeline
                .bus()
                .and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
            match message.as_ref().map(|message| message.view()) {
                Some(gst::MessageView::Error(error)) => CaptureError::from_message(error, &self.secrets),
                _ => CaptureError::NoStart {
                    line: self.line.clone(),
                },
            }
        })
    }

    /// Restricts the sink to raw video in system memory, and inserts a JPEG decoder when the line delivers JPEG. Call
    /// it in READY: then a camera is open and lists its formats.
    pub fn require_raw_video(&self) -> Result<(), CaptureError> {
        self.sink.set_caps(Some(&formats::raw_pictures()));
        if !delivers_jpeg(&self.sink, &self.line)? {
            return Ok(());
        }
        if !is_installed("jpegdec") {
            return Err(CaptureError::MissingElements {
                elements: vec![MissingElement::new("jpegdec")],
                line: self.line.clone(),
            });
        }
        self.insert_jpeg_decoder().map_err(|error| CaptureError::Element {
            element: "jpegdec".to_owned(),
            message: "the source delivers JPEG, and no decoder can be added".to_owned(),
            debug: error.to_string(),
            line: None,
        })
    }

    fn insert_jpeg_decoder(&self) -> Result<(), gst::glib::BoolError> {
        let Some((upstream, sink_pad)) = upstream_pad(&self.sink).zip(self.sink.static_pad("sink")) else {
            return Ok(());
        };
        let decoder = gst::ElementFactory::make("jpegdec").build()?;
        self.pipeline.add(&decoder)?;
        upstream.unlink(&sink_pad)?;
        let input = decoder
            .static_pad("sink")
            .ok_or_else(|| gst::glib::bool_error!("jpegdec has no input"))?;
        upstream
            .link(&input)
            .map_err(|error| gst::glib::bool_error!("{error}"))?;
        decoder.link(&self.sink)?;
        decoder.sync_state_with_parent()?;
        tracing::info!(element = "jpegdec", "The source delivers JPEG; added a decoder");
        Ok(())
    }
}

/// The property of `jpegdec` that selects how exactly it computes.
const IDCT_METHOD: &str = "idct-method";

/// The default of `jpegdec` makes pictures 0.8 levels darker than what libjpeg, Pillow and Studio decode, and saves at
/// most 4 % of the time.
fn decode_accurately(element: &gst::Element) {
    if is_one_of(element, &["jpegdec"]) {
        element.set_property_from_str(IDCT_METHOD, "islow");
    }
}

/// A `multipartdemux` that `decodebin` adds would hold back 2 MB of pictures in case another stream follows. A small
/// MJPEG stream needs a minute for that.
fn expect_single_stream(element: &gst::Element) {
    if is_multipart_demuxer(element) {
        element.set_property("single-stream", true);
    }
}

/// Whether the element splits a stream of pictures (MJPEG).
pub(super) fn is_multipart_demuxer(element: &gst::Element) -> bool {
    is_one_of(element, &["multipartdemux"])
}

/// Whether the element is of one of these kinds.
pub(super) fn is_one_of(element: &gst::Element, names: &[&str]) -> bool {
    element
        .factory()
        .is_some_and(|factory| names.contains(&factory.name().as_str()))
}

/// The pad that is linked to the sink. `None` while nothing is linked: a demuxer or `decodebin` links itself when it
/// knows its formats.
fn upstream_pad(sink: &gst_app::AppSink) -> Option<gst::Pad> {
    sink.static_pad("sink").and_then(|pad| pad.peer())
}

/// Whether the element before the sink can deliver JPEG but no raw video, as far as it knows its formats now.
/// `line`: the launch line, without passwords.
///
/// # Errors
/// [`CaptureError::NotVideo`] when it delivers neither.
pub(super) fn delivers_jpeg(sink: &gst_app::AppSink, line: &str) -> Result<bool, CaptureError> {
    let Some(upstream) = upstream_pad(sink) else {
        return Ok(false);
    };
    let caps = upstream.query_caps(None);
    if caps.can_intersect(&gst::Caps::new_empty_simple("video/x-raw")) {
        return Ok(false);
    }
    if caps.can_intersect(&gst::Caps::new_empty_simple("image/jpeg")) {
        return Ok(true);
    }
    Err(CaptureError::NotVideo {
        caps: shortened(&caps.to_string()),
        line: line.to_owned(),
    })
}
