//! A Kalman filter for boxes that move with a constant velocity, as in SORT (Bewley et al. 2016). The four values of a box (centre,
//! width, height) do not depend on each other, so each has a filter of its own with position and velocity.

/// Standard deviation of a measured value, in lengths of the box.
const MEASURED: f64 = 0.05;
/// Standard deviation of the acceleration of the centre, in lengths of the box per second squared.
const ACCELERATION: f64 = 10.0;
/// That of width and height.
const GROWTH: f64 = 2.0;
/// Standard deviation of the unknown velocity of a new box, in lengths of the box per second.
const UNKNOWN_VELOCITY: f64 = 10.0;

/// Centre and size of a box in pixels of the model's input.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct PixelBox {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl PixelBox {
    /// The side of a square with the same area, at least one pixel.
    pub fn length(&self) -> f64 {
        (self.width * self.height).max(1.0).sqrt()
    }
}

/// The estimated position and velocity of a box.
#[derive(Debug, Clone)]
pub(super) struct BoxFilter {
    values: [ValueFilter; 4],
}

impl BoxFilter {
    pub fn new(measured: PixelBox) -> Self {
        let length = measured.length();
        let values = [
            (measured.x, UNKNOWN_VELOCITY),
            (measured.y, UNKNOWN_VELOCITY),
            (measured.width, GROWTH),
            (measured.height, GROWTH),
        ];
        Self {
            values: values.map(|(value, velocity)| ValueFilter {
                value,
                velocity: 0.0,
                variance: (MEASURED * length).powi(2),
                covariance: 0.0,
                velocity_variance: (velocity * length).powi(2),
            }),
        }
    }

    /// The estimate for now.
    pub fn estimate(&self) -> PixelBox {
        let [x, y, width, height] = self.values.each_ref().map(|filter| filter.value);
        PixelBox {
            x,
            y,
            width: width.max(1.0),
            height: height.max(1.0),
        }
    }

    /// Moves the estimate on by `seconds`.
    pub fn predict(&mut self, seconds: f64) {
        let length = self.estimate().length();
        let [x, y, width, height] = &mut self.values;
        for (filter, acceleration) in [(x, ACCELERATION), (y, ACCELERATION), (width, GROWTH), (height, GROWTH)] {
            filter.predict(seconds, (acceleration * length).powi(2));
        }
    }

    /// Corrects the estimate by a measured box.
    pub fn correct(&mut self, measured: PixelBox) {
        let variance = (MEASURED * measured.length()).powi(2);
        let PixelBox { x, y, width, height } = measured;
        for (filter, value) in self.values.iter_mut().zip([x, y, width, height]) {
            filter.correct(value, variance);
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct ValueFilter {
    value: f64,
    velocity: f64,
    variance: f64,
    covariance: f64,
    velocity_variance: f64,
}

impl ValueFilter {
    /// `acceleration`: its variance.
    fn predict(&mut self, seconds: f64, acceleration: f64) {
        let squared = seconds * seconds;
        self.value += self.velocity * seconds;
        self.variance += seconds * (2.0 * self.covariance + seconds * self.velocity_variance)
            + acceleration * squared * squared / 4.0;
        self.covariance += seconds * self.velocity_variance + acceleration * squared * seconds / 2.0;
        self.velocity_variance += acceleration * squared;
    }

    fn correct(&mut self, measured: f64, variance: f64) {
        let total = self.variance + variance;
        let (gain, velocity_gain) = (self.variance / total, self.covariance / total);
        let difference = measured - self.value;
        self.value += gain * difference;
        self.velocity += velocity_gain * difference;
        self.velocity_variance -= velocity_gain * self.covariance;
        self.covariance *= 1.0 - gain;
        self.variance *= 1.0 - gain;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FRAME: f64 = 1.0 / 30.0;

    fn at(x: f64) -> PixelBox {
        PixelBox {
            x,
            y: 100.0,
            width: 20.0,
            height: 20.0,
        }
    }

    #[test]
    fn a_steady_movement_is_continued_through_missed_frames() {
        let mut filter = BoxFilter::new(at(0.0));
        for frame in 1..=15 {
            filter.predict(FRAME);
            filter.correct(at(f64::from(frame) * 4.0));
        }
        for _ in 0..5 {
            filter.predict(FRAME);
        }
        let estimate = filter.estimate();
        assert!((estimate.x - 80.0).abs() < 2.0, "{estimate:?}");
        assert!(
            (estimate.y - 100.0).abs() < 0.1 && (estimate.width - 20.0).abs() < 0.1,
            "{estimate:?}"
        );
    }

    proptest! {
        #[test]
        fn estimates_stay_finite_whatever_is_measured(
            boxes in prop::collection::vec((-1e4..1e4f64, -1e4..1e4f64, 0.0..1e4f64, 0.0..1e4f64, 0.0..10.0f64), 1..50)
        ) {
            let mut filter = BoxFilter::new(PixelBox::default());
            for (x, y, width, height, seconds) in boxes {
                filter.predict(seconds);
                filter.correct(PixelBox { x, y, width, height });
                let estimate = filter.estimate();
                let values = [estimate.x, estimate.y, estimate.width, estimate.height];
                prop_assert!(values.iter().all(|value| value.is_finite()), "{estimate:?}");
                prop_assert!(filter.values.iter().all(|value| value.variance >= 0.0 && value.velocity_variance >= -1e-6));
            }
        }
    }
}
