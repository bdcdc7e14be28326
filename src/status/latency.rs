//! Inference latency: time from a request to the answer of the model, over the last [`WINDOW`] inferences.

/// Number of round trips that are kept: about half a minute at 15 frames per second.
pub const WINDOW: usize = 512;

/// Ring buffer of round-trip times in milliseconds; adding one allocates nothing.
#[derive(Debug, Clone)]
pub struct LatencyWindow {
    ring: [f32; WINDOW],
    /// Number of times ever added; the newest is at `(added - 1) % WINDOW`.
    added: usize,
}

/// The latency in milliseconds; all 0 before the first inference.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Latency {
    /// The newest round trip.
    pub last: f32,
    /// Median.
    pub p50: f32,
    /// 95th percentile.
    pub p95: f32,
}

impl Default for LatencyWindow {
    fn default() -> Self {
        Self {
            ring: [0.0; WINDOW],
            added: 0,
        }
    }
}

impl LatencyWindow {
    /// Adds one round trip, which replaces the oldest when the window is full. Negative times, infinity and NaN are ignored.
    pub fn add(&mut self, ms: f32) {
        if ms.is_finite() && ms >= 0.0 {
            self.ring[self.added % WINDOW] = ms;
            self.added += 1;
        }
    }

    /// The latency now.
    pub fn percentiles(&self) -> Latency {
        let filled = self.added.min(WINDOW);
        if filled == 0 {
            return Latency::default();
        }
        let mut sorted = self.ring;
        let sorted = &mut sorted[..filled];
        sorted.sort_unstable_by(f32::total_cmp);
        Latency {
            last: self.ring[(self.added - 1) % WINDOW],
            p50: sorted[nearest_rank(filled, 50)],
            p95: sorted[nearest_rank(filled, 95)],
        }
    }
}

/// Index of the `percent`th percentile among `filled` (at least 1) sorted values: the smallest value that at least
/// `percent` of 100 values do not exceed.
fn nearest_rank(filled: usize, percent: usize) -> usize {
    (filled * percent).div_ceil(100).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks_of_the_added_times() {
        let mut window = LatencyWindow::default();
        assert_eq!(window.percentiles(), Latency::default());
        (1..=100).rev().for_each(|ms| window.add(ms as f32));
        assert_eq!(
            window.percentiles(),
            Latency {
                last: 1.0,
                p50: 50.0,
                p95: 95.0
            }
        );
    }

    #[test]
    fn only_the_newest_512_times_are_used() {
        let mut window = LatencyWindow::default();
        (0..300).for_each(|_| window.add(1000.0));
        (0..WINDOW).for_each(|_| window.add(7.0));
        assert_eq!(
            window.percentiles(),
            Latency {
                last: 7.0,
                p50: 7.0,
                p95: 7.0
            }
        );
    }

    #[test]
    fn invalid_times_are_ignored() {
        let mut window = LatencyWindow::default();
        for ms in [f32::NAN, f32::INFINITY, -1.0] {
            window.add(ms);
        }
        assert_eq!(window.percentiles(), Latency::default());
    }
}
