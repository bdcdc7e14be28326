//! Shows the zones, lines and rules as the configuration writes them, with every default.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::types::{CountingLine, EventCondition, EventRule, EventsConfig, LabelSet, Zone};
use crate::util::geometry::Point;

impl EventsConfig {
    /// The object that [`super::parse_events`] reads. It names every setting, also those that have their default.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        let mut add = |name: &str, entries: Map<String, Value>| {
            if !entries.is_empty() {
                object.insert(name.to_owned(), Value::Object(entries));
            }
        };
        add(
            "zones",
            self.zones
                .iter()
                .map(|zone| (zone.name.to_string(), self::zone(zone)))
                .collect(),
        );
        add(
            "lines",
            self.lines
                .iter()
                .map(|line| (line.name.to_string(), self::line(line)))
                .collect(),
        );
        add(
            "rules",
            self.rules
                .iter()
                .map(|rule| (rule.name.to_string(), self.rule(rule)))
                .collect(),
        );
        Value::Object(object)
    }

    fn rule(&self, rule: &EventRule) -> Value {
        let zone_name = |zone: usize| self.zones.get(zone).map_or("", |zone| &*zone.name);
        let mut shown = match &rule.condition {
            EventCondition::Object {
                zone,
                labels,
                min_value,
                enter_after,
                leave_after,
            } => with_labels(
                json!({
                    "zone": zone_name(*zone), "min_value": min_value,
                    "enter_after_ms": millis(*enter_after), "leave_after_ms": millis(*leave_after),
                }),
                labels,
            ),
            EventCondition::Count {
                zone,
                labels,
                at_least,
                hold,
                clear_after,
            } => with_labels(
                json!({
                    "zone": zone_name(*zone), "count_at_least": at_least,
                    "for_ms": millis(*hold), "clear_after_ms": millis(*clear_after),
                }),
                labels,
            ),
            EventCondition::Label {
                label,
                at_least,
                keep_at,
                inferences,
                hold,
                clear_after,
                repeat_after,
            } => json!({
                "label": label, "value_at_least": at_least, "keep_at": keep_at, "for_inferences": inferences,
                "for_ms": millis(*hold), "clear_after_ms": millis(*clear_after), "repeat_after_s": repeat_after.as_secs(),
            }),
        };
        if let Some(interval) = rule.update_every {
            shown["update_every_s"] = interval.as_secs().into();
        }
        shown
    }
}

/// One line of JSON.
impl fmt::Display for EventsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_json().fmt(f)
    }
}

fn zone(zone: &Zone) -> Value {
    let points: Vec<_> = zone.polygon.iter().map(|point| pair(*point)).collect();
    let anchor: &str = zone.anchor.into();
    with_labels(json!({"polygon": points, "anchor": anchor}), &zone.labels)
}

fn line(line: &CountingLine) -> Value {
    let [forward, backward] = line.directions.axis.names();
    let mut directions = Map::new();
    for (field, name) in [
        (forward, &line.directions.forward),
        (backward, &line.directions.backward),
    ] {
        if let Some(name) = name {
            directions.insert(field.to_owned(), json!(name));
        }
    }
    let anchor: &str = line.anchor.into();
    with_labels(
        json!({"from": pair(line.from), "to": pair(line.to), "anchor": anchor, "directions": directions}),
        &line.labels,
    )
}

fn with_labels(mut shown: Value, labels: &LabelSet) -> Value {
    if !labels.0.is_empty() {
        shown["labels"] = json!(labels.0);
    }
    shown
}

fn pair(point: Point) -> Value {
    json!([point.x, point.y])
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
