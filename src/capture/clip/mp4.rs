//! Writes a clip as an MP4 file.

use std::fs::File;
use std::io::Cursor;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::frame::ClipFrame;
use super::recorder::{CLIP_RATE, FinishedClip};
use crate::capture::MissingElement;
use crate::capture::registry::{init, is_installed};
use crate::capture::video_encoder::h264_encoder;
use crate::capture::video_file::{VideoError, launch_appsrc};

/// How often a wait for the encoder looks whether it should hurry.
const CHECK_INTERVAL: gst::ClockTime = gst::ClockTime::from_mseconds(50);
/// Time for writing one clip.
const WRITE_LIMIT: Duration = Duration::from_secs(180);
/// Priority of the threads that encode, so that the inference comes first.
const NICE: i32 = 10;

/// The encoding in the file of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClipCodec {
    /// H.264.
    H264,
    /// JPEG pictures (MJPEG). VLC and ffmpeg play it, browsers do not.
    MotionJpeg,
}

/// Whether a clip must be written as fast as possible: JPEG is then not encoded as H.264.
#[derive(Debug, Default)]
pub struct Haste(AtomicBool);

impl Haste {
    /// From now on.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The encoding of clips from a source that delivers no H.264.
///
/// # Errors
/// Clips cannot be written: names the elements that are not installed, and what to install.
pub fn clip_codec() -> Result<ClipCodec, String> {
    init().map_err(|e| e.to_string())?;
    require(["jpegenc", "jpegdec", "mp4mux", "qtmux", "fdsink"]).map_err(|e| e.to_string())?;
    Ok(match h264_encoder(&["videoscale"]) {
        Some(_) => ClipCodec::H264,
        None => ClipCodec::MotionJpeg,
    })
}

/// Checks that elements are installed.
fn require<'e>(elements: impl IntoIterator<Item = &'e str>) -> Result<(), VideoError> {
    let missing: Vec<_> = elements
        .into_iter()
        .filter(|element| !is_installed(element))
        .map(|element| MissingElement::new(element).to_string())
        .collect();
    match &missing[..] {
        [] => Ok(()),
        missing => Err(VideoError::Missing(missing.join(", "))),
    }
}

/// Writes the clip into an empty file. Blocks. JPEG is encoded as H.264 if an encoder is installed and works.
///
/// # Errors
/// [`VideoError`]. The content of the file cannot be used.
pub fn write_mp4(clip: &FinishedClip, file: &File, haste: &Haste) -> Result<ClipCodec, VideoError> {
    init().map_err(|e| VideoError::Pipeline(e.to_string()))?;
    let first = clip.frames.first().ok_or(VideoError::NoFrames)?;
    let encoder = h264_encoder(&["videoscale"]).filter(|_| !haste.is_begun());
    let size = clip.frames.iter().find_map(|frame| jpeg_size(frame));
    match Encoding::of(&first.caps, size, encoder) {
        Encoding::Stored(chain, codec) => run(&chain, clip, size, file, None).map(|_| codec),
        Encoding::Again(chain) => {
            match run(&chain, clip, size, file, Some(haste)) {
                Ok(true) => return Ok(ClipCodec::H264),
                Ok(false) => {}
                Err(error) => tracing::warn!(
                    event = %clip.id, %error,
                    "The clip of an event cannot be encoded as H.264, and is stored as JPEG pictures"
                ),
            }
            file.set_len(0)?;
            run(&motion_jpeg(), clip, size, file, None).map(|_| ClipCodec::MotionJpeg)
        }
    }
}

/// The elements between the source and the sink. The caps tell a muxer that its input is video.
enum Encoding {
    /// As the frames are.
    Stored(String, ClipCodec),
    /// Decode JPEG and encode H.264.
    Again(String),
}

impl Encoding {
    /// `size`: of the first JPEG picture that can be read. An encoder needs even sides, and the same for the whole clip.
    fn of(caps: &gst::CapsRef, size: Option<(u32, u32)>, encoder: Option<&str>) -> Self {
        let format = caps.structure(0);
        let is_jpeg = format.is_some_and(|format| format.name() == "image/jpeg");
        match encoder.zip(size) {
            Some((encoder, (width, height))) if is_jpeg => Self::Again(format!(
                "jpegdec ! videoconvert ! videoscale ! \
                 video/x-raw,format=I420,width={},height={},pixel-aspect-ratio=1/1 ! {encoder} ! mp4mux",
                width.next_multiple_of(2),
                height.next_multiple_of(2)
            )),
            _ if is_jpeg => Self::Stored(motion_jpeg(), ClipCodec::MotionJpeg),
            _ => {
                let is_packets = format
                    .and_then(|format| format.get::<&str>("stream-format").ok())
                    .is_some_and(|format| format == "avc");
                let chain = if is_packets {
                    "video/x-h264 ! mp4mux"
                } else {
                    "h264parse ! mp4mux"
                };
                Self::Stored(chain.to_owned(), ClipCodec::H264)
            }
        }
    }
}

/// `mp4mux` takes no JPEG. QuickTime files have the same structure.
fn motion_jpeg() -> String {
    "image/jpeg ! qtmux".to_owned()
}

