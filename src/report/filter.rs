//! The confidence filter.

use crate::config::{Criteria, FilterConfig};

/// Largest difference between confidence and threshold for `eq`.
pub const EQUAL_WITHIN: f64 = 1e-6;

/// Accepts or rejects results by their confidence. Commands change the configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Filter {
    /// The current configuration.
    pub config: FilterConfig,
}

impl Filter {
    /// Whether a result with this confidence passes. A result without a confidence (freeform) always passes; NaN passes only
    /// if the filter is off.
    pub fn passes(&self, confidence: Option<f64>) -> bool {
        let Some(confidence) = confidence.filter(|_| self.config.enabled) else {
            return true;
        };
        let threshold = self.config.threshold();
        match self.config.criteria {
            Criteria::Greater => confidence > threshold,
            Criteria::GreaterOrEqual => confidence >= threshold,
            Criteria::Equal => (confidence - threshold).abs() <= EQUAL_WITHIN,
            Criteria::LessOrEqual => confidence <= threshold,
            Criteria::Less => confidence < threshold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Criteria; 5] = [
        Criteria::Greater,
        Criteria::GreaterOrEqual,
        Criteria::Equal,
        Criteria::LessOrEqual,
        Criteria::Less,
    ];

    fn filter(criteria: Criteria) -> Filter {
        Filter {
            config: FilterConfig {
                enabled: true,
                given: 0.7,
                scores_are_probabilities: None,
                criteria,
            },
        }
    }

    #[test]
    fn each_criterion_compares_the_confidence_with_the_threshold() {
        let passed = |confidence| ALL.map(|criteria| filter(criteria).passes(Some(confidence)));
        assert_eq!(passed(0.8), [true, true, false, false, false]);
        assert_eq!(passed(0.7), [false, true, true, true, false]);
        assert_eq!(passed(0.6), [false, false, false, true, true]);
    }

    #[test]
    fn eq_tolerates_a_millionth() {
        assert!(filter(Criteria::Equal).passes(Some(0.700_000_9)));
        assert!(filter(Criteria::Equal).passes(Some(0.699_999_1)));
        assert!(!filter(Criteria::Equal).passes(Some(0.700_002)));
    }

    #[test]
    fn nan_never_passes_and_a_missing_confidence_always_passes() {
        for criteria in ALL {
            assert!(!filter(criteria).passes(Some(f64::NAN)));
            assert!(filter(criteria).passes(None));
        }
    }

    #[test]
    fn a_filter_that_is_off_passes_everything() {
        let mut off = filter(Criteria::Greater);
        off.config.enabled = false;
        assert!(off.passes(Some(0.0)));
    }
}
