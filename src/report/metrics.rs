//! Running figures over all confidences: mean, deviation, trend.

use serde::Serialize;

use crate::util::decimal::six_places;

/// Differences this small between a confidence and the mean are rounding, not a trend.
const FLAT_WITHIN: f64 = 1e-9;

/// Confidences are fractions and anomaly scores small numbers; beyond this a value is taken as this, so that no sum of
/// squares overflows (JSON has no infinity).
const LARGEST: f64 = 1e12;

/// Which way the mean went with the last confidence.
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
    /// Sum of the squared distances from the mean, kept up to date by Welford's method: taken from the two sums instead,
    /// the deviation of ten million almost equal values would be rounding noise, or NaN.
    squared_distances: f64,
    trend: Trend,
}

/// The figures as published, each rounded to 6 places; all 0 and flat while there is no confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ConfidenceFigures {
    /// Arithmetic mean.
    pub mean_confidence: f64,
    /// Population standard deviation.
    pub standard_deviation: f64,
    /// The mean after the last confidence against the mean before it.
    pub confidence_trend: Trend,
    /// What the figures are made of.
    pub details: Details,
}

/// What [`ConfidenceFigures`] are made of.
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
    /// Takes one confidence in. NaN is ignored.
    pub fn add(&mut self, confidence: f64) {
        if confidence.is_nan() {
            return;
        }
        let confidence = confidence.clamp(-LARGEST, LARGEST);
        // The mean rises exactly when the new value is above it; comparing these two does not drown in rounding after
        // millions of confidences, as comparing two almost equal means would.
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

    /// The figures now.
    pub fn figures(&self) -> ConfidenceFigures {
        ConfidenceFigures {
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

    fn after(confidences: &[f64]) -> ConfidenceFigures {
        let mut metrics = ConfidenceMetrics::default();
        confidences.iter().for_each(|confidence| metrics.add(*confidence));
        metrics.figures()
    }

    #[test]
    fn the_documented_example_comes_out() {
        let figures = after(&[0.81, 0.69, 0.78, 0.659558951, 0.541152049]);
        assert_eq!(
            serde_json::to_string(&figures).unwrap(),
            r#"{"mean_confidence":0.696142,"standard_deviation":0.095282,"confidence_trend":"decr","details":{"n":5,"sum_confidences":3.480711,"sum_confidences_squared":2.468464}}"#
        );
    }

    #[test]
    fn without_confidences_everything_is_zero_and_flat() {
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
            let figures = after(&values);
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
            prop_assert_eq!(figures.details.n, values.len() as u64);
            prop_assert!((figures.mean_confidence - mean).abs() <= 1e-6);
            prop_assert!((figures.standard_deviation - deviation).abs() <= 1e-6);
        }

        #[test]
        fn every_figure_is_finite_whatever_comes(values in prop::collection::vec(any::<f64>(), 0..50)) {
            let figures = after(&values);
            for figure in [figures.mean_confidence, figures.standard_deviation,
                           figures.details.sum_confidences, figures.details.sum_confidences_squared] {
                prop_assert!(figure.is_finite());
            }
        }
    }
}
