//! Scenes with a known truth.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Value, json};

use super::*;
use crate::config::parse_events;
use crate::events::LineTotals;
use crate::model::BoundingBox;

mod busy;

const SIDE: f64 = 320.0;
/// Milliseconds between two inferences.
const FRAME: u64 = 33;

/// An engine with its own time.
struct Scene {
    engine: EventEngine,
    begin: Instant,
    /// Milliseconds since the beginning.
    time: u64,
    events: Vec<Event>,
}

impl Scene {
    fn new(config: Value) -> Self {
        let mut next = 0_u128;
        let engine = EventEngine::new(move || {
            next += 1;
            Uuid::from_u128(next)
        });
        let mut scene = Self {
            engine,
            begin: Instant::now(),
            time: 0,
            events: Vec::new(),
        };
        let config = parse_events(&config).unwrap_or_else(|problem| panic!("{problem}"));
        scene.engine.set_config(Arc::new(config), scene.now());
        scene.start_model();
        scene
    }

    fn now(&self) -> Moment {
        Moment {
            at: self.begin + Duration::from_millis(self.time),
            ts: 1_000_000 + self.time,
            inference_id: None,
        }
    }

    fn start_model(&mut self) {
        let detector = DetectorInfo {
            width: SIDE as u32,
            height: SIDE as u32,
            has_centroids: false,
        };
        let now = self.now();
        self.events.extend(self.engine.start_model(Some(detector), now));
    }

    /// The next inference, with these boxes.
    fn see(&mut self, boxes: Vec<BoundingBox>) {
        self.infer(&InferenceResult {
            bounding_boxes: Some(boxes),
            ..InferenceResult::default()
        });
    }

    fn infer(&mut self, result: &InferenceResult) {
        self.time += FRAME;
        let now = self.now();
        self.events.extend(self.engine.update(result, now));
    }

    /// Time passes without an inference.
    fn wait(&mut self, millis: u64) {
        self.time += millis;
        let now = self.now();
        self.events.extend(self.engine.pass_time(now));
    }

    fn classify(&mut self, label: &str, value: f64) {
        self.infer(&InferenceResult {
            classification: Some(vec![(label.to_owned(), value)]),
            ..InferenceResult::default()
        });
    }

    /// The kinds of the events so far, with the rule or the direction.
    fn story(&self) -> Vec<String> {
        let name = |event: &Event| event.rule.clone().or(event.direction.clone()).unwrap_or_default();
        self.events
            .iter()
            .map(|event| format!("{:?} {}", event.event, name(event)))
            .collect()
    }

    fn crossings(&self, line: &str, direction: &str) -> u64 {
        let totals = self.engine.counts().lines.get(line);
        totals
            .and_then(|totals| totals.get(direction))
            .map_or(0, |labels| labels.values().sum())
    }
}

/// A box of 24 x 24 pixels around a point in fractions.
fn ball(x: f64, y: f64) -> BoundingBox {
    labelled("ball", x, y)
}

fn labelled(label: &str, x: f64, y: f64) -> BoundingBox {
    BoundingBox {
        label: label.into(),
        value: 0.9,
        x: (x * SIDE - 12.0).round() as i64,
        y: (y * SIDE - 12.0).round() as i64,
        width: 24,
        height: 24,
        object_id: None,
    }
}

fn gate() -> Value {
    json!({"lines": {"gate": {"from": [0.5, 0], "to": [0.5, 1], "directions": {"left_to_right": "in", "right_to_left": "out"}}}})
}

fn bay(rule: Value) -> Value {
    json!({"zones": {"bay": {"polygon": [[0.3, 0.2], [0.7, 0.2], [0.7, 0.8], [0.3, 0.8]]}}, "rules": {"occupied": rule}})
}

