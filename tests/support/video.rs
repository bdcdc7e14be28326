//! What a player finds in a video.

use std::path::Path;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

/// A video that was read to its end.
#[derive(Debug)]
pub struct Video {
    /// `video/x-h264` or `image/jpeg`.
    pub codec: String,
    pub duration: Duration,
    pub frames: usize,
}

impl Video {
    /// Reads an MP4 file.
    #[track_caller]
    pub fn open(path: &Path) -> Self {
        gst::init().unwrap();
        let line = format!(
            "filesrc location={} ! qtdemux ! appsink name=sink sync=false",
            path.display()
        );
        let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        let sink = pipeline
            .by_name("sink")
            .unwrap()
            .downcast::<gst_app::AppSink>()
            .unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let first = sink.pull_sample().expect("a frame");
        let codec = first.caps().unwrap().structure(0).unwrap().name().to_string();
        let mut frames = 1;
        while sink.pull_sample().is_ok() {
            frames += 1;
        }
        let duration = pipeline.query_duration::<gst::ClockTime>().expect("a duration").into();
        pipeline.set_state(gst::State::Null).unwrap();
        Self {
            codec,
            duration,
            frames,
        }
    }
}
