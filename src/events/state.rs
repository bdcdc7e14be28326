//! What is known of the events beside the scene: open events and totals.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::{Event, LineTotals};

/// What must be known after a crash.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct EventState {
    /// Events that have started and not ended.
    pub open: Vec<Event>,
    /// Numbers since the totals were reset.
    pub counts: CountedEvents,
}

/// Numbers of events and crossings.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CountedEvents {
    /// Since when they are counted, ms since the Unix epoch; 0: not known.
    pub since_ts: u64,
    /// Events that started, for each rule.
    pub rules: BTreeMap<Arc<str>, u64>,
    /// Crossings of each line.
    pub lines: BTreeMap<Arc<str>, LineTotals>,
}

impl CountedEvents {
    /// Adds what was counted before.
    pub(super) fn add(&mut self, earlier: Self) {
        if earlier.since_ts > 0 && (self.since_ts == 0 || earlier.since_ts < self.since_ts) {
            self.since_ts = earlier.since_ts;
        }
        for (rule, started) in earlier.rules {
            add_count(self.rules.entry(rule).or_default(), started);
        }
        for (line, totals) in earlier.lines {
            let line = self.lines.entry(line).or_default();
            for (direction, labels) in totals {
                let direction = line.entry(direction).or_default();
                for (label, crossings) in labels {
                    add_count(direction.entry(label).or_default(), crossings);
                }
            }
        }
    }
}

/// Adds to a number that may come from a file.
pub(super) fn add_count(count: &mut u64, more: u64) {
    *count = count.saturating_add(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_a_file_stay_at_the_greatest_number() {
        let full = CountedEvents {
            since_ts: 5,
            rules: BTreeMap::from([("loitering".into(), u64::MAX)]),
            lines: BTreeMap::from([(
                "door".into(),
                serde_json::from_str(r#"{"in":{"person":18446744073709551615}}"#).unwrap(),
            )]),
        };
        let mut counts = full.clone();
        counts.add(full.clone());
        assert_eq!(counts, full);
    }
}
