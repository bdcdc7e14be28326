//! The backoff gate (`iotcore_backoff`): publishes every Nth inference that passes the filter.

/// Counts to N. With N = 5 it holds back four inferences and admits the fifth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    every: u32,
    held_back: u32,
}

impl Gate {
    /// A gate that admits every `every`th inference; 0 is taken as 1.
    pub fn new(every: u32) -> Self {
        Self {
            every: every.max(1),
            held_back: 0,
        }
    }

    /// N, at least 1.
    pub fn every(&self) -> u32 {
        self.every
    }

    /// Counts an inference and returns whether it is admitted.
    pub fn admit(&mut self) -> bool {
        self.held_back += 1;
        let is_admitted = self.held_back >= self.every;
        if is_admitted {
            self.held_back = 0;
        }
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn with_five_the_fifth_is_published() {
        let mut gate = Gate::new(5);
        let admitted: Vec<bool> = (0..10).map(|_| gate.admit()).collect();
        assert_eq!(
            admitted,
            [false, false, false, false, true, false, false, false, false, true]
        );
    }

    #[test]
    fn with_one_and_zero_every_one_is_published() {
        for every in [0, 1] {
            let mut gate = Gate::new(every);
            assert!((0..3).all(|_| gate.admit()));
        }
    }

    proptest! {
        #[test]
        fn exactly_every_nth_is_published(every in 1u32..50, offered in 0u32..2000) {
            let mut gate = Gate::new(every);
            let admitted = (0..offered).filter(|_| gate.admit()).count();
            prop_assert_eq!(admitted as u32, offered / every);
        }
    }
}
