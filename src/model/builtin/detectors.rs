//! The detectors of the built-in models: small, exact and stateless.

use crate::model::BoundingBox;

/// A pixel at least this bright belongs to the ball.
const BRIGHT: u32 = 128;
/// Fewer bright pixels count as noise.
const SMALLEST: usize = 9;
/// Root mean square of 16-bit samples that separates a tone from silence.
const AUDIBLE: f64 = 500.0;

/// Brightness 0 to 255 of a packed pixel.
fn brightness(feature: f32) -> u32 {
    let rgb = feature as u32;
    let green = (rgb >> 8) & 0xff;
    (((rgb >> 16) & 0xff) + 2 * green + (rgb & 0xff)) / 4
}

/// The box around all bright pixels. The confidence measures how round they are: the bright share of the box, compared
/// with that of a disc. `None`: nothing bright, or nothing dark.
pub fn ball(features: &[f32], width: usize) -> Option<BoundingBox> {
    let (mut count, mut left, mut right, mut top, mut bottom) = (0usize, usize::MAX, 0, usize::MAX, 0);
    for (y, row) in features.chunks_exact(width).enumerate() {
        for (x, _) in row
            .iter()
            .enumerate()
            .filter(|(_, feature)| brightness(**feature) >= BRIGHT)
        {
            count += 1;
            (left, right) = (left.min(x), right.max(x));
            (top, bottom) = (top.min(y), bottom.max(y));
        }
    }
    if count < SMALLEST || count > features.len() / 2 {
        return None;
    }
    let (w, h) = (right + 1 - left, bottom + 1 - top);
    let disc = std::f64::consts::FRAC_PI_4 * (w * h) as f64;
    let value = (1.0 - (1.0 - count as f64 / disc).abs()).clamp(0.0, 1.0);
    let [x, y, width, height] = [left, top, w, h].map(|pixels| pixels as i64);
    Some(BoundingBox {
        label: "ball".into(),
        value,
        x,
        y,
        width,
        height,
        object_id: None,
    })
}

/// The share of light in each quarter: top left, top right, bottom left, bottom right; the sum is 1.
pub fn quarters(features: &[f32], width: usize) -> [f64; 4] {
    let height = features.len() / width.max(1);
    let mut light = [0u64; 4];
    for (y, row) in features.chunks_exact(width.max(1)).enumerate() {
        for (x, feature) in row.iter().enumerate() {
            let quarter = usize::from(x >= width / 2) + 2 * usize::from(y >= height / 2);
            light[quarter] += u64::from(brightness(*feature));
        }
    }
    match light.iter().sum::<u64>() {
        0 => [0.25; 4],
        sum => light.map(|light| light as f64 / sum as f64),
    }
}

/// The probability that the samples are a tone, 0 to 1.
pub fn tone(samples: impl ExactSizeIterator<Item = f32>) -> f64 {
    let count = samples.len().max(1) as f64;
    let power: f64 = samples.map(|sample| f64::from(sample) * f64::from(sample)).sum::<f64>() / count;
    let loudness = power.sqrt() / AUDIBLE;
    loudness * loudness / (1.0 + loudness * loudness)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIDE: usize = 320;

    fn picture(background: f32, at: impl Fn(f64, f64) -> bool) -> Vec<f32> {
        let pixel = |i: usize| at((i % SIDE) as f64 + 0.5, (i / SIDE) as f64 + 0.5);
        (0..SIDE * SIDE)
            .map(|i| {
                if pixel(i) {
                    f32::from_bits(0x4b7f_ffff)
                } else {
                    background
                }
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn the_ball_is_found_where_it_is(x in 20.0..300.0f64, y in 20.0..300.0f64, radius in 5.0..20.0f64) {
            let picture = picture(0.0, |px, py| (px - x).hypot(py - y) <= radius);
            let found = ball(&picture, SIDE).unwrap();
            prop_assert!((found.x as f64 + found.width as f64 / 2.0 - x).abs() <= 1.0, "{found:?}");
            prop_assert!((found.y as f64 + found.height as f64 / 2.0 - y).abs() <= 1.0, "{found:?}");
            prop_assert!((found.width as f64 - 2.0 * radius).abs() <= 2.0, "{found:?}");
            prop_assert!(found.value > 0.8, "{found:?}");
        }
    }

    #[test]
    fn without_a_ball_there_is_no_box() {
        assert_eq!(ball(&picture(0.0, |_, _| false), SIDE), None);
        assert_eq!(ball(&picture(0.0, |_, _| true), SIDE), None);
        assert_eq!(ball(&picture(4_210_752.0, |x, y| x < 2.0 && y < 2.0), SIDE), None);
    }

    #[test]
    fn a_shape_that_is_not_round_has_a_low_confidence() {
        let diagonal = picture(0.0, |x, y| (x - y).abs() < 2.0);
        assert!(ball(&diagonal, SIDE).unwrap().value < 0.2);
    }

    #[test]
    fn the_brightest_quarter_wins_and_the_scores_sum_to_one() {
        for (quarter, (left, top)) in [(true, true), (false, true), (true, false), (false, false)]
            .into_iter()
            .enumerate()
        {
            let scores = quarters(
                &picture(65793.0, |x, y| (x < 160.0) == left && (y < 160.0) == top),
                SIDE,
            );
            assert!(scores[quarter] > 0.9, "{scores:?}");
            assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
        assert_eq!(quarters(&picture(0.0, |_, _| false), SIDE), [0.25; 4]);
    }

    #[test]
    fn a_tone_and_silence_are_distinguished() {
        let wave = (0..16_000).map(|i| (i as f32 * 0.17).sin() * 8000.0);
        assert!(tone(wave.collect::<Vec<_>>().into_iter()) > 0.9);
        assert_eq!(tone([0.0; 16_000].into_iter()), 0.0);
        assert!(tone([30.0, -30.0].into_iter()) < 0.1);
    }
}
