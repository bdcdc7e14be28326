//! A video frame as GStreamer delivers it.

use std::time::Instant;

use gstreamer as gst;

use super::mailbox::Mailbox;

/// The newest frame, on its way to the inference loop. It outlives the captures that fill it.
pub type FrameMailbox = Mailbox<Frame>;

/// One frame of the source.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The frame in GStreamer's own memory, by reference.
    pub sample: gst::Sample,
    /// When it arrived.
    pub at: Instant,
}

impl Frame {
    /// Width and height in pixels; `None`: the frame has no caps of raw video.
    pub fn size(&self) -> Option<(u32, u32)> {
        let structure = self.sample.caps()?.structure(0)?;
        let side = |name| u32::try_from(structure.get::<i32>(name).ok()?).ok();
        Some((side("width")?, side("height")?))
    }

    /// A copy in memory of its own, so that the source gets its buffer back. `None` when the frame has no data or no
    /// caps, or when memory is exhausted.
    pub fn detached(&self) -> Option<Self> {
        let buffer = self.sample.buffer()?.copy_deep().ok()?;
        let caps = self.sample.caps_owned()?;
        Some(Self {
            sample: gst::Sample::builder().buffer(&buffer).caps(&caps).build(),
            at: self.at,
        })
    }
}
