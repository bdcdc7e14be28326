//! The backoff gate (`iotcore_backoff`): of what passes the filter, every Nth is published.

/// Counts to N and opens once. With N = 5 four are skipped and the fifth is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    every: u32,
    skipped: u32,
}

impl Gate {
    /// A gate that opens for every `every`th; 0 is taken as 1.
    pub fn new(every: u32) -> Self {
        Self {
            every: every.max(1),
            skipped: 0,
        }
    }

    /// Every how many one is let through; at least 1.
    pub fn every(&self) -> u32 {
        self.every
    }

    /// Whether this one is let through.
    pub fn opens(&mut self) -> bool {
        self.skipped += 1;
        let open = self.skipped >= self.every;
        if open {
            self.skipped = 0;
        }
        open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn with_five_four_are_skipped_and_the_fifth_is_published() {
        let mut gate = Gate::new(5);
        let opened: Vec<bool> = (0..10).map(|_| gate.opens()).collect();
        assert_eq!(
            opened,
            [false, false, false, false, true, false, false, false, false, true]
        );
    }

    #[test]
    fn with_one_and_zero_every_one_is_published() {
        for every in [0, 1] {
            let mut gate = Gate::new(every);
            assert!((0..3).all(|_| gate.opens()));
        }
    }

    proptest! {
        #[test]
        fn exactly_every_nth_is_published(every in 1u32..50, offered in 0u32..2000) {
            let mut gate = Gate::new(every);
            let opened = (0..offered).filter(|_| gate.opens()).count();
            prop_assert_eq!(opened as u32, offered / every);
        }
    }
}
