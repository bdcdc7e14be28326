//! One channel of interleaved samples.

use crate::config::MicrophoneChannel;

/// Replaces interleaved samples by those of one channel, or by the mean of all channels.
pub(super) fn to_mono(samples: &mut Vec<i16>, channels: usize, channel: MicrophoneChannel) {
    let channels = channels.max(1);
    let frames = samples.len() / channels;
    for frame in 0..frames {
        let all = &samples[frame * channels..(frame + 1) * channels];
        samples[frame] = match channel {
            MicrophoneChannel::Auto => all[0],
            MicrophoneChannel::Number(number) => all[usize::from(number).clamp(1, channels) - 1],
            MicrophoneChannel::Mix => {
                let sum: i64 = all.iter().map(|sample| i64::from(*sample)).sum();
                // The mean of 16-bit values is a 16-bit value.
                (sum / channels as i64) as i16
            }
        };
    }
    samples.truncate(frames);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_channel_or_the_mean_of_all_is_left() {
        for (channel, expected) in [
            (MicrophoneChannel::Auto, [10, 1]),
            (MicrophoneChannel::Number(3), [i16::MAX, 3]),
            (MicrophoneChannel::Mix, [16_379, 2]),
        ] {
            let mut samples = vec![10, i16::MAX - 27, i16::MAX, 0, 1, 2, 3, 4, 9];
            to_mono(&mut samples, 4, channel);
            assert_eq!(samples, expected, "{channel}");
        }
    }
}
