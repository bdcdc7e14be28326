//! Turns the results of inferences into events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::event::{EndReason, Event, EventBox, EventKind};
use super::followed_object::FollowedObject;
use super::lines::{self, LineSide};
use super::moment::Moment;
use super::rule_settings::{ObjectSettings, WholeSettings, template};
use super::rules::{ObjectRule, Reading, RuleState, WholeRule};
use super::scores::score;
use super::state::{CountedEvents, EventState, add_count};
use super::tracker::{DetectorInfo, Tracker};
use crate::config::{EventCondition, EventsConfig};
use crate::model::InferenceResult;
use crate::util::geometry::contains;

/// Most events that may be open at the same time. Further ones do not start; they are counted.
const MAX_OPEN: usize = 256;
/// After this time without an inference, and [`SILENT_INTERVALS`], nothing is known of the scene: events end.
const SILENCE: Duration = Duration::from_secs(10);
/// After this time without an inference, and as many intervals, objects are not recognised again.
const LOST: Duration = Duration::from_secs(2);
const SILENT_INTERVALS: u32 = 5;
/// The part of a new interval in the mean interval of inferences.
const NEW_PART: f64 = 0.2;

/// One rule.
#[derive(Debug)]
struct Rule {
    /// What each of its messages says.
    template: Event,
    state: RuleState,
}

/// Where an object was seen last.
#[derive(Debug)]
struct ObjectPlace {
    /// For each zone, whether it is inside.
    zones: Vec<bool>,
    lines: Vec<LineSide>,
}

/// The state of all zones, lines and rules.
pub struct EventEngine {
    config: Arc<EventsConfig>,
    rules: Vec<Rule>,
    objects: BTreeMap<i64, ObjectPlace>,
    counts: CountedEvents,
    /// `None`: the model finds no objects.
    tracker: Option<Tracker>,
    start_id: Uuid,
    last_inference: Option<Instant>,
    /// Mean time between two inferences, in seconds.
    interval: f64,
    is_silent: bool,
    not_started: u64,
    /// Open events whose value was never higher than in the last inference.
    improved: Vec<Uuid>,
    new_id: Box<dyn FnMut() -> Uuid + Send>,
}

impl EventEngine {
    /// An engine without a configuration. `new_id` makes the ids of events.
    pub fn new(new_id: impl FnMut() -> Uuid + Send + 'static) -> Self {
        Self {
            config: Arc::default(),
            rules: Vec::new(),
            objects: BTreeMap::new(),
            counts: CountedEvents::default(),
            tracker: None,
            start_id: Uuid::nil(),
            last_inference: None,
            interval: 0.0,
            is_silent: false,
            not_started: 0,
            improved: Vec::new(),
            new_id: Box::new(new_id),
        }
    }

    /// The zones, lines and rules in force.
    pub fn config(&self) -> &Arc<EventsConfig> {
        &self.config
    }

    /// Whether there are zones, lines or rules.
    pub fn is_on(&self) -> bool {
        *self.config != EventsConfig::default()
    }

    /// Changes zones, lines and rules. Ends all events. The numbers of rules and lines that stay are kept.
    pub fn set_config(&mut self, config: Arc<EventsConfig>, now: Moment) -> Vec<Event> {
        let mut events = Vec::new();
        self.end_all(EndReason::Configuration, now, &mut events);
        self.counts
            .rules
            .retain(|name, _| config.rules.iter().any(|rule| rule.name == *name));
        self.counts
            .lines
            .retain(|name, _| config.lines.iter().any(|line| line.name == *name));
        self.rules = config
            .rules
            .iter()
            .map(|rule| Rule {
                template: template(&config, &rule.name, &rule.condition),
                state: RuleState::new(&rule.condition),
            })
            .collect();
        self.objects.clear();
        self.config = config;
        events
    }

    /// A model has started, with this input; `None`: it does not look at pictures. Objects are followed anew.
    pub fn start_model(&mut self, detector: Option<DetectorInfo>, now: Moment) -> Vec<Event> {
        let mut events = Vec::new();
        for rule in self.rules.iter_mut().filter(|rule| rule.template.label.is_none()) {
            rule.state.end_all(EndReason::Restart, now, &mut events);
        }
        let last_id = self.tracker.as_ref().map_or(0, Tracker::last_id);
        self.tracker = detector.map(|info| Tracker::new(info, last_id));
        self.objects.clear();
        self.start_id = (self.new_id)();
        events
    }

