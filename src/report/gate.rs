//! The backoff gate (`iotcore_backoff`): publishes every Nth inference that passes the filter.

/// Counts to N. With N = 5 it rejects four inferences and admits the fifth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    every: u32,
    rejected: u32,
}

impl Gate {
    /// A gate that admits every `every`th inference; 0 is taken as 1.
    pub fn new(every: u32) -> Self {
        Self {
            every: every.max(1),
            rejected: 0,
        }
    }

    /// N, at least 1.
    pub fn every(&self) -> u32 {
        self.every
    }

    /// Counts an inference and returns whether it is admitted.
    pub fn admit(&mut self) -> bool {
        self.rejected += 1;
        let is_admitted = self.rejected >= self.every;
        if is_admitted {
            self.rejected = 0;
        }
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_gate_of_five_admits_every_fifth_inference() {
        let mut gate = Gate::new(5);
        let admitted: Vec<bool> = (0..10).map(|_| gate.admit()).collect();
        assert_eq!(
            admitted,
            [false, false, false, false, true, false, false, false, false, true]
        );
    }

    #[test]
    fn a_gate_of_one_or_zero_admits_every_inference() {
        for every in [0, 1] {
            let mut gate = Gate::new(every);
            assert!((0..3).all(|_| gate.admit()));
        }
    }

    proptest! {
        #[test]
        fn a_gate_admits_exactly_every_nth_inference(every in 1u32..50, offered in 0u32..2000) {
            let mut gate = Gate::new(every);
            let admitted = (0..offered).filter(|_| gate.admit()).count();
            prop_assert_eq!(admitted as u32, offered / every);
        }
    }
}
