//! The settings of a rule, in the form in which `rules` takes them.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::event::{Event, EventKind};
use super::rules::ObjectRule;
use crate::config::{EventCondition, EventsConfig, LabelSet};

/// Settings of a rule with one condition.
pub(super) struct WholeSettings {
    pub hold: Duration,
    pub inferences: u32,
    pub clear_after: Duration,
    pub repeat_after: Duration,
}

/// Settings of a rule about the objects in a zone.
pub(super) struct ObjectSettings<'c> {
    pub zone: usize,
    pub labels: &'c LabelSet,
    pub min_value: f64,
    pub enter_after: Duration,
    pub leave_after: Duration,
    pub update_every: Option<Duration>,
}

impl<'c> ObjectSettings<'c> {
    /// The settings of the rule at this position, if it is about the objects in a zone.
    pub fn of(config: &'c EventsConfig, index: usize) -> Option<Self> {
        let rule = config.rules.get(index)?;
        match &rule.condition {
            EventCondition::Object {
                zone,
                labels,
                min_value,
                enter_after,
                leave_after,
            } => Some(Self {
                zone: *zone,
                labels,
                min_value: *min_value,
                enter_after: *enter_after,
                leave_after: *leave_after,
                update_every: rule.update_every,
            }),
            EventCondition::Count { .. } | EventCondition::Label { .. } => None,
        }
    }

    /// The rule with its surroundings.
    pub fn rule<'a>(&self, template: &'a Event, count: usize) -> ObjectRule<'a> {
        ObjectRule {
            min_value: self.min_value,
            enter_after: self.enter_after,
            leave_after: self.leave_after,
            update_every: self.update_every,
            template,
            count,
        }
    }
}

/// What every message of the rule says.
pub(super) fn template(config: &EventsConfig, rule: &Arc<str>, condition: &EventCondition) -> Event {
    let zone = condition.zone().and_then(|zone| config.zones.get(zone));
    let label = match condition {
        EventCondition::Label { label, .. } => Some(label.to_string()),
        EventCondition::Object { .. } | EventCondition::Count { .. } => None,
    };
    Event {
        rule: Some(rule.clone()),
        zone: zone.map(|zone| zone.name.clone()),
        label,
        ..Event::new(EventKind::Start, Uuid::nil(), 0)
    }
}
