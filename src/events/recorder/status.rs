//! What the status shows of events.

use super::EventRecorder;
use crate::status::{EventStatus, RuleStatus, StatusSource};

impl StatusSource<Option<EventStatus>> for EventRecorder {
    fn status(&self) -> Option<EventStatus> {
        let inner = self.inner.lock();
        if !inner.engine.is_on() {
            return None;
        }
        let counts = inner.engine.counts();
        let rules = inner.engine.open_events().map(|(name, open)| RuleStatus {
            name: name.to_owned(),
            started: counts.rules.get(name).copied().unwrap_or(0),
            open,
        });
        let lines = inner.engine.config().lines.iter().map(|line| {
            let totals = counts.lines.get(&line.name).cloned().unwrap_or_default();
            (line.name.to_string(), totals)
        });
        Some(EventStatus {
            since_ts: counts.since_ts,
            rules: rules.collect(),
            lines: lines.collect(),
            zones: inner
                .engine
                .occupancy()
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
            not_started: inner.engine.not_started(),
            // Cannot fail: no field has a key that is no text.
            recent: inner
                .recent
                .iter()
                .rev()
                .filter_map(|event| serde_json::to_value(event).ok())
                .collect(),
        })
    }
}
