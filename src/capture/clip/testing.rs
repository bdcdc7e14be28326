//! Frames and files of clips for tests.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use uuid::Uuid;

use super::frame::{ClipFrame, FrameMemory};
use super::mp4::{ClipCodec, Haste, write_mp4};
use super::recorder::FinishedClip;
use crate::capture::init;

/// 40 frames of H.264 with B-frames, 64 x 48, ten a second, a key frame each second (made with x264enc).
pub(super) const H264_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/video/ball-h264.mp4");

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Frames of one scene.
pub(super) struct Footage {
    pub begin: Instant,
    pub memory: FrameMemory,
}

impl Footage {
    pub fn new() -> Self {
        init().unwrap();
        Self {
            begin: Instant::now(),
            memory: FrameMemory::default(),
        }
    }

    pub fn frame(&self, at_ms: u64, is_key: bool, bytes: usize) -> Arc<ClipFrame> {
        self.frame_of("video/x-h264", at_ms, is_key, bytes)
    }

    pub fn frame_of(&self, caps: &str, at_ms: u64, is_key: bool, bytes: usize) -> Arc<ClipFrame> {
        self.frame_with(caps, at_ms, is_key, vec![0; bytes])
    }

    pub fn frame_with(&self, caps: &str, at_ms: u64, is_key: bool, bytes: Vec<u8>) -> Arc<ClipFrame> {
        Arc::new(ClipFrame::new(
            gst::Buffer::from_slice(bytes),
            caps.parse().unwrap(),
            (self.begin + ms(at_ms), Duration::ZERO),
            is_key,
            &self.memory,
        ))
    }

    /// A clip that ends 100 ms after its last frame.
    pub fn clip(&self, id: Uuid, frames: Vec<Arc<ClipFrame>>) -> FinishedClip {
        let last = frames.last().map_or(self.begin, |frame| frame.at);
        FinishedClip {
            id,
            frames,
            end: last + ms(100),
        }
    }
}

/// A clip of JPEG pictures, ten a second.
pub(crate) fn jpeg_clip(id: Uuid, frames: u64) -> FinishedClip {
    let footage = Footage::new();
    // Without sides, as network cameras deliver it.
    let frame = |n: u64| footage.frame_with("image/jpeg", n * 100, true, jpeg(33, 24, n as u8));
    footage.clip(id, (0..frames).map(frame).collect())
}

pub(super) fn jpeg(width: u32, height: u32, shade: u8) -> Vec<u8> {
    let picture = image::RgbImage::from_pixel(width, height, image::Rgb([shade, 90, 90]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

/// Plays a line whose `appsink` has the name `sink`.
pub(super) fn play(line: &str) -> (gst::Pipeline, gst_app::AppSink) {
    init().unwrap();
    let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("sink").unwrap().downcast().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    (pipeline, sink)
}

/// What a player finds in a file.
pub(super) struct PlayedFile {
    pub caps: gst::Caps,
    pub duration: Duration,
    /// In order of decoding.
    pub frames: Vec<gst::Buffer>,
}

impl PlayedFile {
    /// Reads all frames, without decoding them.
    pub fn open(path: &Path) -> Self {
        init().unwrap();
        let line = format!(
            "filesrc location={} ! qtdemux ! appsink name=sink sync=false",
            path.display()
        );
        let (pipeline, sink) = play(&line);
        let mut samples = Vec::new();
        while let Ok(sample) = sink.pull_sample() {
            samples.push(sample);
        }
        let duration = pipeline.query_duration::<gst::ClockTime>().expect("a duration");
        pipeline.set_state(gst::State::Null).unwrap();
        Self {
            caps: samples.first().expect("frames").caps_owned().unwrap(),
            duration: duration.into(),
            frames: samples.iter().filter_map(|sample| sample.buffer_owned()).collect(),
        }
    }

    pub fn codec(&self) -> &str {
        self.caps.structure(0).unwrap().name()
    }

    pub fn fps(&self) -> f64 {
        self.frames.len() as f64 / self.duration.as_secs_f64()
    }
}

/// Writes a clip and plays it.
pub(super) fn written(clip: &FinishedClip, haste: &Haste) -> (ClipCodec, PlayedFile) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("clip.mp4");
    let codec = write_mp4(clip, &File::create_new(&path).unwrap(), haste).unwrap();
    (codec, PlayedFile::open(&path))
}
