//! Statistics of all confidences: mean, standard deviation, trend.

use serde::Serialize;

use crate::util::decimal::six_places;

/// Smaller differences between a confidence and the mean are rounding errors, not a trend.
const FLAT_WITHIN: f64 = 1e-9;

/// Values are limited to this, so that no sum of squares overflows (JSON has no infinity). Confidences are fractions, and
/// anomaly scores are small numbers.
const LARGEST: f64 = 1e12;

/// How the last confidence changed the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum Trend {
    /// The mean rose.
    #[serde(rename = "incr")]
    Increasing,
    /// The mean fell.
    #[serde(rename = "decr")]
    Decreasing,
    /// The mean stayed, or there are fewer than two confidences.
    #[default]
    #[serde(rename = "flat")]
    Flat,
}

/// Sums over the confidences since the start or the last `reset_metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ConfidenceMetrics {
    n: u64,
    sum: f64,
    sum_of_squares: f64,
    mean: f64,
    /// Sum of the squared distances from the mean, by Welford's method. Computed from the two sums, the deviation of ten
    /// million almost equal values would be a rounding error, or NaN.
    squared_distances: f64,
    trend: Trend,
}

/// The published statistics, rounded to 6 decimal places. All are 0 and flat before the first confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ConfidenceStatistics {
    /// Arithmetic mean.
    pub mean_confidence: f64,
    /// Population standard deviation.
    pub standard_deviation: f64,
    /// Compares the mean after the last confidence with the mean before it.
    pub confidence_trend: Trend,
    /// The sums behind the statistics.
    pub details: Details,
}

/// The sums behind [`ConfidenceStatistics`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Details {
    /// Number of confidences.
    pub n: u64,
    /// Their sum.
    pub sum_confidences: f64,
    /// The sum of their squares.
    pub sum_confidences_squared: f64,
}

impl ConfidenceMetrics {
    /// Adds a confidence. NaN is ignored.
    pub fn add(&mut self, confidence: f64) {
        if confidence.is_nan() {
            return;
        }
        let confidence = confidence.clamp(-LARGEST, LARGEST);
        // The mean rises if the new value is above it. After millions of confidences this comparison is exact, but the
        // difference of two almost equal means would be a rounding error.
        let distance = confidence - self.mean;
        self.trend = match distance {
            _ if self.n == 0 => Trend::Flat,
            distance if distance > FLAT_WITHIN => Trend::Increasing,
            distance if distance < -FLAT_WITHIN => Trend::Decreasing,
            _ => Trend::Flat,
        };
        self.n += 1;
        self.mean += distance / self.n as f64;
        self.squared_distances += distance * (confidence - self.mean);
        self.sum += confidence;
        self.sum_of_squares += confidence * confidence;
    }

    /// The current statistics.
    pub fn statistics(&self) -> ConfidenceStatistics {
        ConfidenceStatistics {
            mean_confidence: six_places(self.mean),
            standard_deviation: six_places(self.standard_deviation()),
            confidence_trend: self.trend,
            details: Details {
                n: self.n,
                sum_confidences: six_places(self.sum),
                sum_confidences_squared: six_places(self.sum_of_squares),
            },
        }
    }

    /// Population standard deviation; 0 without confidences. Rounding must not make the variance negative.
    fn standard_deviation(&self) -> f64 {
        (self.squared_distances / self.n.max(1) as f64).max(0.0).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(confidences: &[f64]) -> ConfidenceStatistics {
        let mut metrics = ConfidenceMetrics::default();
        confidences.iter().for_each(|confidence| metrics.add(*confidence));
        metrics.statistics()
    }

    #[test]
    fn the_documented_example_gives_the_documented_statistics() {
        let statistics = after(&[0.81, 0.69, 0.78, 0.659558951, 0.541152049]);
        assert_eq!(
            serde_json::to_string(&statistics).unwrap(),
            r#"{"mean_confidence":0.696142,"standard_deviation":0.095282,"confidence_trend":"decr","details":{"n":5,"sum_confidences":3.480711,"sum_confidences_squared":2.468464}}"#
        );
    }

    #[test]
    fn all_values_are_zero_and_flat_before_the_first_confidence() {
        assert_eq!(
            serde_json::to_string(&after(&[f64::NAN])).unwrap(),
            r#"{"mean_confidence":0.0,"standard_deviation":0.0,"confidence_trend":"flat","details":{"n":0,"sum_confidences":0.0,"sum_confidences_squared":0.0}}"#
        );
    }

    #[test]
    fn the_trend_compares_the_mean_after_the_last_confidence_with_the_one_before() {
        assert_eq!(after(&[0.9]).confidence_trend, Trend::Flat);
        assert_eq!(after(&[0.2, 0.9]).confidence_trend, Trend::Increasing);
        // 0.5 is less than the confidence before it, but more than the mean of all before it.
        assert_eq!(after(&[0.1, 0.1, 0.6, 0.5]).confidence_trend, Trend::Increasing);
        assert_eq!(after(&[0.9, 0.2]).confidence_trend, Trend::Decreasing);
        assert_eq!(after(&[0.7; 1000]).confidence_trend, Trend::Flat);
    }

    #[test]
    fn the_deviation_of_equal_values_is_zero_and_not_nan() {
        for value in [0.1, 0.7, 0.9999999, 1.0 / 3.0] {
            assert_eq!(after(&vec![value; 1_000_003]).standard_deviation, 0.0);
        }
    }

    proptest! {
        #[test]
        fn figures_agree_with_a_two_pass_reference(values in prop::collection::vec(0.0f64..=1.0, 1..300)) {
            let statistics = after(&values);
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
            prop_assert_eq!(statistics.details.n, values.len() as u64);
            prop_assert!((statistics.mean_confidence - mean).abs() <= 1e-6);
            prop_assert!((statistics.standard_deviation - deviation).abs() <= 1e-6);
        }

        #[test]
        fn every_figure_is_finite_whatever_comes(values in prop::collection::vec(any::<f64>(), 0..50)) {
            let statistics = after(&values);
            for figure in [statistics.mean_confidence, statistics.standard_deviation,
                           statistics.details.sum_confidences, statistics.details.sum_confidences_squared] {
                prop_assert!(figure.is_finite());
            }
        }
    }
}
