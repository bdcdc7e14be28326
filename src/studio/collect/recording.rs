//! A recording of the microphone as a WAV file in memory.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::capture::audio::wav_header;

/// The microphone is open, so samples arrive at once; a longer pause is a fault.
pub(super) const GAP_LIMIT: Duration = Duration::from_secs(10);

/// Records this many samples. `gap_limit`: longest time without any.
///
/// # Errors
/// The audio stopped, as a sentence.
pub(super) async fn record(
    audio: &mut mpsc::Receiver<Vec<i16>>,
    samples: usize,
    frequency: u32,
    gap_limit: Duration,
) -> Result<Bytes, String> {
    let mut file = wav_header(samples, frequency).to_vec();
    let mut missing = samples;
    while missing > 0 {
        let buffer = match tokio::time::timeout(gap_limit, audio.recv()).await {
            Ok(Some(buffer)) => buffer,
            Ok(None) => return Err("the device is too busy to record without gaps".to_owned()),
            Err(_) => {
                return Err(format!("the microphone delivered nothing for {gap_limit:?}"));
            }
        };
        let taken = buffer.len().min(missing);
        file.extend(buffer[..taken].iter().flat_map(|sample| sample.to_le_bytes()));
        missing -= taken;
    }
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::audio::wav;

    #[tokio::test]
    async fn exactly_the_samples_that_were_asked_for_are_recorded() {
        let (sender, mut audio) = mpsc::channel(4);
        for buffer in [vec![1, 2, 3], vec![4, 5, 6]] {
            sender.send(buffer).await.unwrap();
        }
        let file = record(&mut audio, 5, 16_000, Duration::from_millis(20)).await.unwrap();
        assert_eq!(file, wav(&[1, 2, 3, 4, 5], 16_000));
    }

    #[tokio::test]
    async fn audio_that_stops_or_has_a_gap_is_an_error() {
        let (sender, mut audio) = mpsc::channel(4);
        let silent = record(&mut audio, 5, 16_000, Duration::from_millis(20))
            .await
            .unwrap_err();
        assert!(silent.contains("20ms"), "{silent}");
        drop(sender);
        let gap = record(&mut audio, 5, 16_000, Duration::from_millis(20))
            .await
            .unwrap_err();
        assert!(gap.contains("gaps"), "{gap}");
    }
}