/// From 0.1 to 0.9 and back within `period` frames.
fn pendulum(frame: u64, period: u64) -> f64 {
    let phase = (frame % period) as f64 / period as f64;
    0.5 - 0.4 * (phase * std::f64::consts::TAU).cos()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/data/regressions/events.txt"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_crossing_of_three_balls_is_counted_once_in_its_direction(
        noise in prop::collection::vec((-1..=1i64, -1..=1i64), 64), missed in prop::collection::vec(0..600u64, 0..12)
    ) {
        let mut scene = Scene::new(gate());
        // Gaps of one ball that overlap or adjoin would be longer than five frames: such a ball is lost.
        let mut missed = missed;
        missed.sort_unstable_by_key(|from| (from % 3, *from));
        missed.dedup_by(|later, earlier| *later % 3 == *earlier % 3 && *later - *earlier < 10);
        // Each ball swings ten times in 600 frames and more, at its own height and its own speed.
        let balls = [(0.2, 60), (0.5, 75), (0.8, 100)];
        for frame in 0..600 {
            let mut boxes = Vec::new();
            for (number, (y, period)) in balls.iter().enumerate() {
                // Five frames in a row are missed here and there, also on the line.
                let is_missed = missed.iter().any(|from| *from % 3 == number as u64 && (*from..from + 5).contains(&frame));
                if !is_missed || frame < 5 {
                    let mut found = ball(pendulum(frame, *period), *y);
                    let (x, y) = noise[(frame as usize * 3 + number) % 64];
                    (found.x, found.y) = (found.x + x, found.y + y);
                    boxes.push(found);
                }
            }
            scene.see(boxes);
        }
        let swings: u64 = balls.iter().map(|(_, period)| 600 / period).sum();
        prop_assert_eq!((scene.crossings("gate", "in"), scene.crossings("gate", "out")), (swings, swings));
        let ids: BTreeSet<_> = scene.events.iter().map(|event| event.id).collect();
        prop_assert_eq!(ids.len(), scene.events.len());
    }

    #[test]
    fn the_dwell_time_is_exact_to_one_frame(speed in 0.006..0.03f64, offset in 0.0..0.01f64, missed in 3..8u64) {
        let mut scene = Scene::new(bay(json!({"zone": "bay", "enter_after_ms": 100, "leave_after_ms": 400})));
        let (mut first, mut last) = (None, 0);
        for frame in 0..(1.0 / speed) as u64 + 40 {
            let x = offset + frame as f64 * speed;
            // Some frames inside are missed; those at the edges are seen.
            let is_missed = (0.45..0.55).contains(&x) && frame % 8 < missed.min(5);
            scene.see(if x > 1.0 || is_missed { vec![] } else { vec![ball(x, 0.5)] });
            let center = (x * SIDE).round() / SIDE;
            if (0.3..=0.7).contains(&center) {
                first.get_or_insert(scene.time);
                last = scene.time;
            }
        }
        prop_assert_eq!(scene.story(), ["Start occupied", "End occupied"]);
        let end = &scene.events[1];
        let truth = last - first.unwrap();
        prop_assert!(end.dwell_ms.unwrap().abs_diff(truth) <= FRAME, "{:?}, and really {}", end.dwell_ms, truth);
        prop_assert_eq!(end.start_ts, Some(1_000_000 + first.unwrap()));
        prop_assert!(end.ts - 1_000_000 - last >= 400);
    }

    #[test]
    fn every_event_starts_once_and_ends_once_whatever_is_detected(
        frames in prop::collection::vec(
            prop::collection::vec((0..4usize, 0.0..1.0f64, 0.0..1.0f64, 0.0..1.0f64), 0..6), 1..120
        ),
        pause in prop::option::of(0..120usize),
    ) {
        let mut scene = Scene::new(json!({
            "zones": {"bay": {"polygon": [[0, 0], [0.6, 0], [0.6, 0.6], [0, 0.6]]}},
            "lines": {"gate": {"from": [0.5, 0], "to": [0.5, 1]}},
            "rules": {
                "in": {"zone": "bay", "enter_after_ms": 0, "leave_after_ms": 60, "update_every_s": 1},
                "many": {"zone": "bay", "count_at_least": 2, "clear_after_ms": 50},
                "sure": {"label": "label 1", "value_at_least": 0.7, "keep_at": 0.3, "update_every_s": 1},
            },
        }));
        for (number, frame) in frames.iter().enumerate() {
            let boxes = frame.iter().map(|(label, value, x, y)| BoundingBox {
                value: *value,
                ..labelled(&format!("label {label}"), *x, *y)
            });
            scene.see(boxes.collect());
            if pause == Some(number) {
                scene.wait(20_000);
            }
        }
        let now = scene.now();
        let open = scene.engine.state().open.len();
        let before = scene.events.len();
        scene.engine.end_all(EndReason::Stop, now, &mut scene.events);
        prop_assert_eq!(scene.events.len() - before, open, "the state names exactly the open events");
        let mut begun = HashMap::new();
        for event in &scene.events {
            match event.event {
                EventKind::Start => prop_assert!(begun.insert(event.id, true).is_none()),
                EventKind::Update => prop_assert_eq!(begun.get(&event.id), Some(&true)),
                EventKind::End => prop_assert_eq!(begun.insert(event.id, false), Some(true)),
                EventKind::Cross => prop_assert!(event.direction.is_some()),
            }
        }
        prop_assert!(begun.values().all(|is_open| !is_open));
        prop_assert!(scene.engine.state().open.is_empty());
    }
}

