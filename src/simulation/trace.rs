//! What happened in a simulation: a digest of everything, and the last lines.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::plan::Millis;

/// Lines that a failure shows.
const SHOWN: usize = 60;

/// The events of one simulation.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hasher: DefaultHasher,
    last: VecDeque<String>,
}

impl Trace {
    pub fn add(&mut self, at: Millis, line: String) {
        at.hash(&mut self.hasher);
        line.hash(&mut self.hasher);
        if std::env::var_os(super::SHOW_ALL).is_some() {
            println!("{at:>9} {line}");
        }
        if self.last.len() == SHOWN {
            self.last.pop_front();
        }
        self.last.push_back(format!("{at:>9} ms {line}"));
    }

    /// The same for two runs in which the same happened.
    pub fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    /// The last lines, for a failure.
    pub fn end(&self) -> String {
        self.last.iter().map(|line| format!("{line}\n")).collect()
    }
}
