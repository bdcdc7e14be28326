//! Detects an audio source that delivers nothing but zeros: a muted or wrong microphone.

use std::time::Duration;

/// A change that the log should show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SilenceEvent {
    /// The stream has been silent for [`SilenceDetector::LIMIT`] since its start.
    Silent,
    /// The stream is no longer silent.
    SoundStarted,
}

/// Watches the start of a stream for silence.
#[derive(Debug)]
pub(super) struct SilenceDetector {
    /// Samples until the stream counts as silent. `None` after sound, or after [`SilenceEvent::Silent`].
    remaining: Option<u64>,
    is_silent: bool,
}

impl SilenceDetector {
    /// How long a stream may start with silence.
    pub const LIMIT: Duration = Duration::from_secs(3);
    /// Samples of at most this amplitude are silence: converters round.
    const NOISE: u16 = 1;

    /// A detector at the start of a stream with this many samples per second.
    pub fn new(sample_rate: u32) -> Self {
        Self {
            remaining: Some(u64::from(sample_rate) * Self::LIMIT.as_secs()),
            is_silent: false,
        }
    }

    /// Adds samples. Returns each event at most once per stream.
    pub fn push_samples(&mut self, samples: &[i16]) -> Option<SilenceEvent> {
        if self.remaining.is_none() && !self.is_silent {
            return None;
        }
        if samples.iter().any(|sample| sample.unsigned_abs() > Self::NOISE) {
            self.remaining = None;
            return std::mem::take(&mut self.is_silent).then_some(SilenceEvent::SoundStarted);
        }
        let remaining = self.remaining?.saturating_sub(samples.len() as u64);
        self.remaining = Some(remaining).filter(|remaining| *remaining > 0);
        self.is_silent = remaining == 0;
        self.is_silent.then_some(SilenceEvent::Silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_at_the_start_and_its_end_are_reported_once() {
        let mut detector = SilenceDetector::new(10);
        let quiet = [0, 1, -1, 0, 0, 0, 0, 0, 0, 0];
        let events: Vec<_> = (0..5).map(|_| detector.push_samples(&quiet)).collect();
        assert_eq!(events, [None, None, Some(SilenceEvent::Silent), None, None]);
        assert_eq!(detector.push_samples(&[0, 2]), Some(SilenceEvent::SoundStarted));
        assert_eq!(detector.push_samples(&[0; 1000]), None);
    }

    #[test]
    fn a_pause_after_sound_is_not_reported() {
        let mut detector = SilenceDetector::new(10);
        assert_eq!(detector.push_samples(&[0, i16::MIN]), None);
        assert_eq!(detector.push_samples(&[0; 1000]), None);
    }
}
