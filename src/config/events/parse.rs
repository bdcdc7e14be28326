//! Parses and checks the key `events`.

use std::sync::Arc;

use serde_json::Value;
use strum::VariantNames;

use super::reader::{ACCEPTED_NAME, Problems, Reader, is_name, named_entries, nearest};
use super::types::{Anchor, CountingLine, EventCondition, EventRule, EventsConfig, LineDirections, MovementAxis, Zone};
use crate::config::error;
use crate::config::json_text::parse_object_text;
use crate::config::number::finite;
use crate::util::geometry::{Point, area, crossing_edges};

/// Most zones.
const MAX_ZONES: usize = 32;
/// Most lines.
const MAX_LINES: usize = 32;
/// Most rules.
const MAX_RULES: usize = 64;
/// Most points of a polygon.
const MAX_POINTS: usize = 64;
/// The smallest area of a zone, as a fraction of the picture: a hundredth of its width by a hundredth of its height.
const MIN_AREA: f64 = 1e-4;
/// The shortest line, as a fraction of the picture.
const MIN_LENGTH: f64 = 0.01;
/// Longest text of the key, in bytes. A command has at most as many.
const MAX_TEXT: usize = 64 << 10;

/// Parses the key: an object, or its JSON text, as Greengrass Lite passes it.
///
/// # Errors
/// Everything that is wrong with it, as one clause after "which".
pub fn parse_events(value: &Value) -> Result<EventsConfig, String> {
    let mut problems = Problems::default();
    let from_text;
    let value = match value {
        Value::String(text) => {
            from_text = parse_object_text(text, MAX_TEXT)?;
            &from_text
        }
        value => value,
    };
    let config = Reader::new("events".to_owned(), value, &["zones", "lines", "rules"], &mut problems)
        .map(|root| read(&root, &mut problems));
    match (config, problems.into_text()) {
        (Some(config), None) if config == EventsConfig::default() => Err("has no zone, no line and no rule".to_owned()),
        (Some(config), None) => Ok(config),
        (_, problems) => Err(format!("cannot be used: {}", problems.unwrap_or_default())),
    }
}

