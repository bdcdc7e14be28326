//! The typed zones, lines and rules.

use std::sync::Arc;
use std::time::Duration;

use strum::{Display, EnumString, IntoStaticStr, VariantNames};

use super::reader::nearest;
use crate::util::geometry::{Point, signed_distance};

/// Labels that stand for scores: the names of the fields in the inference message.
const SCORES: [&str; 3] = ["anomaly", "visual_anomaly_max", "visual_anomaly_mean"];

/// The value of the key `events`. At least one zone, line or rule.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventsConfig {
    /// Areas of the picture.
    pub zones: Vec<Zone>,
    /// Lines whose crossings are counted.
    pub lines: Vec<CountingLine>,
    /// What starts and ends an event.
    pub rules: Vec<EventRule>,
}

/// An area of the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// Its name.
    pub name: Arc<str>,
    /// Three points or more, without the first one repeated at the end. Its edges do not cross.
    pub polygon: Vec<Point>,
    /// The objects that count.
    pub labels: LabelSet,
    /// The point of an object's box that must be inside.
    pub anchor: Anchor,
}

/// A line whose crossings are counted.
#[derive(Debug, Clone, PartialEq)]
pub struct CountingLine {
    /// Its name.
    pub name: Arc<str>,
    /// One end.
    pub from: Point,
    /// The other end.
    pub to: Point,
    /// The objects that count.
    pub labels: LabelSet,
    /// The point of an object's box that crosses.
    pub anchor: Anchor,
    /// The names of the two directions.
    pub directions: LineDirections,
}

/// How the two directions across a line are called.
#[derive(Debug, Clone, PartialEq)]
pub struct LineDirections {
    /// Which movement is meant.
    pub axis: MovementAxis,
    /// From left to right, or from top to bottom; `None`: not counted.
    pub forward: Option<Arc<str>>,
    /// From right to left, or from bottom to top; `None`: not counted.
    pub backward: Option<Arc<str>>,
}

/// The movement across a line, as a viewer of the picture sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MovementAxis {
    /// `left_to_right` and `right_to_left`
    Sideways,
    /// `top_to_bottom` and `bottom_to_top`
    UpAndDown,
}

impl MovementAxis {
    /// The names of both directions in the configuration: forward and backward.
    pub fn names(self) -> [&'static str; 2] {
        match self {
            Self::Sideways => ["left_to_right", "right_to_left"],
            Self::UpAndDown => ["top_to_bottom", "bottom_to_top"],
        }
    }
}

impl CountingLine {
    /// The distance of a point from the line: negative where movements forward begin (left, or above), positive where they end.
    pub fn progress(&self, point: Point) -> f64 {
        let distance = signed_distance(self.from, self.to, point);
        let is_forward_positive = match self.directions.axis {
            // The left side of a line that goes down is positive.
            MovementAxis::Sideways => self.to.y < self.from.y,
            MovementAxis::UpAndDown => self.to.x > self.from.x,
        };
        if is_forward_positive { distance } else { -distance }
    }
}

/// Labels that count; empty: every label.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSet(pub Vec<Arc<str>>);

impl LabelSet {
    /// Whether objects with this label count.
    pub fn contains(&self, label: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|accepted| **accepted == *label)
    }
}

/// The point of an object's box that stands for the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, EnumString, IntoStaticStr, Display, VariantNames)]
#[strum(serialize_all = "snake_case", ascii_case_insensitive)]
pub enum Anchor {
    /// The middle of the lower edge: where a person or a car stands.
    Bottom,
    /// The middle of the box.
    #[default]
    Center,
    /// The middle of the upper edge.
    Top,
    /// The middle of the left edge.
    Left,
    /// The middle of the right edge.
    Right,
}

/// What starts and ends an event.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRule {
    /// Its name.
    pub name: Arc<str>,
    /// Interval of `update` while the event lasts; `None`: there are none.
    pub update_every: Option<Duration>,
    /// When the event starts and ends.
    pub condition: EventCondition,
}