    /// Takes the result of an inference. Returns what happened.
    pub fn update(&mut self, result: &InferenceResult, now: Moment) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.is_on() {
            return events;
        }
        self.note_interval(now.at);
        self.improved.clear();
        if self.config.needs_tracking() {
            self.follow(result, now, &mut events);
        }
        self.apply_rules(result, now, &mut events);
        events
    }

    /// Ends events whose time is over although there is no inference.
    pub fn pass_time(&mut self, now: Moment) -> Vec<Event> {
        let mut events = Vec::new();
        let Some(last) = self.last_inference else {
            return events;
        };
        let silence = now.at.saturating_duration_since(last);
        if silence >= SILENCE + SILENT_INTERVALS * self.mean_interval() {
            if !self.is_silent {
                self.is_silent = true;
                self.forget_objects();
                self.end_all(EndReason::NoInferences, now, &mut events);
            }
            return events;
        }
        self.pass_time_of_objects(now, &mut events);
        events
    }

    /// Ends all events.
    pub fn end_all(&mut self, reason: EndReason, now: Moment, events: &mut Vec<Event>) {
        for rule in &mut self.rules {
            rule.state.end_all(reason, now, events);
        }
    }

    /// The open events whose value was never higher than in the last inference: it shows them best.
    pub fn improved(&self) -> &[Uuid] {
        &self.improved
    }

    /// Whether time alone can cause an event.
    pub fn needs_time(&self) -> bool {
        self.open_count() > 0
    }

    /// What must be known after a crash.
    pub fn state(&self) -> EventState {
        EventState {
            open: self.rules.iter().flat_map(|rule| rule.state.snapshots()).collect(),
            counts: self.counts.clone(),
        }
    }

    /// Numbers of events and crossings.
    pub fn counts(&self) -> &CountedEvents {
        &self.counts
    }

    /// Sets the numbers of an earlier run.
    pub fn set_counts(&mut self, counts: CountedEvents) {
        self.counts = counts;
    }

    /// Events that could not start because too many were open.
    pub fn not_started(&self) -> u64 {
        self.not_started
    }

    /// Each rule with its open events.
    pub fn open_events(&self) -> impl Iterator<Item = (&str, usize)> {
        let names = self.config.rules.iter().map(|rule| &*rule.name);
        names.zip(self.rules.iter().map(|rule| rule.state.open_count()))
    }

    /// Each zone with the objects in it.
    pub fn occupancy(&self) -> impl Iterator<Item = (&str, usize)> {
        let zones = self.config.zones.iter().enumerate();
        zones.map(|(index, zone)| (&*zone.name, self.count_inside(index, |_| true)))
    }

    /// The objects that are followed now; none without zones and lines.
    pub fn objects(&self) -> impl Iterator<Item = FollowedObject> {
        let tracks = self.tracker.iter().flat_map(Tracker::objects);
        tracks.filter(|_| self.config.needs_tracking()).map(|track| {
            let place = self.objects.get(&track.object_id);
            let zones = self.config.zones.iter().enumerate();
            let counts = |index: usize| place.is_some_and(|place| place.zones[index]);
            FollowedObject {
                id: track.object_id,
                label: track.label().to_owned(),
                value: track.last.value,
                place: (&track.last).into(),
                found: track.is_found(),
                zones: zones
                    .filter(|(index, zone)| counts(*index) && zone.labels.contains(track.label()))
                    .map(|(_, zone)| zone.name.clone())
                    .collect(),
            }
        })
    }

    fn open_count(&self) -> usize {
        self.rules.iter().map(|rule| rule.state.open_count()).sum()
    }

    fn mean_interval(&self) -> Duration {
        Duration::try_from_secs_f64(self.interval).unwrap_or_default()
    }

    /// After a long pause objects are others.
    fn note_interval(&mut self, now: Instant) {
        self.is_silent = false;
        let Some(last) = self.last_inference.replace(now) else {
            return;
        };
        let gap = now.saturating_duration_since(last);
        if self.interval > 0.0 && gap >= LOST + SILENT_INTERVALS * self.mean_interval() {
            self.forget_objects();
        }
        let gap = gap.as_secs_f64();
        if self.interval == 0.0 {
            self.interval = gap;
        } else {
            // One long pause says little about the interval.
            self.interval += NEW_PART * (gap.min(10.0 * self.interval + 1.0) - self.interval);
        }
    }

    fn forget_objects(&mut self) {
        self.tracker = self.tracker.take().map(Tracker::without_objects);
        self.objects.clear();
    }

    /// Follows the objects, and notices where they are and which lines they cross.
    fn follow(&mut self, result: &InferenceResult, now: Moment, events: &mut Vec<Event>) {
        let Self {
            config,
            rules,
            objects,
            counts,
            tracker: Some(tracker),
            start_id,
            improved,
            new_id,
            ..
        } = self
        else {
            return;
        };
        let tracked = result.object_tracking.as_deref();
        let detections = tracked.or(result.bounding_boxes.as_deref()).unwrap_or_default();
        let have_ids = tracked.is_some() && detections.iter().all(|detection| detection.object_id.is_some());
        tracker.update(detections, have_ids, now.at, now.ts);
        for (track, sightings) in tracker.take_fresh() {
            let place = objects.entry(track.object_id).or_insert_with(|| ObjectPlace {
                zones: vec![false; config.zones.len()],
                lines: vec![LineSide::default(); config.lines.len()],
            });
            for sighting in sightings {
                for (zone, is_inside) in config.zones.iter().zip(&mut place.zones) {
                    *is_inside = contains(&zone.polygon, sighting.place.anchor(zone.anchor));
                }
                for (settings, rule) in config.rules.iter().zip(rules.iter_mut()) {
                    if let (EventCondition::Object { zone, labels, .. }, RuleState::Objects(phases)) =
                        (&settings.condition, &mut rule.state)
                    {
                        let label = track.label();
                        let counts = labels.contains(label) && config.zones[*zone].labels.contains(label);
                        let is_inside = counts && place.zones[*zone];
                        improved.extend(ObjectRule::observe(
                            phases,
                            track,
                            is_inside,
                            (sighting.at, sighting.ts),
                        ));
                    }
                }
                for (line, side) in config.lines.iter().zip(&mut place.lines) {
                    let label = track.label();
                    let Some(is_forward) = side.observe(line, &sighting.place) else {
                        continue;
                    };
                    if !line.labels.contains(label) {
                        continue;
                    }
                    let totals = counts.lines.entry(line.name.clone()).or_default();
                    let Some(direction) = lines::count(totals, &line.directions, is_forward, label) else {
                        continue;
                    };
                    events.push(Event {
                        line: Some(line.name.clone()),
                        direction: Some(direction.clone()),
                        object_id: Some(track.object_id),
                        start_id: Some(*start_id),
                        label: Some(label.to_owned()),
                        value: Some(track.last.value),
                        place: Some((&track.last).into()),
                        totals: Some(totals.clone()),
                        inference_id: now.inference_id,
                        ..Event::new(EventKind::Cross, new_id(), now.ts)
                    });
                }
            }
        }
        objects.retain(|id, _| tracker.follows(*id));
    }

    fn apply_rules(&mut self, result: &InferenceResult, now: Moment, events: &mut Vec<Event>) {
        self.pass_time_of_objects(now, events);
        let config = self.config.clone();
        for (index, settings) in config.rules.iter().enumerate() {
            match &settings.condition {
                EventCondition::Object { .. } => self.start_object_events(index, now, events),
                EventCondition::Count {
                    zone,
                    labels,
                    at_least,
                    hold,
                    clear_after,
                } => {
                    let count = self.count_inside(*zone, |label| labels.contains(label));
                    let rule = WholeSettings {
                        hold: *hold,
                        inferences: 1,
                        clear_after: *clear_after,
                        repeat_after: Duration::ZERO,
                    };
                    let reading = Reading {
                        holds: count >= *at_least,
                        keeps: count >= *at_least,
                        value: None,
                        place: None,
                        count: Some(count),
                    };
                    self.apply_whole_rule(index, &rule, reading, now, events);
                }
                EventCondition::Label {
                    label,
                    at_least,
                    keep_at,
                    inferences,
                    hold,
                    clear_after,
                    repeat_after,
                } => {
                    let score = score(result, label);
                    let value = score.map(|score| score.value);
                    let rule = WholeSettings {
                        hold: *hold,
                        inferences: *inferences,
                        clear_after: *clear_after,
                        repeat_after: *repeat_after,
                    };
                    let reading = Reading {
                        holds: value.is_some_and(|value| value >= *at_least),
                        keeps: value.is_some_and(|value| value >= *keep_at),
                        value,
                        place: score.and_then(|score| score.place).map(EventBox::from),
                        count: None,
                    };
                    self.apply_whole_rule(index, &rule, reading, now, events);
                }
            }
        }
    }

    fn start_object_events(&mut self, index: usize, now: Moment, events: &mut Vec<Event>) {
        let config = self.config.clone();
        let Some(settings) = ObjectSettings::of(&config, index) else {
            return;
        };
        let count = self.count_inside(settings.zone, |label| settings.labels.contains(label));
        let mut room = MAX_OPEN.saturating_sub(self.open_count());
        let (Some(tracker), Some(rule)) = (&self.tracker, self.rules.get_mut(index)) else {
            return;
        };
        let template = Event {
            start_id: Some(self.start_id),
            ..rule.template.clone()
        };
        let RuleState::Objects(phases) = &mut rule.state else {
            return;
        };
        let object_rule = settings.rule(&template, count);
        for track in tracker.objects() {
            if !object_rule.is_ready(phases, track, now) {
                continue;
            }
            if room == 0 {
                self.not_started += 1;
                continue;
            }
            room -= 1;
            add_count(
                self.counts.rules.entry(config.rules[index].name.clone()).or_default(),
                1,
            );
            events.extend(object_rule.start(phases, track, (self.new_id)(), now));
        }
    }

    fn pass_time_of_objects(&mut self, now: Moment, events: &mut Vec<Event>) {
        let config = self.config.clone();
        for index in 0..config.rules.len() {
            let Some(settings) = ObjectSettings::of(&config, index) else {
                continue;
            };
            let count = self.count_inside(settings.zone, |label| settings.labels.contains(label));
            let Rule { template, state } = &mut self.rules[index];
            if let RuleState::Objects(phases) = state {
                let is_followed = |id| self.objects.contains_key(&id);
                settings
                    .rule(template, count)
                    .pass_time(phases, is_followed, now, events);
            }
        }
    }

    fn apply_whole_rule(
        &mut self,
        index: usize,
        settings: &WholeSettings,
        reading: Reading,
        now: Moment,
        events: &mut Vec<Event>,
    ) {
        let may_start = self.open_count() < MAX_OPEN;
        let config = self.config.clone();
        let Rule { template, state } = &mut self.rules[index];
        let RuleState::Whole(phase) = state else { return };
        let rule = WholeRule {
            hold: settings.hold,
            inferences: settings.inferences,
            clear_after: settings.clear_after,
            repeat_after: settings.repeat_after,
            update_every: config.rules[index].update_every,
            template,
        };
        let event = rule.observe(phase, reading, may_start, &mut self.new_id, &mut self.improved, now);
        if event.as_ref().is_some_and(|event| event.event == EventKind::Start) {
            add_count(
                self.counts.rules.entry(config.rules[index].name.clone()).or_default(),
                1,
            );
        }
        events.extend(event);
    }

    /// Objects in the zone whose labels count for the zone and for `counts`.
    fn count_inside(&self, zone: usize, counts: impl Fn(&str) -> bool) -> usize {
        let (Some(tracker), Some(settings)) = (&self.tracker, self.config.zones.get(zone)) else {
            return 0;
        };
        let is_inside = |id: &i64| self.objects.get(id).is_some_and(|place| place.zones[zone]);
        tracker
            .objects()
            .filter(|track| is_inside(&track.object_id))
            .filter(|track| settings.labels.contains(track.label()) && counts(track.label()))
            .count()
    }
}

#[cfg(test)]
mod tests;