#[test]
fn two_balls_that_meet_on_the_line_cross_it_once_each() {
    let mut scene = Scene::new(gate());
    for frame in 0..60 {
        let (one, other) = (0.1 + f64::from(frame) * 0.014, 0.9 - f64::from(frame) * 0.014);
        // The model sees them as one for five frames.
        let boxes = if (27..32).contains(&frame) {
            vec![ball((one + other) / 2.0, 0.5)]
        } else {
            vec![ball(one, 0.48), ball(other, 0.52)]
        };
        scene.see(boxes);
    }
    assert_eq!((scene.crossings("gate", "in"), scene.crossings("gate", "out")), (1, 1));
    assert_eq!(scene.events[0].totals.as_ref().map(LineTotals::len), Some(1));
}

#[test]
fn the_event_of_an_object_tells_where_and_how_long_it_is() {
    let mut scene = Scene::new(bay(json!({
        "zone": "bay", "min_value": 0.6, "enter_after_ms": 300, "leave_after_ms": 1000, "update_every_s": 2
    })));
    for _ in 0..100 {
        scene.see(vec![ball(0.5, 0.5), ball(0.1, 0.5)]);
    }
    scene.see(vec![]);
    for _ in 0..100 {
        scene.see(vec![ball(0.1, 0.5)]);
    }
    assert_eq!(scene.story(), ["Start occupied", "Update occupied", "End occupied"]);
    let [start, update, end] = &scene.events[..] else {
        panic!()
    };
    assert_eq!(
        (start.zone.as_deref(), start.label.as_deref()),
        (Some("bay"), Some("ball"))
    );
    assert_eq!(
        (start.count, start.object_id, start.value),
        (Some(1), Some(1), Some(0.9))
    );
    assert_eq!(start.place.map(|place| (place.x, place.width)), Some((148, 24)));
    assert!(start.start_id.is_some() && start.reason.is_none());
    assert!((300..340).contains(&start.dwell_ms.unwrap()), "{start:?}");
    assert!((2300..2400).contains(&update.dwell_ms.unwrap()), "{update:?}");
    assert_eq!(end.dwell_ms, Some(99 * FRAME));
    assert_eq!((update.id, end.id), (start.id, start.id));
    assert_eq!(scene.engine.counts().rules["occupied"], 1);
    let message = serde_json::to_value(end).unwrap();
    assert_eq!(
        (&message["event"], &message["rule"]),
        (&json!("end"), &json!("occupied"))
    );
    assert!(message.get("line").is_none() && message.get("box").is_some());
}

#[test]
fn a_weak_object_and_one_that_passes_quickly_start_no_event() {
    let mut scene = Scene::new(bay(json!({"zone": "bay", "min_value": 0.6, "enter_after_ms": 500})));
    for frame in 0..200 {
        let weak = BoundingBox {
            value: 0.5 + 0.05 * f64::from(frame % 3),
            ..ball(0.5, 0.3)
        };
        let mut boxes = vec![weak];
        // Inside for ten frames.
        if frame < 40 {
            boxes.push(ball(0.04 * f64::from(frame), 0.6));
        }
        scene.see(boxes);
    }
    assert_eq!(scene.story(), [""; 0]);
}

