//! From a stream of samples to the windows and slices that an audio model hears.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::mailbox::Mailbox;
use crate::model::ModelInput;

/// Sound is looked at four times a second where the model names no slice.
const DEFAULT_STEP: Duration = Duration::from_millis(250);
/// Windows that wait for the model are dropped, oldest first, beyond this much sound.
const MOST_WAITING: Duration = Duration::from_secs(4);
/// Length of the header that [`wav`] writes.
const WAV_HEADER: u32 = 44;

/// The queue of the inference loop, in order. It outlives the captures that fill it.
pub type AudioMailbox = Mailbox<Window>;

/// What an audio model hears, in samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioFormat {
    /// Samples per second.
    pub frequency: u32,
    /// Samples of a whole window (`input_features_count`).
    pub window: usize,
    /// New samples from one window to the next (`slice_size`, or a quarter of a second).
    pub step: usize,
    /// The model is given each step alone (`classify_continuous`) and keeps the window itself.
    pub continuous: bool,
}

impl AudioFormat {
    /// What a model with this input and that many features hears; `None`: it is no audio model.
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
            frequency,
            window: features,
            step: if slice_size > 0 { slice_size } else { default.max(1) },
            continuous,
        })
    }

    /// How many windows may wait: four seconds of sound, at least two.
    pub fn most_waiting(&self) -> usize {
        let samples = u64::from(self.frequency) * MOST_WAITING.as_secs();
        usize::try_from(samples / self.step.max(1) as u64).map_or(2, |windows| windows.max(2))
    }
}

/// Sound for one classification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The newest samples, at most a whole window (the first slices of a stream have fewer before them).
    pub samples: Vec<i16>,
    /// How many at the end of them go to the model: all, or a slice in continuous mode.
    pub fresh: usize,
    /// When the last of them came.
    pub at: Instant,
}

impl Window {
    /// The samples for the model.
    pub fn features(&self) -> &[i16] {
        &self.samples[self.samples.len().saturating_sub(self.fresh)..]
    }
}

/// Cuts a stream of samples into windows.
#[derive(Debug)]
pub struct AudioFramer {
    format: AudioFormat,
    /// Samples kept: a window, or a slice where that is longer.
    keep: usize,
    heard: Vec<i16>,
    /// Samples until the next window is complete.
    missing: usize,
}

impl AudioFramer {
    /// At the start of a stream.
    pub fn new(format: AudioFormat) -> Self {
        let step = format.step.max(1);
        let keep = format.window.max(if format.continuous { step } else { 1 });
        Self {
            format: AudioFormat { step, ..format },
            keep,
            heard: Vec::with_capacity(keep + step),
            missing: if format.continuous { step } else { keep },
        }
    }