/// Runs a pipeline over the frames. Returns `false` if it was given up because of `haste`.
fn run(
    chain: &str,
    clip: &FinishedClip,
    size: Option<(u32, u32)>,
    mut file: &File,
    haste: Option<&Haste>,
) -> Result<bool, VideoError> {
    use std::io::Seek;
    let elements = chain.split('!').filter_map(|part| part.split_whitespace().next());
    require(elements.filter(|element| !element.contains('/')))?;
    file.rewind()?;
    let fd = file.as_raw_fd();
    let line = format!("appsrc name=source format=time max-bytes=0 ! {chain} ! fdsink name=sink sync=false fd={fd}");
    let wrong = |what: &str| VideoError::Pipeline(what.to_owned());
    let (pipeline, source) = launch_appsrc(&line)?;
    let pipeline = StoppedAtEnd(pipeline);
    work_in_background(&pipeline.0);
    let bus = pipeline.0.bus().ok_or_else(|| wrong("it has no bus"))?;
    source.set_caps(clip.frames.first().map(|frame| stored_caps(&frame.caps, size)).as_ref());
    // Its reason is on the bus.
    let _ = pipeline.0.set_state(gst::State::Playing);
    push_frames(&source, clip);
    let _ = source.end_of_stream();
    let give_up = Instant::now() + WRITE_LIMIT;
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    loop {
        match bus.timed_pop_filtered(CHECK_INTERVAL, &wanted) {
            Some(message) => {
                return match message.view() {
                    gst::MessageView::Error(error) => Err(wrong(&error_text(error))),
                    _ => Ok(true),
                };
            }
            None if haste.is_some_and(Haste::is_begun) => return Ok(false),
            None if Instant::now() > give_up => return Err(VideoError::Timeout(WRITE_LIMIT)),
            None => {}
        }
    }
}

/// The message with its reason: most messages of GStreamer say little alone.
fn error_text(error: &gst::message::Error) -> String {
    let detail = error.debug().unwrap_or_default();
    let reason = detail.lines().last().unwrap_or_default();
    format!("{} {reason}", error.error().message()).trim_end().to_owned()
}

struct StoppedAtEnd(gst::Pipeline);

impl Drop for StoppedAtEnd {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// Adds all frames, which are in memory already.
fn push_frames(source: &gst_app::AppSrc, clip: &FinishedClip) {
    let Some(begin) = clip.frames.first().map(|frame| frame.at) else {
        return;
    };
    let time = |at: Instant| gst::ClockTime::try_from(at.saturating_duration_since(begin)).ok();
    for (index, frame) in clip.frames.iter().enumerate() {
        let duration = match clip.frames.get(index + 1) {
            Some(next) => next.at - frame.at,
            None => clip.last_frame(),
        };
        // Shares the bytes.
        let mut buffer = frame.buffer.copy();
        let buffer_ref = buffer.make_mut();
        buffer_ref.set_pts(time(frame.at + frame.show_after));
        buffer_ref.set_dts(time(frame.at));
        buffer_ref.set_duration(gst::ClockTime::try_from(duration).ok());
        // JPEG frames do not depend on each other.
        let mut flags = buffer_ref.flags();
        flags.set(gst::BufferFlags::DELTA_UNIT, !frame.is_key);
        flags.set(gst::BufferFlags::DISCONT, index == 0);
        buffer_ref.unset_flags(gst::BufferFlags::DELTA_UNIT | gst::BufferFlags::DISCONT);
        buffer_ref.set_flags(flags & (gst::BufferFlags::DELTA_UNIT | gst::BufferFlags::DISCONT));
        // Fails only if the pipeline has failed, which the bus tells.
        if source.push_buffer(buffer).is_err() {
            return;
        }
    }
}

/// The format of the frames. JPEG of network cameras has no size in its caps, and every source of JPEG is thinned out.
fn stored_caps(caps: &gst::Caps, size: Option<(u32, u32)>) -> gst::Caps {
    let mut caps = caps.clone();
    let is_jpeg = caps.structure(0).is_some_and(|format| format.name() == "image/jpeg");
    if !is_jpeg {
        return caps;
    }
    let stored = caps.make_mut();
    stored.set("framerate", gst::Fraction::new(CLIP_RATE as i32, 1));
    if let Some((width, height)) = size {
        stored.set("width", width as i32);
        stored.set("height", height as i32);
    }
    caps
}

fn jpeg_size(frame: &ClipFrame) -> Option<(u32, u32)> {
    let data = frame.buffer.map_readable().ok()?;
    let reader = image::ImageReader::with_format(Cursor::new(&data[..]), image::ImageFormat::Jpeg);
    reader.into_dimensions().ok()
}

/// Lowers the priority of the threads of a pipeline.
pub(super) fn work_in_background(pipeline: &gst::Pipeline) {
    let Some(bus) = pipeline.bus() else { return };
    bus.set_sync_handler(|_, message| {
        if let gst::MessageView::StreamStatus(status) = message.view()
            && status.get().0 == gst::StreamStatusType::Enter
        {
            // On Linux this sets the priority of the calling thread. If it fails, the thread has the usual one.
            let _ = rustix::process::setpriority_process(None, NICE);
        }
        gst::BusSyncReply::Pass
    });
}

#[cfg(test)]
#[path = "mp4_tests.rs"]
mod tests;
