//! Audio samples as a level and as a WAV file.

use bytes::Bytes;

/// Length of the header that [`wav`] writes.
const WAV_HEADER: u32 = 44;

/// The level that [`loudness`] returns as 0: below the noise of a microphone in a quiet room.
const QUIETEST_DB: f32 = -60.0;

/// The level of the samples for a meter: 0 at -60 dB of full scale (root mean square) and below, 1 at full scale.
pub fn loudness(samples: &[i16]) -> f32 {
    let squares: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    let mean = (squares / samples.len().max(1) as f64).sqrt() / f64::from(i16::MAX);
    let decibels = 20.0 * mean.log10() as f32;
    (1.0 - decibels / QUIETEST_DB).clamp(0.0, 1.0)
}

/// A WAV file of 16-bit mono samples (RIFF, WAVE_FORMAT_PCM).
pub fn wav(samples: &[i16], frequency: u32) -> Bytes {
    let mut file = Vec::with_capacity(WAV_HEADER as usize + samples.len() * 2);
    file.extend_from_slice(&wav_header(samples.len(), frequency));
    file.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    file.into()
}

/// The header of a WAV file of this many 16-bit mono samples.
pub fn wav_header(samples: usize, frequency: u32) -> [u8; WAV_HEADER as usize] {
    let data = u32::try_from(samples * 2).unwrap_or(u32::MAX - WAV_HEADER);
    let mut header = [0; WAV_HEADER as usize];
    let mut rest = &mut header[..];
    let mut put = |bytes: &[u8]| {
        let (field, after) = std::mem::take(&mut rest).split_at_mut(bytes.len());
        field.copy_from_slice(bytes);
        rest = after;
    };
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
    header
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_wav_file_has_the_header_that_players_expect() {
        let file = wav(&[1, -2], 16_000);
        let mut expected =
            b"RIFF\x28\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\x04\0\0\0".to_vec();
        expected.extend([1, 0, 0xfe, 0xff]);
        assert_eq!(file, expected);
    }
}
