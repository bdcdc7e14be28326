//! Cuts a stream of audio samples into the windows and slices that an audio model classifies.

use std::time::{Duration, Instant};

use crate::capture::mailbox::Mailbox;
use crate::model::ModelInput;

/// Time between two windows when the model has no slice size.
const DEFAULT_STEP: Duration = Duration::from_millis(250);
/// At most this much audio waits for the model; beyond it the oldest windows are dropped.
const QUEUE_DURATION: Duration = Duration::from_secs(4);

/// The queue of windows to the inference loop. It outlives the captures that fill it.
pub type AudioMailbox = Mailbox<AudioWindow>;

/// The audio that a model classifies; lengths in samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioFormat {
    /// Samples per second.
    pub sample_rate: u32,
    /// Length of a whole window (`input_features_count`).
    pub window: usize,
    /// New samples from one window to the next (`slice_size`, or a quarter of a second).
    pub step: usize,
    /// The model is given only the new samples (`classify_continuous`) and keeps the window itself.
    pub continuous: bool,
}

impl AudioFormat {
    /// The format of a model with this input and number of features. `None` when it is no audio model.
    pub fn of(input: &ModelInput, features: usize) -> Option<Self> {
        let ModelInput::Audio {
            frequency,
            slice_size,
            continuous,
        } = *input
        else {
            return None;
        };
        let default = (u128::from(frequency) * DEFAULT_STEP.as_millis() / 1000) as usize;
        Some(Self {
            sample_rate: frequency,
            window: features,
            step: if slice_size > 0 { slice_size } else { default.max(1) },
            continuous,
        })
    }

    /// How many windows may wait for the model: four seconds of audio, at least two windows.
    pub fn queue_capacity(&self) -> usize {
        let samples = u64::from(self.sample_rate) * QUEUE_DURATION.as_secs();
        usize::try_from(samples / self.step.max(1) as u64).map_or(2, |windows| windows.max(2))
    }
}

/// The audio of one classification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioWindow {
    /// The newest samples, at most a whole window. The first slices of a stream have fewer.
    pub samples: Vec<i16>,
    /// How many of the samples, counted from the end, the model gets: all, or one slice in continuous mode.
    pub feature_count: usize,
    /// When the last sample arrived.
    pub at: Instant,
}

impl AudioWindow {
    /// The samples for the model.
    pub fn features(&self) -> &[i16] {
        &self.samples[self.samples.len().saturating_sub(self.feature_count)..]
    }
}

/// Cuts a stream of samples into windows.
#[derive(Debug)]
pub(super) struct AudioFramer {
    format: AudioFormat,
    /// How many samples are kept: a window, or a slice when that is longer.
    keep: usize,
    kept: Vec<i16>,
    /// Samples until the next window is complete.
    missing: usize,
}

impl AudioFramer {
    /// A framer at the start of a stream.
    pub fn new(format: AudioFormat) -> Self {
        let step = format.step.max(1);
        let keep = format.window.max(if format.continuous { step } else { 1 });
        Self {
            format: AudioFormat { step, ..format },
            keep,
            kept: Vec::with_capacity(keep + step),
            missing: if format.continuous { step } else { keep },
        }
    }

    /// Adds samples. Calls `emit` with each window that is complete now, until it returns `false`. Returns what `emit`
    /// returned last, or `true`.
    pub fn push_samples(
        &mut self,
        mut samples: &[i16],
        at: Instant,
        mut emit: impl FnMut(AudioWindow) -> bool,
    ) -> bool {
        while !samples.is_empty() {
            let (now, later) = samples.split_at(self.missing.min(samples.len()));
            self.kept.extend_from_slice(now);
            self.missing -= now.len();
            samples = later;
            if self.missing > 0 {
                break;
            }
            self.missing = self.format.step;
            let surplus = self.kept.len().saturating_sub(self.keep);
            self.kept.drain(..surplus);
            let window = AudioWindow {
                samples: self.kept.clone(),
                feature_count: if self.format.continuous {
                    self.format.step
                } else {
                    self.keep
                },
                at,
            };
            if !emit(window) {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn format(window: usize, step: usize, continuous: bool) -> AudioFormat {
        AudioFormat {
            sample_rate: 16,
            window,
            step,
            continuous,
        }
    }

    /// The windows of a stream that comes in pieces of these lengths.
    fn windows(format: AudioFormat, pieces: &[usize]) -> Vec<AudioWindow> {
        let (mut framer, mut windows, mut next) = (AudioFramer::new(format), Vec::new(), 0i16);
        for &length in pieces {
            let samples: Vec<i16> = (0..length).map(|i| next.wrapping_add(i as i16)).collect();
            next = next.wrapping_add(length as i16);
            framer.push_samples(&samples, Instant::now(), |window| {
                windows.push(window);
                true
            });
        }
        windows
    }

    #[test]
    fn a_full_window_comes_first_and_then_one_every_step() {
        let framed: Vec<_> = windows(format(4, 2, false), &[3, 3, 1, 1])
            .iter()
            .map(|window| window.features().to_vec())
            .collect();
        assert_eq!(framed, [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]);
    }

    #[test]
    fn a_continuous_model_gets_each_slice_and_the_whole_window_is_kept() {
        let framed = windows(format(4, 2, true), &[7]);
        let slices: Vec<_> = framed.iter().map(AudioWindow::features).collect();
        assert_eq!(slices, [[0, 1], [2, 3], [4, 5]]);
        let kept: Vec<_> = framed.iter().map(|window| window.samples.len()).collect();
        assert_eq!(kept, [2, 4, 4]);
        assert_eq!(framed[2].samples, [2, 3, 4, 5]);
    }

    #[test]
    fn a_step_longer_than_the_window_skips_samples() {
        let framed: Vec<_> = windows(format(2, 5, false), &[13])
            .iter()
            .map(|window| window.samples.clone())
            .collect();
        assert_eq!(framed, [[0, 1], [5, 6], [10, 11]]);
        assert_eq!(windows(format(2, 3, true), &[6])[1].features(), [3, 4, 5]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn pieces_of_any_length_give_the_same_windows(
            pieces in prop::collection::vec(0usize..40, 1..12),
            window in 1usize..30,
            step in 1usize..30,
            continuous in any::<bool>(),
        ) {
            let (total, format) = (pieces.iter().sum::<usize>(), format(window, step, continuous));
            let strip = |windows: Vec<AudioWindow>| windows.into_iter().map(|w| (w.samples, w.feature_count)).collect::<Vec<_>>();
            let framed = strip(windows(format, &pieces));
            let expected = match continuous {
                true => total / step,
                false if total < window => 0,
                false => (total - window) / step + 1,
            };
            prop_assert_eq!(framed.len(), expected);
            prop_assert_eq!(framed, strip(windows(format, &[total])));
        }
    }

    #[test]
    fn the_step_is_a_quarter_of_a_second_when_the_model_has_no_slice_size() {
        let input = |slice_size, continuous| ModelInput::Audio {
            frequency: 16_000,
            slice_size,
            continuous,
        };
        let step = |slice_size| AudioFormat::of(&input(slice_size, false), 16_000).map(|format| format.step);
        assert_eq!((step(0), step(1234)), (Some(4000), Some(1234)));
        let format = AudioFormat::of(&input(4000, true), 16_000).unwrap();
        assert_eq!(format.queue_capacity(), 16);
        let long = AudioFormat { step: 64_000, ..format };
        assert_eq!(long.queue_capacity(), 2);
        assert_eq!(AudioFormat::of(&ModelInput::Unsupported("accelerometer"), 3), None);
    }
}
