//! The rules: when an event starts, is updated and ends. Times are arguments.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::event::{EndReason, Event, EventBox, EventKind};
use super::moment::{Moment, millis_between};
use super::tracker::Track;
use crate::config::EventCondition;

/// An event that has started.
#[derive(Debug)]
pub(super) struct OpenEvent {
    /// The last message, with what is known now.
    event: Event,
    began: Instant,
    /// When the condition held last.
    held: Instant,
    updated: Instant,
}

impl OpenEvent {
    /// `event`: what the message says about the rule; times are filled in. `began`: since when the condition holds.
    fn start(event: Event, began: Instant, began_ts: u64, now: Moment) -> Box<Self> {
        let mut open = Box::new(Self {
            event,
            began,
            held: now.at,
            updated: now.at,
        });
        open.event.start_ts = Some(began_ts);
        open.event.event = EventKind::Start;
        open
    }

    /// Returns the id of the event if this is its highest value.
    fn raise_value(&mut self, value: Option<f64>) -> Option<Uuid> {
        let before = self.event.value;
        self.event.value = highest(before, value);
        (self.event.value > before).then_some(self.event.id)
    }

    /// The message of this kind.
    fn message(&mut self, kind: EventKind, now: Moment) -> Event {
        self.event.event = kind;
        self.event.dwell_ms = Some(millis_between(self.began, self.held));
        self.event.ts = now.ts;
        self.event.inference_id = now.inference_id;
        self.event.clone()
    }

    fn update(&mut self, every: Option<Duration>, now: Moment) -> Option<Event> {
        let is_due = now.at.saturating_duration_since(self.updated) >= every?;
        is_due.then(|| {
            self.updated = now.at;
            self.message(EventKind::Update, now)
        })
    }

    fn end(mut self, reason: Option<EndReason>, now: Moment) -> Event {
        self.event.reason = reason;
        self.message(EventKind::End, now)
    }

    /// The event as it must be known after a crash.
    fn snapshot(&self) -> Event {
        let mut event = self.event.clone();
        event.dwell_ms = Some(millis_between(self.began, self.held));
        event
    }
}

/// What is known of one rule.
#[derive(Debug)]
pub(super) enum RuleState {
    /// For each object in the zone, or that has just left it.
    Objects(BTreeMap<i64, ObjectPhase>),
    /// One condition for all.
    Whole(WholePhase),
}

/// An object in relation to the zone of a rule.
#[derive(Debug)]
pub(super) enum ObjectPhase {
    /// It is inside, not long enough yet: since when, and its highest value.
    Entered(Instant, u64, f64),
    /// Its event has started.
    Open { open: Box<OpenEvent>, is_inside: bool },
}

/// A condition that holds or not.
#[derive(Debug, Default)]
pub(super) struct WholePhase {
    /// Since when it holds.
    since: Option<(Instant, u64)>,
    /// For so many inferences in a row.
    inferences: u32,
    /// The highest value among them.
    highest: Option<f64>,
    open: Option<Box<OpenEvent>>,
    /// When the last event started.
    started: Option<Instant>,
}

impl RuleState {
    pub fn new(condition: &EventCondition) -> Self {
        match condition {
            EventCondition::Object { .. } => Self::Objects(BTreeMap::new()),
            EventCondition::Count { .. } | EventCondition::Label { .. } => Self::Whole(WholePhase::default()),
        }
    }

    /// Events that have started and not ended.
    pub fn open_count(&self) -> usize {
        match self {
            Self::Objects(objects) => objects.values().filter(|phase| phase.is_open()).count(),
            Self::Whole(phase) => usize::from(phase.open.is_some()),
        }
    }

    /// These events, as they must be known after a crash.
    pub fn snapshots(&self) -> Vec<Event> {
        match self {
            Self::Objects(objects) => objects.values().filter_map(ObjectPhase::snapshot).collect(),
            Self::Whole(phase) => phase.open.iter().map(|open| open.snapshot()).collect(),
        }
    }

    /// Ends all events.
    pub fn end_all(&mut self, reason: EndReason, now: Moment, events: &mut Vec<Event>) {
        match self {
            Self::Objects(objects) => {
                let phases = std::mem::take(objects).into_values();
                events.extend(
                    phases
                        .filter_map(|phase| phase.into_open())
                        .map(|open| open.end(Some(reason), now)),
                );
            }
            Self::Whole(phase) => {
                let started = phase.started;
                let before = std::mem::take(phase);
                phase.started = started;
                events.extend(before.open.map(|open| open.end(Some(reason), now)));
            }
        }
    }
}

impl ObjectPhase {
    fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    fn snapshot(&self) -> Option<Event> {
        match self {
            Self::Open { open, .. } => Some(open.snapshot()),
            Self::Entered(..) => None,
        }
    }

    fn into_open(self) -> Option<Box<OpenEvent>> {
        match self {
            Self::Open { open, .. } => Some(open),
            Self::Entered(..) => None,
        }
    }
}

/// Settings and surroundings of a rule about the objects in a zone.
pub(super) struct ObjectRule<'a> {
    pub min_value: f64,
    pub enter_after: Duration,
    pub leave_after: Duration,
    pub update_every: Option<Duration>,
    /// What each message says about rule and zone.
    pub template: &'a Event,
    /// Objects in the zone.
    pub count: usize,
}

