//! Rounding of published numbers.

/// Rounds to 6 decimal places; never `-0.0`.
pub fn six_places(value: f64) -> f64 {
    (value * 1e6).round() / 1e6 + 0.0
}