#[test]
fn an_object_on_the_edge_of_a_zone_does_not_start_event_after_event() {
    let mut scene = Scene::new(bay(json!({"zone": "bay", "enter_after_ms": 0, "leave_after_ms": 500})));
    for frame in 0..300 {
        scene.see(vec![ball(0.3 + if frame % 4 < 2 { 0.01 } else { -0.01 }, 0.5)]);
    }
    assert_eq!(scene.story(), ["Start occupied"]);
}

#[test]
fn five_missed_frames_neither_end_an_event_nor_count_twice() {
    let mut scene = Scene::new(bay(json!({"zone": "bay", "enter_after_ms": 0, "leave_after_ms": 0})));
    for frame in 0..200 {
        scene.see(if frame % 20 < 5 && frame > 20 {
            vec![]
        } else {
            vec![ball(0.5, 0.5)]
        });
    }
    assert_eq!(scene.story(), ["Start occupied"]);
    assert_eq!(scene.engine.occupancy().collect::<Vec<_>>(), [("bay", 1)]);
}

#[test]
fn enough_objects_for_long_enough_are_one_event() {
    let mut scene = Scene::new(bay(
        json!({"zone": "bay", "count_at_least": 3, "for_ms": 1000, "clear_after_ms": 500}),
    ));
    let crowd = |count: u32| {
        (0..count)
            .map(|n| ball(0.35 + 0.1 * f64::from(n), 0.5))
            .collect::<Vec<_>>()
    };
    for (count, frames) in [(3, 25), (2, 10), (3, 60), (2, 10), (3, 10), (1, 40)] {
        for _ in 0..frames {
            scene.see(crowd(count));
        }
    }
    assert_eq!(scene.story(), ["Start occupied", "End occupied"]);
    assert_eq!((scene.events[0].count, scene.events[0].object_id), (Some(3), None));
}

#[test]
fn a_label_needs_inferences_in_a_row_clears_late_and_repeats_after_its_time() {
    let rule = json!({
        "label": "scratch", "value_at_least": 0.8, "keep_at": 0.5, "for_inferences": 3, "clear_after_ms": 300,
        "repeat_after_s": 10,
    });
    let mut scene = Scene::new(json!({"rules": {"defect": rule}}));
    let show = |scene: &mut Scene, value: f64, frames: u32| (0..frames).for_each(|_| scene.classify("scratch", value));
    show(&mut scene, 0.9, 2);
    show(&mut scene, 0.7, 1);
    show(&mut scene, 0.9, 2);
    assert_eq!(scene.story(), [""; 0]);
    show(&mut scene, 0.95, 1);
    assert_eq!(scene.story(), ["Start defect"]);
    show(&mut scene, 0.6, 30);
    show(&mut scene, 0.1, 8);
    assert_eq!(scene.story(), ["Start defect"]);
    show(&mut scene, 0.1, 2);
    assert_eq!(scene.story(), ["Start defect", "End defect"]);
    assert_eq!(
        (scene.events[1].value, scene.events[1].label.as_deref()),
        (Some(0.95), Some("scratch"))
    );
    // It stays away until ten seconds after the start.
    let started = scene.events[0].ts;
    show(&mut scene, 0.9, 400);
    assert_eq!(scene.story().len(), 3);
    assert!((10_000..10_000 + FRAME).contains(&(scene.events[2].ts - started)));
}

#[test]
fn an_anomaly_score_is_a_label() {
    let mut scene = Scene::new(json!({"rules": {"odd": {"label": "anomaly", "value_at_least": 3.5, "for_ms": 100}}}));
    for score in [1.0, 4.0, 4.0, 4.0, 5.5, 5.0, 0.0] {
        scene.infer(&InferenceResult {
            anomaly: Some(score),
            ..InferenceResult::default()
        });
    }
    assert_eq!(scene.story(), ["Start odd", "End odd"]);
    assert_eq!(scene.events[1].value, Some(5.5));
}