fn read(root: &Reader<'_>, problems: &mut Problems) -> EventsConfig {
    let zones: Vec<_> = named_entries(root, "zones", MAX_ZONES, problems)
        .into_iter()
        .filter_map(|(name, value)| zone(name, value, problems))
        .collect();
    let lines = named_entries(root, "lines", MAX_LINES, problems)
        .into_iter()
        .filter_map(|(name, value)| line(name, value, problems))
        .collect();
    // Names of zones that have mistakes are known too: a rule about them has none.
    let zone_names = match root.get("zones") {
        Some(Value::Object(zones)) => zones.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    let rules = named_entries(root, "rules", MAX_RULES, problems)
        .into_iter()
        .filter_map(|(name, value)| rule(name, value, &zone_names, problems))
        .collect();
    EventsConfig { zones, lines, rules }
}

fn zone(name: Arc<str>, value: &Value, problems: &mut Problems) -> Option<Zone> {
    let zone = Reader::new(
        format!("zones.{name}"),
        value,
        &["polygon", "labels", "anchor"],
        problems,
    )?;
    let labels = zone.labels("labels", problems);
    let anchor = zone.choice("anchor", Anchor::VARIANTS, problems);
    let polygon = polygon(&zone, problems)?;
    Some(Zone {
        name,
        polygon,
        labels,
        anchor,
    })
}

fn polygon(zone: &Reader<'_>, problems: &mut Problems) -> Option<Vec<Point>> {
    const ACCEPTED: &str = "a list of 3 to 64 points like [0.1, 0.5], fractions of the picture's width and height";
    let Some(Value::Array(points)) = zone.get("polygon") else {
        zone.refuse("polygon", ACCEPTED, problems);
        return None;
    };
    let place = zone.place("polygon");
    let mut polygon = Vec::new();
    for (number, value) in points.iter().take(MAX_POINTS + 2).enumerate() {
        let point = point(&format!("{place}[{number}]"), value, problems)?;
        if polygon.last() != Some(&point) {
            polygon.push(point);
        }
    }
    // GeoJSON and many drawing programs repeat the first point at the end.
    if polygon.len() > 1 && polygon.first() == polygon.last() {
        polygon.pop();
    }
    let problem = if polygon.len() < 3 {
        format!("has {} different points, but a polygon needs 3", polygon.len())
    } else if polygon.len() > MAX_POINTS {
        format!("has {} points, but accepted are up to {MAX_POINTS}", points.len())
    } else if is_flat(&polygon) {
        "has no area: its points are on one line or too close together".to_owned()
    } else if let Some((first, second)) = crossing_edges(&polygon) {
        format!("crosses or touches itself: the edge after point {first} and the one after point {second} meet")
    } else if area(&polygon) < MIN_AREA {
        "has no area: it is too thin".to_owned()
    } else {
        return Some(polygon);
    };
    problems.add(format!("`{place}` {problem}"));
    None
}

/// Whether the points are on one line, more or less.
fn is_flat(polygon: &[Point]) -> bool {
    let height = |values: fn(&Point) -> f64| {
        let (least, most) = polygon
            .iter()
            .map(values)
            .fold((f64::MAX, f64::MIN), |(least, most), value| {
                (least.min(value), most.max(value))
            });
        most - least
    };
    height(|point| point.x) * height(|point| point.y) < MIN_AREA
        || polygon
            .iter()
            .all(|point| area(&[polygon[0], polygon[1], *point]) < MIN_AREA)
}

/// Two fractions.
fn point(place: &str, value: &Value, problems: &mut Problems) -> Option<Point> {
    let coordinates = value.as_array().filter(|list| list.len() == 2);
    let numbers = coordinates.and_then(|list| Some((finite(&list[0])?, finite(&list[1])?)));
    let Some((x, y)) = numbers else {
        problems.add(format!(
            "`{place}` is {}, but a point is two numbers from 0 to 1, as [0.5, 1]",
            error::shown(value)
        ));
        return None;
    };
    if !(0.0..=1.0).contains(&x) || !(0.0..=1.0).contains(&y) {
        problems.add(format!(
            "`{place}` is {}, but coordinates are fractions of the picture from 0 to 1, not pixels",
            error::shown(value)
        ));
        return None;
    }
    Some(Point { x, y })
}

fn line(name: Arc<str>, value: &Value, problems: &mut Problems) -> Option<CountingLine> {
    const KNOWN: [&str; 5] = ["from", "to", "labels", "anchor", "directions"];
    let line = Reader::new(format!("lines.{name}"), value, &KNOWN, problems)?;
    let labels = line.labels("labels", problems);
    let anchor = line.choice("anchor", Anchor::VARIANTS, problems);
    let end = |name: &str, problems: &mut Problems| match line.get(name) {
        Some(value) => point(&line.place(name), value, problems),
        None => {
            line.refuse(name, "a point like [0.5, 0]", problems);
            None
        }
    };
    let (from, to) = (end("from", problems), end("to", problems));
    let (from, to) = (from?, to?);
    if from.distance(to) < MIN_LENGTH {
        problems.add(format!(
            "`{}` goes from [{}, {}] to [{}, {}], but a line needs a length of {MIN_LENGTH} or more",
            line.path, from.x, from.y, to.x, to.y
        ));
        return None;
    }
    let directions = directions(&line, from, to, problems)?;
    Some(CountingLine {
        name,
        from,
        to,
        labels,
        anchor,
        directions,
    })
}

/// Without names, both directions are counted under the names of the movement across the line.
fn directions(line: &Reader<'_>, from: Point, to: Point, problems: &mut Problems) -> Option<LineDirections> {
    let (width, height) = ((to.x - from.x).abs(), (to.y - from.y).abs());
    let Some(value) = line.get("directions") else {
        let axis = if height >= width {
            MovementAxis::Sideways
        } else {
            MovementAxis::UpAndDown
        };
        let [forward, backward] = axis.names().map(|name| Some(name.into()));
        return Some(LineDirections {
            axis,
            forward,
            backward,
        });
    };
    let [sideways, up_and_down] = [MovementAxis::Sideways, MovementAxis::UpAndDown].map(MovementAxis::names);
    let known = [sideways, up_and_down].concat();
    let given = Reader::new(line.place("directions"), value, &known, problems)?;
    let (is_sideways, is_up_and_down) = (
        sideways.iter().any(|name| given.has(name)),
        up_and_down.iter().any(|name| given.has(name)),
    );
    let (axis, is_along) = match (is_sideways, is_up_and_down) {
        (true, false) => (MovementAxis::Sideways, height < MIN_LENGTH),
        (false, true) => (MovementAxis::UpAndDown, width < MIN_LENGTH),
        _ => {
            line.refuse(
                "directions",
                "an object with left_to_right and right_to_left, or with top_to_bottom and bottom_to_top, and a name for each",
                problems,
            );
            return None;
        }
    };
    if is_along {
        let (is, other) = match axis {
            MovementAxis::Sideways => ("horizontal", up_and_down),
            MovementAxis::UpAndDown => ("vertical", sideways),
        };
        problems.add(format!(
            "`{}` has {}, but the line is {is}: its directions are {}",
            given.path,
            axis.names().join(" and "),
            other.join(" and ")
        ));
        return None;
    }
    let mut name = |field: &str| {
        let value = given.get(field)?;
        match value.as_str() {
            Some(text) if is_name(text) => Some(text.into()),
            _ => {
                problems.add(format!(
                    "`{}` is {}, but {ACCEPTED_NAME}",
                    given.place(field),
                    error::shown(value)
                ));
                None
            }
        }
    };
    let [forward, backward] = axis.names().map(&mut name);
    Some(LineDirections {
        axis,
        forward,
        backward,
    })
}

fn rule(name: Arc<str>, value: &Value, zones: &[&str], problems: &mut Problems) -> Option<EventRule> {
    const OBJECT: [&str; 6] = [
        "zone",
        "labels",
        "min_value",
        "enter_after_ms",
        "leave_after_ms",
        "update_every_s",
    ];
    const COUNT: [&str; 6] = [
        "zone",
        "labels",
        "count_at_least",
        "for_ms",
        "clear_after_ms",
        "update_every_s",
    ];
    const LABEL: [&str; 8] = [
        "label",
        "value_at_least",
        "keep_at",
        "for_inferences",
        "for_ms",
        "clear_after_ms",
        "repeat_after_s",
        "update_every_s",
    ];
    let has = |field: &str| value.get(field).is_some_and(|value| !value.is_null());
    let path = format!("rules.{name}");
    if has("line") {
        problems.add(format!(
            "`{path}` names a line, but a line needs no rule: each of its crossings is an event"
        ));
        return None;
    }
    let known: &[&str] = match (has("label"), has("count_at_least")) {
        (true, _) => &LABEL,
        (false, true) => &COUNT,
        (false, false) if has("zone") || !value.is_object() => &OBJECT,
        (false, false) => {
            let given = value.as_object().into_iter().flat_map(|fields| fields.keys());
            let meant = given.into_iter().find_map(|field| nearest(field, ["zone", "label"]));
            let meant = meant
                .map(|meant| format!(" (did you mean `{meant}`?)"))
                .unwrap_or_default();
            problems.add(format!(
                "`{path}` names neither a zone nor a label{meant}; a rule needs one of them"
            ));
            return None;
        }
    };
    let rule = Reader::new(path, value, known, problems)?;
    let update_every = rule.seconds("update_every_s", 0, problems);
    let condition = if has("label") {
        label_condition(&rule, problems)
    } else {
        let zone = zone_of(&rule, zones, problems)?;
        zone_condition(&rule, zone, problems)
    };
    Some(EventRule {
        name,
        update_every: (!update_every.is_zero()).then_some(update_every),
        condition,
    })
}

/// The position of the rule's zone.
fn zone_of(rule: &Reader<'_>, zones: &[&str], problems: &mut Problems) -> Option<usize> {
    let text = rule.get("zone").and_then(Value::as_str).unwrap_or_default();
    if let Some(position) = zones.iter().position(|zone| *zone == text) {
        return Some(position);
    }
    let accepted = match nearest(text, zones.iter().copied()) {
        Some(meant) => format!("the name of a zone (did you mean `{meant}`?)"),
        None if zones.is_empty() => "the name of a zone in `zones`, which has none".to_owned(),
        None => format!("the name of a zone: {}", zones.join(", ")),
    };
    rule.refuse("zone", &accepted, problems);
    None
}

fn zone_condition(rule: &Reader<'_>, zone: usize, problems: &mut Problems) -> EventCondition {
    let labels = rule.labels("labels", problems);
    if rule.has("count_at_least") {
        return EventCondition::Count {
            zone,
            labels,
            at_least: usize::try_from(rule.integer("count_at_least", 1, (1, 128), problems)).unwrap_or(1),
            hold: rule.millis("for_ms", 0, problems),
            clear_after: rule.millis("clear_after_ms", 1000, problems),
        };
    }
    let min_value = rule.number("min_value", 0.0, "a number from 0 to 1", problems);
    if !(0.0..=1.0).contains(&min_value) {
        rule.refuse("min_value", "a number from 0 to 1", problems);
    }
    EventCondition::Object {
        zone,
        labels,
        min_value,
        enter_after: rule.millis("enter_after_ms", 500, problems),
        leave_after: rule.millis("leave_after_ms", 2000, problems),
    }
}

fn label_condition(rule: &Reader<'_>, problems: &mut Problems) -> EventCondition {
    const NUMBER: &str = "a number, as the model gives it: for a probability from 0 to 1";
    if !rule.has("value_at_least") {
        rule.refuse("value_at_least", NUMBER, problems);
    }
    let at_least = rule.number("value_at_least", 0.5, NUMBER, problems);
    let keep_at = rule.number("keep_at", at_least, NUMBER, problems);
    if keep_at > at_least {
        rule.refuse("keep_at", "a number that is not above `value_at_least`", problems);
    }
    EventCondition::Label {
        label: rule.label("label", problems),
        at_least,
        keep_at,
        inferences: u32::try_from(rule.integer("for_inferences", 1, (1, 100_000), problems)).unwrap_or(1),
        hold: rule.millis("for_ms", 0, problems),
        clear_after: rule.millis("clear_after_ms", 0, problems),
        repeat_after: rule.seconds("repeat_after_s", 0, problems),
    }
}
