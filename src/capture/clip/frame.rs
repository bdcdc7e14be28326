//! One encoded frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;

/// Bytes of all frames in memory: in the ring, in clips, and in clips that wait to be written.
#[derive(Debug, Clone, Default)]
pub(super) struct FrameMemory(Arc<AtomicUsize>);

impl FrameMemory {
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One encoded frame: JPEG, or an access unit of H.264. Clips share it.
#[derive(Debug)]
pub(super) struct ClipFrame {
    /// The bytes, in memory of its own.
    pub buffer: gst::Buffer,
    pub caps: gst::Caps,
    /// When it has to be decoded.
    pub at: Instant,
    /// How much later it is shown.
    pub show_after: Duration,
    /// A decoder can begin with it.
    pub is_key: bool,
    memory: FrameMemory,
}

impl ClipFrame {
    /// Counts the bytes in `memory` until the frame is dropped.
    pub(super) fn new(
        buffer: gst::Buffer,
        caps: gst::Caps,
        (at, show_after): (Instant, Duration),
        is_key: bool,
        memory: &FrameMemory,
    ) -> Self {
        memory.0.fetch_add(buffer.size(), Ordering::Relaxed);
        Self {
            buffer,
            caps,
            at,
            show_after,
            is_key,
            memory: memory.clone(),
        }
    }

    /// Number of bytes.
    pub(super) fn size(&self) -> usize {
        self.buffer.size()
    }
}

impl Drop for ClipFrame {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.buffer.size(), Ordering::Relaxed);
    }
}