impl ObjectRule<'_> {
    /// Takes where an object was at some time. Returns the id of its event if its value was never higher.
    pub fn observe(
        phases: &mut BTreeMap<i64, ObjectPhase>,
        track: &Track,
        is_inside: bool,
        (at, ts): (Instant, u64),
    ) -> Option<Uuid> {
        match phases.get_mut(&track.object_id) {
            None if is_inside => {
                phases.insert(track.object_id, ObjectPhase::Entered(at, ts, track.last.value));
            }
            None => {}
            Some(ObjectPhase::Entered(..)) if !is_inside => {
                phases.remove(&track.object_id);
            }
            Some(ObjectPhase::Entered(.., highest)) => *highest = highest.max(track.last.value),
            Some(ObjectPhase::Open { open, is_inside: was }) => {
                *was = is_inside;
                if is_inside {
                    open.held = at;
                    open.event.place = Some((&track.last).into());
                    return open.raise_value(Some(track.last.value));
                }
            }
        }
        None
    }

    /// Whether the object has been inside long enough, and its event has not started.
    pub fn is_ready(&self, phases: &BTreeMap<i64, ObjectPhase>, track: &Track, now: Moment) -> bool {
        match phases.get(&track.object_id) {
            Some(ObjectPhase::Entered(at, ..)) => {
                now.at.saturating_duration_since(*at) >= self.enter_after && track.mean_value >= self.min_value
            }
            _ => false,
        }
    }

    /// Starts the event of an object that is inside.
    pub fn start(
        &self,
        phases: &mut BTreeMap<i64, ObjectPhase>,
        track: &Track,
        id: Uuid,
        now: Moment,
    ) -> Option<Event> {
        let phase = phases.get_mut(&track.object_id)?;
        let ObjectPhase::Entered(at, ts, highest) = *phase else {
            return None;
        };
        let event = Event {
            id,
            object_id: Some(track.object_id),
            label: Some(track.label().to_owned()),
            value: Some(highest),
            place: Some((&track.last).into()),
            count: Some(self.count),
            ..self.template.clone()
        };
        let mut open = OpenEvent::start(event, at, ts, now);
        let started = open.message(EventKind::Start, now);
        *phase = ObjectPhase::Open { open, is_inside: true };
        Some(started)
    }

    /// Updates events, and ends those whose objects have left or are lost. `is_followed`: the object is still tracked.
    pub fn pass_time(
        &self,
        phases: &mut BTreeMap<i64, ObjectPhase>,
        is_followed: impl Fn(i64) -> bool,
        now: Moment,
        events: &mut Vec<Event>,
    ) {
        let mut over = Vec::new();
        for (object_id, phase) in phases.iter_mut() {
            let is_followed = is_followed(*object_id);
            match phase {
                ObjectPhase::Entered(..) if is_followed => {}
                ObjectPhase::Entered(..) => over.push(*object_id),
                ObjectPhase::Open { open, is_inside } => {
                    open.event.count = Some(self.count);
                    let has_left = !(is_followed && *is_inside);
                    if has_left && now.at.saturating_duration_since(open.held) >= self.leave_after {
                        over.push(*object_id);
                    } else {
                        events.extend(open.update(self.update_every, now));
                    }
                }
            }
        }
        for object_id in over {
            let open = phases.remove(&object_id).and_then(ObjectPhase::into_open);
            events.extend(open.map(|open| open.end(None, now)));
        }
    }
}

/// Settings of a rule with one condition.
pub(super) struct WholeRule<'a> {
    pub hold: Duration,
    pub inferences: u32,
    pub clear_after: Duration,
    pub repeat_after: Duration,
    pub update_every: Option<Duration>,
    /// What each message says about the rule.
    pub template: &'a Event,
}

/// What an inference says about the condition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// An event may start.
    pub holds: bool,
    /// An event that has started goes on.
    pub keeps: bool,
    /// The value of the label.
    pub value: Option<f64>,
    /// The box that has this value.
    pub place: Option<EventBox>,
    /// The number of objects.
    pub count: Option<usize>,
}

impl WholeRule<'_> {
    /// Takes the reading of an inference. `may_start`: there is room for a further event. `improved` gets the id of the event if
    /// its value was never higher.
    pub fn observe(
        &self,
        phase: &mut WholePhase,
        reading: Reading,
        may_start: bool,
        id: impl FnOnce() -> Uuid,
        improved: &mut Vec<Uuid>,
        now: Moment,
    ) -> Option<Event> {
        if let Some(mut open) = phase.open.take() {
            open.event.count = reading.count;
            if reading.keeps {
                open.held = now.at;
                open.event.place = reading.place;
                improved.extend(open.raise_value(reading.value));
            } else if now.at.saturating_duration_since(open.held) >= self.clear_after {
                return Some(open.end(None, now));
            }
            let message = open.update(self.update_every, now);
            phase.open = Some(open);
            return message;
        }
        if !reading.holds {
            (phase.since, phase.inferences, phase.highest) = (None, 0, None);
            return None;
        }
        let (since, since_ts) = *phase.since.get_or_insert((now.at, now.ts));
        phase.inferences = phase.inferences.saturating_add(1);
        phase.highest = highest(phase.highest, reading.value);
        let is_repeat = phase
            .started
            .is_some_and(|started| now.at.saturating_duration_since(started) < self.repeat_after);
        let has_held = now.at.saturating_duration_since(since) >= self.hold && phase.inferences >= self.inferences;
        if !has_held || is_repeat || !may_start {
            return None;
        }
        let event = Event {
            id: id(),
            value: phase.highest,
            place: reading.place,
            count: reading.count,
            ..self.template.clone()
        };
        let mut open = OpenEvent::start(event, since, since_ts, now);
        let started = open.message(EventKind::Start, now);
        *phase = WholePhase {
            open: Some(open),
            started: Some(now.at),
            ..WholePhase::default()
        };
        Some(started)
    }
}

fn highest(before: Option<f64>, value: Option<f64>) -> Option<f64> {
    match (before, value) {
        (Some(before), Some(value)) => Some(before.max(value)),
        (before, value) => before.or(value),
    }
}
