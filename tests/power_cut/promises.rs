//! What the program has promised at each moment of a recording, as an observer from outside sees it.

/// One look at the program. The three numbers are read in this order.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Messages that the program has reported as written to disk, of all runs, in the order of publication.
    pub written: usize,
    /// Bytes of the trace.
    pub position: u64,
    /// Different messages that the broker has received.
    pub delivered: usize,
}

/// All looks at the program, in their order.
#[derive(Debug, Default)]
pub struct Promises(Vec<Sample>);

impl Promises {
    pub fn add(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// Whether the program had answered on its page before this position: its small files are promised since then.
    pub fn has_answered(&self, position: u64) -> bool {
        self.0.first().is_some_and(|first| first.position <= position)
    }

    /// Messages that a state at this position must hold, by their place in the order of publication: from the first that the broker may
    /// not have, to the last that was reported as written.
    pub fn held_at(&self, position: u64) -> std::ops::Range<usize> {
        let before = self.0.iter().rev().find(|sample| sample.position <= position);
        let after = self.0.iter().find(|sample| sample.position >= position);
        let last = self.0.last().map_or(0, |sample| sample.delivered);
        let written = before.map_or(0, |sample| sample.written);
        let delivered = after.map_or(last, |sample| sample.delivered);
        delivered.min(written)..written
    }
}