/// When an event starts and ends.
#[derive(Debug, Clone, PartialEq)]
pub enum EventCondition {
    /// An object is in a zone: one event for each object.
    Object {
        /// The zone, by its position in [`EventsConfig::zones`].
        zone: usize,
        /// Of the zone's labels, these.
        labels: LabelSet,
        /// The mean value of an object reaches this before its event starts.
        min_value: f64,
        /// The object is inside so long before the event starts.
        enter_after: Duration,
        /// The object is outside, or not found, so long before the event ends.
        leave_after: Duration,
    },
    /// Enough objects are in a zone at the same time.
    Count {
        /// The zone, by its position in [`EventsConfig::zones`].
        zone: usize,
        /// Of the zone's labels, these.
        labels: LabelSet,
        /// So many objects.
        at_least: usize,
        /// So long before the event starts.
        hold: Duration,
        /// There are fewer objects so long before the event ends.
        clear_after: Duration,
    },
    /// A label of the result has a high value.
    Label {
        /// The label, or the name of a score (`anomaly`, `visual_anomaly_max`, `visual_anomaly_mean`).
        label: Arc<str>,
        /// The value from which on the condition holds.
        at_least: f64,
        /// While the event lasts, values from this on keep it up; at most `at_least`.
        keep_at: f64,
        /// So many inferences in a row before the event starts.
        inferences: u32,
        /// So long before the event starts.
        hold: Duration,
        /// The value is lower so long before the event ends.
        clear_after: Duration,
        /// The next event starts at the earliest so long after this one has started.
        repeat_after: Duration,
    },
}

impl EventCondition {
    /// How long the condition holds before its event starts. Inferences in a row are not counted.
    pub fn delay(&self) -> Duration {
        match self {
            Self::Object { enter_after, .. } => *enter_after,
            Self::Count { hold, .. } | Self::Label { hold, .. } => *hold,
        }
    }

    /// The zone, if the condition is about one.
    pub fn zone(&self) -> Option<usize> {
        match self {
            Self::Object { zone, .. } | Self::Count { zone, .. } => Some(*zone),
            Self::Label { .. } => None,
        }
    }
}

impl EventsConfig {
    /// Whether anything needs tracked objects.
    pub fn needs_tracking(&self) -> bool {
        !self.zones.is_empty() || !self.lines.is_empty()
    }

    /// The labels that a model with these labels does not have, each as a sentence. A model without labels may have any.
    pub fn unknown_labels(&self, known: &[String]) -> Vec<String> {
        if known.is_empty() {
            return Vec::new();
        }
        let is_known = |label: &str| SCORES.contains(&label) || known.iter().any(|known| known == label);
        let unknown = self.named_labels().filter(|(_, label)| !is_known(label));
        let sentence = |(part, label): (String, &str)| {
            let meant = nearest(label, known.iter().map(String::as_str))
                .map(|meant| format!(" (did you mean `{meant}`?)"))
                .unwrap_or_default();
            format!("{part} of `events` waits for the label `{label}`, which the model does not have{meant}")
        };
        unknown.map(sentence).collect()
    }

    /// Every label that the configuration names, each with the part that names it: `zone bay`, `line gate`, `rule defect`.
    pub(super) fn named_labels(&self) -> impl Iterator<Item = (String, &str)> {
        let zones = self.zones.iter().flat_map(|zone| {
            zone.labels
                .0
                .iter()
                .map(move |label| (format!("zone {}", zone.name), &**label))
        });
        let lines = self.lines.iter().flat_map(|line| {
            line.labels
                .0
                .iter()
                .map(move |label| (format!("line {}", line.name), &**label))
        });
        let rules = self.rules.iter().flat_map(|rule| {
            let labels: Vec<&str> = match &rule.condition {
                EventCondition::Object { labels, .. } | EventCondition::Count { labels, .. } => {
                    labels.0.iter().map(|label| &**label).collect()
                }
                EventCondition::Label { label, .. } => vec![label],
            };
            labels
                .into_iter()
                .map(move |label| (format!("rule {}", rule.name), label))
        });
        zones.chain(lines).chain(rules)
    }
}
