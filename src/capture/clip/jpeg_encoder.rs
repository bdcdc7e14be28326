//! Encodes raw frames as JPEG, for sources without an encoding of their own.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::recorder::{CLIP_RATE, ClipRecorder};
use crate::capture::frame::Frame;
use crate::capture::registry::is_installed;
use crate::capture::video_file::{VideoError, launch_appsrc};

/// The picture fits into these sides.
const MAX_SIDES: (u32, u32) = (1280, 720);
/// Frames that wait to be encoded. Further ones are left out.
const WAITING_FRAMES: u64 = 2;

/// A running encoder for frames of one format.
pub(super) struct JpegEncoder {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    caps: gst::Caps,
    begin: Instant,
}

impl JpegEncoder {
    /// Starts an encoder for frames like `first`, which it does not encode. The frames come to `recorder`.
    pub(super) fn start(first: &Frame, recorder: &Arc<ClipRecorder>) -> Result<Self, VideoError> {
        let wrong = |what: &str| VideoError::Pipeline(what.to_owned());
        if !is_installed("jpegenc") {
            return Err(VideoError::NoJpegEncoder);
        }
        let caps = first
            .sample
            .caps_owned()
            .ok_or_else(|| wrong("the frame has no format"))?;
        let (width, height) = fit(first.size().ok_or_else(|| wrong("the frame has no size"))?);
        let line = format!(
            "appsrc name=source format=time ! videoscale ! videoconvert ! \
             video/x-raw,width={width},height={height},pixel-aspect-ratio=1/1 ! jpegenc quality=75 ! \
             appsink name=sink sync=false enable-last-sample=false"
        );
        let (pipeline, source) = launch_appsrc(&line)?;
        let sink = pipeline
            .by_name("sink")
            .and_then(|e| e.downcast::<gst_app::AppSink>().ok());
        let sink = sink.ok_or_else(|| wrong("it has no sink"))?;
        source.set_caps(Some(&caps));
        let begin = first.at;
        sink.set_callbacks(callbacks(Arc::downgrade(recorder), begin));
        super::mp4::work_in_background(&pipeline);
        let encoder = Self {
            pipeline,
            source,
            caps,
            begin,
        };
        encoder
            .pipeline
            .set_state(gst::State::Playing)
            .map_err(|e| wrong(&e.to_string()))?;
        Ok(encoder)
    }

    /// Whether the frame has the format of this encoder.
    pub(super) fn takes(&self, frame: &Frame) -> bool {
        frame.sample.caps().is_some_and(|caps| *caps == *self.caps)
    }

    /// Adds a frame. Never waits: if the encoder is too slow, the frame is left out.
    pub(super) fn push(&self, frame: &Frame) -> Result<(), VideoError> {
        let Some(buffer) = frame.sample.buffer() else {
            return Ok(());
        };
        if self.source.current_level_bytes() >= WAITING_FRAMES * buffer.size() as u64 {
            return Ok(());
        }
        // A copy: the source needs its buffer back.
        let Ok(mut buffer) = buffer.copy_deep() else {
            return Ok(());
        };
        if let Some(buffer) = buffer.get_mut() {
            let at = frame.at.saturating_duration_since(self.begin);
            buffer.set_pts(gst::ClockTime::try_from(at).ok());
            buffer.set_dts(gst::ClockTime::NONE);
        }
        let pushed = self.source.push_buffer(buffer);
        pushed.map(drop).map_err(|e| VideoError::Pipeline(e.to_string()))
    }
}

impl Drop for JpegEncoder {
    fn drop(&mut self) {
        let pipeline = self.pipeline.clone();
        // Stopping waits for the thread of the pipeline, which may be about to add a frame to the recorder that drops this.
        let _ = std::thread::Builder::new()
            .name("clip-encoder-stop".into())
            .spawn(move || {
                let _ = pipeline.set_state(gst::State::Null);
            });
    }
}

fn callbacks(recorder: Weak<ClipRecorder>, begin: Instant) -> gst_app::AppSinkCallbacks {
    let caps = gst::Caps::builder("image/jpeg");
    let mut known: Option<gst::Caps> = None;
    let template = caps.field("framerate", gst::Fraction::new(CLIP_RATE as i32, 1)).build();
    gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let recorder = recorder.upgrade().ok_or(gst::FlowError::Eos)?;
            let (Some(buffer), Some(structure)) = (sample.buffer_owned(), sample.caps().and_then(|c| c.structure(0)))
            else {
                return Ok(gst::FlowSuccess::Ok);
            };
            let caps = known.get_or_insert_with(|| {
                let mut caps = template.clone();
                for side in ["width", "height"] {
                    if let Ok(pixels) = structure.get::<i32>(side) {
                        caps.make_mut().set(side, pixels);
                    }
                }
                caps
            });
            let at = buffer.pts().map_or(Duration::ZERO, Into::into);
            recorder.add_encoded(buffer, caps.clone(), begin + at);
            Ok(gst::FlowSuccess::Ok)
        })
        .build()
}

/// The largest even sides within [`MAX_SIDES`], with the shape of the frame.
fn fit((width, height): (u32, u32)) -> (u32, u32) {
    let (width, height) = (f64::from(width.max(2)), f64::from(height.max(2)));
    let scale = (f64::from(MAX_SIDES.0) / width)
        .min(f64::from(MAX_SIDES.1) / height)
        .min(1.0);
    let even = |side: f64| ((side * scale / 2.0).round() as u32 * 2).max(2);
    (even(width), even(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_made_to_fit_and_has_even_sides() {
        for (given, fitted) in [
            ((1280, 720), (1280, 720)),
            ((1920, 1080), (1280, 720)),
            ((3840, 2160), (1280, 720)),
            ((640, 480), (640, 480)),
            ((1600, 1200), (960, 720)),
            ((1080, 1920), (406, 720)),
            ((33, 25), (34, 26)),
            ((1, 1), (2, 2)),
        ] {
            assert_eq!(fit(given), fitted, "{given:?}");
        }
    }
}