#[test]
fn a_start_of_the_model_ends_events_of_objects_and_keeps_totals_and_ids_apart() {
    let mut config = bay(json!({"zone": "bay", "enter_after_ms": 0}));
    config["lines"] = gate()["lines"].clone();
    config["rules"]["loud"] = json!({"label": "ball", "value_at_least": 0.5});
    let mut scene = Scene::new(config);
    let pass = |scene: &mut Scene| (0..40).for_each(|frame| scene.see(vec![ball(0.1 + 0.014 * f64::from(frame), 0.5)]));
    pass(&mut scene);
    let first = scene
        .events
        .iter()
        .find(|event| event.event == EventKind::Cross)
        .unwrap()
        .clone();
    scene.start_model();
    let end = scene.events.last().unwrap();
    assert_eq!((end.event, end.reason), (EventKind::End, Some(EndReason::Restart)));
    assert_eq!(end.rule.as_deref(), Some("occupied"));
    pass(&mut scene);
    assert_eq!(scene.crossings("gate", "in"), 2);
    let crossings: Vec<_> = scene
        .events
        .iter()
        .filter(|event| event.event == EventKind::Cross)
        .collect();
    assert_eq!(crossings.len(), 2);
    assert_ne!(crossings[1].start_id, first.start_id);
    assert_ne!(crossings[1].object_id, first.object_id);
    // The label is there all the time.
    assert_eq!(scene.story().iter().filter(|event| event.ends_with("loud")).count(), 1);
}

#[test]
fn events_end_when_there_are_no_inferences_any_more() {
    let mut scene = Scene::new(bay(
        json!({"zone": "bay", "enter_after_ms": 0, "leave_after_ms": 60_000}),
    ));
    for _ in 0..30 {
        scene.see(vec![ball(0.5, 0.5)]);
    }
    scene.wait(9_000);
    assert_eq!(scene.story(), ["Start occupied"]);
    scene.wait(2_000);
    scene.wait(2_000);
    assert_eq!(scene.story(), ["Start occupied", "End occupied"]);
    assert_eq!(scene.events[1].reason, Some(EndReason::NoInferences));
    assert_eq!(scene.engine.occupancy().collect::<Vec<_>>(), [("bay", 0)]);
}

#[test]
fn an_object_that_is_lost_leaves_although_no_inference_comes() {
    let mut scene = Scene::new(bay(json!({"zone": "bay", "enter_after_ms": 0, "leave_after_ms": 1000})));
    for _ in 0..30 {
        scene.see(vec![ball(0.5, 0.5)]);
    }
    for _ in 0..20 {
        scene.see(vec![]);
    }
    assert_eq!(scene.story(), ["Start occupied"]);
    scene.wait(500);
    assert_eq!(scene.story(), ["Start occupied", "End occupied"]);
}

#[test]
fn after_a_pause_of_the_camera_nothing_is_counted_that_was_not_seen() {
    let mut scene = Scene::new(gate());
    for _ in 0..30 {
        scene.see(vec![ball(0.3, 0.5)]);
    }
    scene.time += 5_000;
    for _ in 0..30 {
        scene.see(vec![ball(0.55, 0.5)]);
    }
    assert_eq!(scene.story(), [""; 0]);
}

#[test]
fn only_objects_with_the_labels_count_and_the_anchor_decides_where_they_are() {
    let mut scene = Scene::new(json!({
        "zones": {"bay": {"polygon": [[0.3, 0.5], [0.7, 0.5], [0.7, 1], [0.3, 1]], "labels": ["person", "car"], "anchor": "bottom"}},
        "lines": {"gate": {"from": [0, 0.7], "to": [1, 0.7], "labels": ["car"], "anchor": "top"}},
        "rules": {"people": {"zone": "bay", "labels": ["person"], "enter_after_ms": 0}},
    }));
    for frame in 0..60 {
        let y = 0.1 + 0.015 * f64::from(frame);
        // Its centre is above the zone, its lower edge is inside.
        scene.see(vec![
            labelled("person", 0.4, 0.47),
            labelled("car", 0.6, y),
            labelled("dog", 0.5, y),
        ]);
    }
    assert_eq!(scene.story(), ["Start people", "Cross top_to_bottom"]);
    assert_eq!(scene.events[1].label.as_deref(), Some("car"));
    assert_eq!(scene.engine.occupancy().collect::<Vec<_>>(), [("bay", 2)]);
}

