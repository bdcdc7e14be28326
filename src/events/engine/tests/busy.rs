//! Hours of inferences in compressed time: the number of messages, and the memory.

use super::*;
use crate::config::{Criteria, FilterConfig};
use crate::report::{Decision, Report, ReportSettings};

/// Numbers from 0 to 1 that are the same in each run.
fn random_numbers() -> impl FnMut() -> f64 {
    let mut seed = 1_u32;
    move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(seed >> 8) / f64::from(1 << 24)
    }
}

/// The decision about each inference as the component makes it, with the default threshold.
fn report(publish_every: u32) -> Report {
    let filter = FilterConfig {
        enabled: true,
        given: 0.7,
        scores_are_probabilities: Some(true),
        criteria: Criteria::default(),
    };
    Report::new(ReportSettings { filter, publish_every }, Arc::default())
}

/// A car passes every 30 s and a person stays 40 s in each minute. In every fiftieth inference and the four after it the model finds
/// neither, and every 37th has a false detection.
fn busy_boxes(frame: u64, random: &mut impl FnMut() -> f64) -> Vec<BoundingBox> {
    let mut boxes = Vec::new();
    let (car, person) = (frame % 900, frame % 1800);
    if frame % 50 >= 5 {
        if car < 120 {
            boxes.push(ball(car as f64 / 120.0, 0.3));
        }
        if person < 1200 {
            boxes.push(BoundingBox {
                value: 0.6 + 0.35 * random(),
                ..ball(0.5 + 0.2 * pendulum(person, 300), 0.7)
            });
        }
    }
    if frame.is_multiple_of(37) {
        boxes.push(ball(random(), if frame.is_multiple_of(2) { 0.03 } else { 0.95 }));
    }
    boxes
}

/// The figures of the README. Print them with `cargo test --lib busy_hour -- --nocapture`.
#[test]
fn a_busy_hour_is_tens_of_thousands_of_inference_messages_and_240_events() {
    let mut scene = Scene::new(json!({
        "zones": {"bay": {"polygon": [[0.1, 0.5], [0.9, 0.5], [0.9, 1], [0.1, 1]]}},
        "lines": {"gate": {"from": [0.5, 0], "to": [0.5, 1]}},
        "rules": {"occupied": {"zone": "bay", "enter_after_ms": 500, "leave_after_ms": 2000, "update_every_s": 60}},
    }));
    let (mut random, mut all, mut fifth) = (random_numbers(), report(1), report(5));
    let (mut passed, mut published) = (0, 0);
    for frame in 0..108_000 {
        let result = InferenceResult {
            bounding_boxes: Some(busy_boxes(frame, &mut random)),
            ..InferenceResult::default()
        };
        passed += u64::from(matches!(all.accept(&result, 1.0), Decision::Publish(_)));
        published += u64::from(matches!(fifth.accept(&result, 1.0), Decision::Publish(_)));
        scene.infer(&result);
    }
    let events = scene.events.len() as u64;
    println!(
        "Messages a day: {} inferences pass the threshold, {} with iotcore_backoff 5, {} events",
        24 * passed,
        24 * published,
        24 * events
    );
    assert!((40_000..80_000).contains(&passed) && published == passed / 5);
    let of = |kind| scene.events.iter().filter(move |event| event.event == kind);
    let counts = [EventKind::Cross, EventKind::Start, EventKind::Update, EventKind::End].map(|kind| of(kind).count());
    assert_eq!(counts, [120, 60, 0, 60]);
    assert_eq!(scene.crossings("gate", "left_to_right"), 120);
    for end in of(EventKind::End) {
        // 1200 inferences; the first and the last five may be missed ones.
        let dwell = end.dwell_ms.unwrap();
        assert!((1_189 * FRAME..=1_200 * FRAME).contains(&dwell), "{dwell} ms");
    }
}

#[test]
fn hours_of_flapping_detections_with_changing_labels_do_not_grow_memory() {
    let mut config = bay(json!({"zone": "bay", "enter_after_ms": 0, "leave_after_ms": 100}));
    config["lines"] = gate()["lines"].clone();
    let mut scene = Scene::new(config);
    let mut random = random_numbers();
    let mut sizes = Vec::new();
    for _ in 0..2 {
        let mut most = [0; 5];
        // An hour at five inferences a second.
        for _ in 0..18_000 {
            let boxes = (0..(random() * 12.0) as u32)
                .map(|_| labelled(&format!("label{}", (random() * 500.0) as u32), random(), random()))
                .collect();
            scene.wait(200 - FRAME);
            scene.see(boxes);
            scene.events.clear();
            let tracker = scene.engine.tracker.as_ref().unwrap();
            let labels = scene.engine.counts.lines.values().flat_map(BTreeMap::values);
            let now = [
                scene.engine.objects.len(),
                scene.engine.open_count(),
                scene.engine.improved.capacity(),
                tracker.capacity(),
                labels.map(BTreeMap::len).sum(),
            ];
            most = std::array::from_fn(|index| most[index].max(now[index]));
        }
        sizes.push(most);
    }
    for most in sizes {
        let bounds = [128, MAX_OPEN, 2 * MAX_OPEN, 256, 2 * 65];
        assert!(most.iter().zip(bounds).all(|(most, bound)| *most <= bound), "{most:?}");
    }
}
