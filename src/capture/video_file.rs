//! Frames as an MP4 file with H.264, encoded by an encoder of this machine while they arrive.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::frame::Frame;
use super::registry::init;
use super::video_encoder::h264_encoder;

/// Size of the video in pixels, and frames a second, as the program of Edge Impulse makes it.
pub const VIDEO_SIZE: (u32, u32) = (1280, 720);
/// Frames a second of the video.
pub const VIDEO_RATE: u32 = 25;
/// Frames that wait for the encoder, in bytes. Beyond that they are left out, and the one before is shown longer.
const WAITING_BYTES: u64 = 32 << 20;

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 100 << 20;

/// Why there is no video.
#[derive(Debug, thiserror::Error)]
pub enum VideoError {
    /// GStreamer lacks elements.
    #[error(
        "no video encoder is installed; install gstreamer1.0-plugins-ugly (x264enc) and gstreamer1.0-plugins-good (mp4mux)"
    )]
    NoEncoder,
    /// GStreamer lacks these elements.
    #[error("GStreamer lacks {0}")]
    Missing(String),
    /// Raw frames cannot be encoded for clips.
    #[error("no JPEG encoder is installed; install gstreamer1.0-plugins-good (jpegenc)")]
    NoJpegEncoder,
    /// A clip without frames.
    #[error("there is nothing to write, because the source delivered no picture")]
    NoFrames,
    /// The pipeline failed.
    #[error("the video could not be encoded: {0}")]
    Pipeline(String),
    /// The encoder did not come to an end.
    #[error("the video was not finished within {0:?}")]
    Timeout(Duration),
    /// The file is too large to be read into memory.
    #[error("the video has {0} bytes, more than the 100 MiB that Edge Impulse Studio takes")]
    TooLarge(u64),
    /// The file cannot be written or read.
    #[error("the file of the video: {0}")]
    File(#[from] std::io::Error),
}

/// Whether this machine can encode video.
pub fn can_encode_video() -> bool {
    init().is_ok() && encoder().is_some()
}

fn encoder() -> Option<&'static str> {
    h264_encoder(&["mp4mux", "videorate", "videoscale"])
}

/// Builds a pipeline whose `appsrc` has the name `source`. It does not play yet.
pub(super) fn launch_appsrc(line: &str) -> Result<(gst::Pipeline, gst_app::AppSrc), VideoError> {
    let wrong = |what: &str| VideoError::Pipeline(what.to_owned());
    let pipeline = gst::parse::launch(line).map_err(|error| wrong(error.message()))?;
    let pipeline = pipeline
        .downcast::<gst::Pipeline>()
        .map_err(|_| wrong("it is no pipeline"))?;
    let source = pipeline.by_name("source");
    let source = source.and_then(|element| element.downcast().ok());
    source
        .map(|source| (pipeline, source))
        .ok_or_else(|| wrong("it has no source"))
}

/// A video that is being encoded. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct VideoFile {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    path: PathBuf,
}

impl VideoFile {
    /// Starts to encode frames with the format of `first` into a temporary file at `path`.
    ///
    /// # Errors
    /// [`VideoError`]
    pub fn start(first: &Frame, path: PathBuf) -> Result<Self, VideoError> {
        init().map_err(|e| VideoError::Pipeline(e.to_string()))?;
        let encoder = encoder().ok_or(VideoError::NoEncoder)?;
        let ((width, height), rate) = (VIDEO_SIZE, VIDEO_RATE);
        let line = format!(
            "appsrc name=source format=time ! videoconvert ! videoscale ! videorate ! \
             video/x-raw,format=I420,width={width},height={height},framerate={rate}/1,pixel-aspect-ratio=1/1 ! \
             {encoder} ! mp4mux ! filesink name=sink sync=false"
        );
        let (pipeline, source) = launch_appsrc(&line)?;
        let wrong = |what: &str| VideoError::Pipeline(what.to_owned());
        let caps = first
            .sample
            .caps_owned()
            .ok_or_else(|| wrong("the frame has no format"))?;
        source.set_caps(Some(&caps));
        let sink = pipeline.by_name("sink").ok_or_else(|| wrong("it has no sink"))?;
        sink.set_property("location", path.display().to_string());
        let file = Self { pipeline, source, path };
        file.pipeline
            .set_state(gst::State::Playing)
            .map_err(|e| wrong(&file.error().unwrap_or_else(|| e.to_string())))?;
        Ok(file)
    }

    /// Adds a frame that is shown from `at` on, from the begin of the video. Never waits.
    ///
    /// # Errors
    /// The encoder failed.
    pub fn push(&self, frame: &Frame, at: Duration) -> Result<(), VideoError> {
        if self.source.current_level_bytes() > WAITING_BYTES {
            return Ok(());
        }
        let Some(mut buffer) = frame.sample.buffer().map(|buffer| buffer.to_owned()) else {
            return Ok(());
        };
        let writable = buffer.make_mut();
        writable.set_pts(gst::ClockTime::from_nseconds(at.as_nanos() as u64));
        writable.set_dts(gst::ClockTime::NONE);
        match self.source.push_buffer(buffer) {
            Ok(_) => Ok(()),
            Err(e) => Err(VideoError::Pipeline(self.error().unwrap_or_else(|| e.to_string()))),
        }
    }

    /// Ends the video and returns the file. Blocks until the last frame is encoded, at most `limit`.
    ///
    /// # Errors
    /// [`VideoError`]
    pub fn finish(self, limit: Duration) -> Result<Vec<u8>, VideoError> {
        // Fails only if the pipeline has failed, which the bus tells.
        let _ = self.source.end_of_stream();
        let bus = self
            .pipeline
            .bus()
            .ok_or_else(|| VideoError::Pipeline("it has no bus".to_owned()))?;
        let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
        let limit_ns = gst::ClockTime::from_nseconds(limit.as_nanos() as u64);
        match bus.timed_pop_filtered(limit_ns, &wanted) {
            Some(message) => {
                if let gst::MessageView::Error(error) = message.view() {
                    return Err(VideoError::Pipeline(error.error().message().to_owned()));
                }
            }
            None => return Err(VideoError::Timeout(limit)),
        }
        // The muxer has written its index; this closes the file.
        let _ = self.pipeline.set_state(gst::State::Null);
        let bytes = fs::metadata(&self.path)?.len();
        if bytes > MAX_BYTES {
            return Err(VideoError::TooLarge(bytes));
        }
        Ok(fs::read(&self.path)?)
    }

    /// The first error on the bus.
    fn error(&self) -> Option<String> {
        let message = self.pipeline.bus()?.pop_filtered(&[gst::MessageType::Error])?;
        match message.view() {
            gst::MessageView::Error(error) => Some(error.error().message().to_owned()),
            _ => None,
        }
    }
}

impl Drop for VideoFile {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
        let _ = fs::remove_file(&self.path);
    }
}
