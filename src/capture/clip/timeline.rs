//! When frames were taken: by the timestamps of the source, which are steadier than their arrival.

use std::time::{Duration, Instant};

use gstreamer as gst;

/// A timestamp that is further from the arrival than this is not believed: the source was started again, or plays a file
/// faster than real time.
const MAX_DEVIATION: Duration = Duration::from_millis(500);
/// The least time between two frames.
const STEP: Duration = Duration::from_micros(100);

/// Maps timestamps to steady time.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// A point in time and its timestamp.
    origin: Option<(Instant, gst::ClockTime)>,
    last: Option<Instant>,
}

impl Timeline {
    /// The time of a frame with this timestamp, later than that of the frame before.
    pub(super) fn place(&mut self, arrived: Instant, timestamp: Option<gst::ClockTime>) -> Instant {
        let by_timestamp = timestamp.and_then(|timestamp| {
            let (origin, first) = self.origin?;
            match timestamp.checked_sub(first) {
                Some(since) => origin.checked_add(since.into()),
                None => origin.checked_sub((first - timestamp).into()),
            }
        });
        let is_near = |at: &Instant| {
            let deviation = at.max(&arrived).saturating_duration_since(*at.min(&arrived));
            deviation <= MAX_DEVIATION
        };
        let at = by_timestamp.filter(is_near).unwrap_or_else(|| {
            self.origin = timestamp.map(|timestamp| (arrived, timestamp));
            arrived
        });
        let at = self.last.map_or(at, |last| at.max(last + STEP));
        self.last = Some(at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_arrive_unevenly_keep_the_distances_of_their_timestamps() {
        let (mut timeline, begin) = (Timeline::default(), Instant::now());
        let after = |ms| begin + Duration::from_millis(ms);
        let stamp = |ms| Some(gst::ClockTime::from_mseconds(ms));
        assert_eq!(timeline.place(begin, stamp(7000)), begin);
        assert_eq!(timeline.place(after(140), stamp(7100)), after(100));
        assert_eq!(timeline.place(after(190), stamp(7200)), after(200));
        assert_eq!(timeline.place(after(310), None), after(310));
    }

    #[test]
    fn timestamps_that_begin_again_begin_at_the_arrival() {
        let (mut timeline, begin) = (Timeline::default(), Instant::now());
        let after = |ms| begin + Duration::from_millis(ms);
        timeline.place(begin, Some(gst::ClockTime::from_seconds(90)));
        let restarted = timeline.place(after(3000), Some(gst::ClockTime::ZERO));
        assert_eq!(restarted, after(3000));
        let next = timeline.place(after(3110), Some(gst::ClockTime::from_mseconds(100)));
        assert_eq!(next, after(3100));
    }

    #[test]
    fn time_never_stands_still_or_goes_back() {
        let (mut timeline, begin) = (Timeline::default(), Instant::now());
        let mut last = timeline.place(begin, Some(gst::ClockTime::from_mseconds(100)));
        for _ in 0..3 {
            let next = timeline.place(begin, Some(gst::ClockTime::from_mseconds(40)));
            assert!(next > last);
            last = next;
        }
    }
}
