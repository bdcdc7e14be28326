//! The last seconds of encoded video.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame::ClipFrame;

/// The newest frames, from a key frame on.
#[derive(Debug)]
pub(super) struct ClipRing {
    frames: VecDeque<Arc<ClipFrame>>,
    bytes: usize,
    max_bytes: usize,
}

impl ClipRing {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            max_bytes,
        }
    }

    /// Adds the newest frame. Drops the frames that are not needed to show the last `keep`, and more if there are too many bytes.
    pub(super) fn push(&mut self, frame: &Arc<ClipFrame>, keep: Duration) {
        if self.frames.back().is_some_and(|last| last.caps != frame.caps) {
            // They cannot be in the same clip.
            self.clear();
        }
        if self.frames.is_empty() && !frame.is_key {
            return;
        }
        self.bytes += frame.size();
        self.frames.push_back(Arc::clone(frame));
        while let Some(next) = self.second_key_frame() {
            let is_old = self.frames[next].at + keep <= frame.at;
            if !is_old && self.bytes <= self.max_bytes {
                return;
            }
            for dropped in self.frames.drain(..next) {
                self.bytes -= dropped.size();
            }
        }
        if self.bytes > self.max_bytes {
            // Without its begin the rest cannot be decoded.
            self.clear();
        }
    }

    fn second_key_frame(&self) -> Option<usize> {
        (1..self.frames.len()).find(|index| self.frames[*index].is_key)
    }

    fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }

    /// The frames from `begin` on, and those before it that are needed to decode the first one.
    pub(super) fn since(&self, begin: Instant) -> Vec<Arc<ClipFrame>> {
        let first = self.frames.iter().rposition(|frame| frame.is_key && frame.at <= begin);
        self.frames.range(first.unwrap_or(0)..).cloned().collect()
    }

    /// The time of the newest frame.
    pub(super) fn newest(&self) -> Option<Instant> {
        self.frames.back().map(|frame| frame.at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Footage, ms};
    use super::*;

    const KEEP: Duration = Duration::from_secs(2);

    /// A frame each 100 ms for `count` frames, a key frame each `group`.
    fn filled(ring: &mut ClipRing, count: u64, group: u64, bytes: usize) -> Footage {
        let footage = Footage::new();
        for n in 0..count {
            ring.push(&footage.frame(n * 100, n % group == 0, bytes), KEEP);
        }
        footage
    }

    #[test]
    fn the_ring_keeps_what_the_last_seconds_need() {
        for group in [1, 5, 30] {
            let mut ring = ClipRing::new(1 << 20);
            let footage = filled(&mut ring, 100, group, 100);
            let begin = footage.begin + ms(9900) - KEEP;
            let frames = ring.since(begin);
            assert!(frames[0].is_key && frames[0].at <= begin, "group of {group}");
            assert!(begin - frames[0].at < ms(100 * group), "group of {group}");
            assert_eq!(frames.last().unwrap().at, footage.begin + ms(9900));
            assert!(
                footage.memory.bytes() as u64 <= 100 * (21 + 2 * group),
                "group of {group}"
            );
        }
    }

    #[test]
    fn the_ring_is_bounded_in_bytes() {
        let mut ring = ClipRing::new(1000);
        let footage = filled(&mut ring, 50, 1, 300);
        assert_eq!(footage.memory.bytes(), 900);
        assert_eq!(ring.since(footage.begin)[0].at, footage.begin + ms(4700));
        // One group that is larger than the ring cannot be decoded in part.
        let footage = filled(&mut ring, 50, 100, 300);
        assert!(footage.memory.bytes() <= 1000);
    }

    #[test]
    fn frames_before_the_first_key_frame_and_of_another_format_are_not_kept() {
        let mut ring = ClipRing::new(1 << 20);
        let footage = Footage::new();
        ring.push(&footage.frame(0, false, 10), KEEP);
        assert_eq!(ring.newest(), None);
        ring.push(&footage.frame(100, true, 10), KEEP);
        ring.push(&footage.frame_of("image/jpeg,width=2", 200, true, 10), KEEP);
        assert_eq!(ring.since(footage.begin).len(), 1);
    }
}