#[test]
fn another_configuration_ends_events_and_keeps_the_numbers_of_what_stays() {
    let mut config = bay(json!({"zone": "bay", "enter_after_ms": 0}));
    config["lines"] = gate()["lines"].clone();
    let mut scene = Scene::new(config.clone());
    for frame in 0..40 {
        scene.see(vec![ball(0.1 + 0.014 * f64::from(frame), 0.5)]);
    }
    config.as_object_mut().unwrap().remove("rules");
    let (parsed, now) = (parse_events(&config).unwrap(), scene.now());
    let ended = scene.engine.set_config(Arc::new(parsed), now);
    assert_eq!((ended.len(), ended[0].reason), (1, Some(EndReason::Configuration)));
    assert_eq!(
        (scene.crossings("gate", "in"), scene.engine.counts().rules.len()),
        (1, 0)
    );
}

#[test]
fn flapping_detections_leave_nothing_behind() {
    let mut scene = Scene::new(bay(json!({"zone": "bay", "enter_after_ms": 0, "leave_after_ms": 100})));
    let mut seed = 1_u32;
    let mut random = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(seed >> 8) / f64::from(1 << 24)
    };
    for _ in 0..5_000 {
        let boxes = (0..(random() * 12.0) as u32)
            .map(|_| ball(random(), random()))
            .collect();
        scene.see(boxes);
        assert!(scene.engine.objects.len() <= 128 && scene.engine.open_count() <= MAX_OPEN);
        scene.events.clear();
    }
    for _ in 0..60 {
        scene.see(vec![]);
    }
    assert!(scene.engine.objects.is_empty() && scene.engine.open_count() == 0);
    assert!(matches!(&scene.engine.rules[0].state, RuleState::Objects(phases) if phases.is_empty()));
}

/// A sixth of the hour in the documentation.
#[test]
fn ten_busy_minutes_are_forty_events() {
    let mut scene = Scene::new(json!({
        "zones": {"bay": {"polygon": [[0.1, 0.5], [0.9, 0.5], [0.9, 1], [0.1, 1]]}},
        "lines": {"gate": {"from": [0.5, 0], "to": [0.5, 1]}},
        "rules": {"occupied": {"zone": "bay", "enter_after_ms": 500, "leave_after_ms": 2000, "update_every_s": 60}},
    }));
    let mut inferences = 0;
    for frame in 0..18_000_u64 {
        let mut boxes = Vec::new();
        let (car, person) = (frame % 900, frame % 1800);
        if car < 120 {
            boxes.push(ball(car as f64 / 120.0, 0.3));
        }
        if person < 1200 {
            boxes.push(ball(0.5 + 0.2 * pendulum(person, 300), 0.7));
        }
        inferences += u32::from(!boxes.is_empty());
        scene.see(boxes);
    }
    assert_eq!((inferences, scene.events.len()), (12_000, 40));
    assert_eq!(scene.crossings("gate", "left_to_right"), 20);
}

/// Run with `--release`: `cargo test --release -- --ignored cost_of`.
#[test]
#[ignore = "a measurement"]
fn cost_of_twenty_objects_in_ten_zones() {
    let zones: serde_json::Map<_, _> = (0..10)
        .map(|n| f64::from(n) / 10.0)
        .map(|left| json!({"polygon": [[left, 0], [left + 0.1, 0], [left + 0.1, 1], [left, 1]]}))
        .enumerate()
        .map(|(n, zone)| (format!("z{n}"), zone))
        .collect();
    let rules: serde_json::Map<_, _> = (0..10)
        .map(|n| (format!("r{n}"), json!({"zone": format!("z{n}")})))
        .collect();
    let mut scene = Scene::new(json!({"zones": zones, "rules": rules}));
    let frames = 30 * 60;
    let begun = Instant::now();
    for frame in 0..frames {
        let boxes = (0..20)
            .map(|n| ball(pendulum(frame + n * 7, 200 + n), (n as f64 + 0.5) / 20.0))
            .collect();
        scene.see(boxes);
    }
    let per_second = begun.elapsed().as_secs_f64() / (frames as f64 / 30.0);
    println!("{per_second:.5} CPU seconds a second, {} events", scene.events.len());
    assert!(per_second < 0.02);
}