    /// Takes samples in; `emit` gets each window that they complete and says whether to go on.
    pub fn push_samples(&mut self, mut samples: &[i16], at: Instant, mut emit: impl FnMut(Window) -> bool) -> bool {
        while !samples.is_empty() {
            let (now, later) = samples.split_at(self.missing.min(samples.len()));
            self.heard.extend_from_slice(now);
            self.missing -= now.len();
            samples = later;
            if self.missing > 0 {
                break;
            }
            self.missing = self.format.step;
            let surplus = self.heard.len().saturating_sub(self.keep);
            self.heard.drain(..surplus);
            let window = Window {
                samples: self.heard.clone(),
                fresh: if self.format.continuous {
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

/// What listening for silence found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Nothing but digital silence since the start of the stream.
    Told,
    /// After that, sound.
    Over,
}

/// Tells a source that delivers nothing but zeros: a muted or wrong microphone.
#[derive(Debug)]
pub struct SilenceWatch {
    /// Samples until silence is told; `None`: sound was heard, or silence was told.
    left: Option<u64>,
    silent: bool,
}

impl SilenceWatch {
    /// How long a stream may begin with silence.
    pub const LIMIT: Duration = Duration::from_secs(3);
    /// Samples up to this far from zero are silence: converters round.
    const NOISE: u16 = 1;

    /// At the start of a stream of so many samples per second.
    pub fn new(frequency: u32) -> Self {
        Self {
            left: Some(u64::from(frequency) * Self::LIMIT.as_secs()),
            silent: false,
        }
    }

    /// Takes samples in; says each thing once a stream.
    pub fn push_samples(&mut self, samples: &[i16]) -> Option<Silence> {
        if self.left.is_none() && !self.silent {
            return None;
        }
        if samples.iter().any(|sample| sample.unsigned_abs() > Self::NOISE) {
            self.left = None;
            return std::mem::take(&mut self.silent).then_some(Silence::Over);
        }
        let left = self.left?.saturating_sub(samples.len() as u64);
        self.left = Some(left).filter(|left| *left > 0);
        self.silent = left == 0;
        self.silent.then_some(Silence::Told)
    }
}

/// What [`loudness`] shows as 0: quieter than a quiet room through a microphone.
const QUIETEST_DB: f32 = -60.0;

/// How loud samples are, for a meter: 0 at -60 dB of full scale (root mean square) and below, 1 at full scale.
pub fn loudness(samples: &[i16]) -> f32 {
    let squares: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    let mean = (squares / samples.len().max(1) as f64).sqrt() / f64::from(i16::MAX);
    let decibels = 20.0 * mean.log10() as f32;
    (1.0 - decibels / QUIETEST_DB).clamp(0.0, 1.0)
}

/// A WAV file of 16-bit mono samples (RIFF, WAVE_FORMAT_PCM).
pub fn wav(samples: &[i16], frequency: u32) -> Bytes {
    let data = u32::try_from(samples.len() * 2).unwrap_or(u32::MAX - WAV_HEADER);
    let mut file = Vec::with_capacity(WAV_HEADER as usize + samples.len() * 2);
    let mut put = |bytes: &[u8]| file.extend_from_slice(bytes);
    put(b"RIFF");
    put(&(WAV_HEADER - 8 + data).to_le_bytes());
    put(b"WAVEfmt ");
    put(&16u32.to_le_bytes());
    put(&1u16.to_le_bytes());
    put(&1u16.to_le_bytes());
    put(&frequency.to_le_bytes());
    put(&frequency.saturating_mul(2).to_le_bytes());
    put(&2u16.to_le_bytes());
    put(&16u16.to_le_bytes());
    put(b"data");
    put(&data.to_le_bytes());
    for sample in samples {
        put(&sample.to_le_bytes());
    }
    file.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn format(window: usize, step: usize, continuous: bool) -> AudioFormat {
        AudioFormat {
            frequency: 16,
            window,
            step,
            continuous,
        }
    }

    #[test]
    fn loudness_is_a_scale_in_decibels() {
        let square = |amplitude: i16| [amplitude, -amplitude, amplitude, -amplitude];
        assert_eq!(loudness(&[]), 0.0);
        assert_eq!(loudness(&[0; 100]), 0.0);
        assert!((loudness(&square(i16::MAX)) - 1.0).abs() < 1e-4);
        // A tenth of the amplitude is 20 dB less, a third of the scale.
        assert!((loudness(&square(3277)) - 2.0 / 3.0).abs() < 1e-3);
        assert_eq!(loudness(&square(30)), 0.0);
    }

    /// The windows of a stream that comes in pieces of these lengths.
    fn windows(format: AudioFormat, pieces: &[usize]) -> Vec<Window> {
        let (mut windower, mut windows, mut next) = (AudioFramer::new(format), Vec::new(), 0i16);
        for &length in pieces {
            let samples: Vec<i16> = (0..length).map(|i| next.wrapping_add(i as i16)).collect();
            next = next.wrapping_add(length as i16);
            windower.push_samples(&samples, Instant::now(), |window| {
                windows.push(window);
                true
            });
        }
        windows
    }

    #[test]
    fn a_full_window_comes_first_and_then_one_every_step() {
        let heard: Vec<_> = windows(format(4, 2, false), &[3, 3, 1, 1])
            .iter()
            .map(|window| window.features().to_vec())
            .collect();
        assert_eq!(heard, [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]);
    }

    #[test]
    fn a_slice_goes_to_the_model_with_its_window_kept_beside_it() {
        let heard = windows(format(4, 2, true), &[7]);
        let slices: Vec<_> = heard.iter().map(Window::features).collect();
        assert_eq!(slices, [[0, 1], [2, 3], [4, 5]]);
        let kept: Vec<_> = heard.iter().map(|window| window.samples.len()).collect();
        assert_eq!(kept, [2, 4, 4]);
        assert_eq!(heard[2].samples, [2, 3, 4, 5]);
    }

    #[test]
    fn a_step_longer_than_the_window_leaves_sound_out() {
        let heard: Vec<_> = windows(format(2, 5, false), &[13])
            .iter()
            .map(|window| window.samples.clone())
            .collect();
        assert_eq!(heard, [[0, 1], [5, 6], [10, 11]]);
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
            let strip = |windows: Vec<Window>| windows.into_iter().map(|w| (w.samples, w.fresh)).collect::<Vec<_>>();
            let heard = strip(windows(format, &pieces));
            let expected = match continuous {
                true => total / step,
                false if total < window => 0,
                false => (total - window) / step + 1,
            };
            prop_assert_eq!(heard.len(), expected);
            prop_assert_eq!(heard, strip(windows(format, &[total])));
        }
    }

    #[test]
    fn the_step_is_a_quarter_of_a_second_where_the_model_names_none() {
        let input = |slice_size, continuous| ModelInput::Audio {
            frequency: 16_000,
            slice_size,
            continuous,
        };
        let step = |slice_size| AudioFormat::of(&input(slice_size, false), 16_000).map(|format| format.step);
        assert_eq!((step(0), step(1234)), (Some(4000), Some(1234)));
        let format = AudioFormat::of(&input(4000, true), 16_000).unwrap();
        assert_eq!(format.most_waiting(), 16);
        let long = AudioFormat { step: 64_000, ..format };
        assert_eq!(long.most_waiting(), 2);
        assert_eq!(AudioFormat::of(&ModelInput::Unsupported("accelerometer"), 3), None);
    }

    #[test]
    fn silence_at_the_start_is_told_once_and_so_is_its_end() {
        let mut watch = SilenceWatch::new(10);
        let quiet = [0, 1, -1, 0, 0, 0, 0, 0, 0, 0];
        let said: Vec<_> = (0..5).map(|_| watch.push_samples(&quiet)).collect();
        assert_eq!(said, [None, None, Some(Silence::Told), None, None]);
        assert_eq!(watch.push_samples(&[0, 2]), Some(Silence::Over));
        assert_eq!(watch.push_samples(&[0; 1000]), None);
    }

    #[test]
    fn a_pause_after_sound_is_no_silence() {
        let mut watch = SilenceWatch::new(10);
        assert_eq!(watch.push_samples(&[0, i16::MIN]), None);
        assert_eq!(watch.push_samples(&[0; 1000]), None);
    }

    #[test]
    fn a_wav_file_has_the_header_that_players_expect() {
        let file = wav(&[1, -2], 16_000);
        let mut expected =
            b"RIFF\x28\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\x04\0\0\0".to_vec();
        expected.extend([1, 0, 0xfe, 0xff]);
        assert_eq!(file, expected);
    }
}
