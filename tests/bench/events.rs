//! What events cost beside the rest of the decision about an inference: 20 objects in 10 zones, with 4 lines and 20 rules.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ei_greengrass::config::{Criteria, FilterConfig, parse_events};
use ei_greengrass::events::{DetectorInfo, EventEngine, Moment};
use ei_greengrass::model::{BoundingBox, InferenceResult};
use ei_greengrass::report::{Report, ReportSettings};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use uuid::Uuid;

use super::median;
use super::reach::Reach;

const OBJECTS: u32 = 20;
const SIDE: u32 = 320;
const RATE: u32 = 30;
/// Seconds of inferences in one round.
const SECONDS: u32 = 60;
const ROUNDS: usize = 5;

/// Prints the table.
pub fn print(reach: &mut Reach) {
    println!("\nEvents: {OBJECTS} objects in 10 zones, 4 lines and 20 rules, {RATE} inferences a second\n");
    println!("| what | CPU s a second | without | more |");
    println!("| --- | --- | --- | --- |");
    let rounds: Vec<_> = (0..ROUNDS).map(|_| (measure(false), measure(true))).collect();
    let of = |figure: &dyn Fn(&(f64, f64)) -> f64| median(rounds.iter().map(figure).collect());
    let more = of(&|(without, with)| with - without);
    println!(
        "| events | {:.5} | {:.5} | {more:.5} |",
        of(&|(_, with)| *with),
        of(&|(without, _)| *without)
    );
    reach.at_most("events, more CPU s a second", more, 0.02);
}

/// CPU seconds for each second of inferences.
fn measure(with_events: bool) -> f64 {
    let filter = FilterConfig {
        enabled: true,
        given: 0.7,
        scores_are_probabilities: Some(true),
        criteria: Criteria::default(),
    };
    let settings = ReportSettings {
        filter,
        publish_every: 5,
    };
    let mut report = Report::new(settings, Arc::default());
    let begin = Instant::now();
    let moment = |frame: u32| Moment {
        at: begin + Duration::from_secs(1) * frame / RATE,
        ts: u64::from(frame) * 1000 / u64::from(RATE),
        inference_id: None,
    };
    let mut engine = with_events.then(|| {
        let mut engine = EventEngine::new(Uuid::new_v4);
        let config = parse_events(&scene()).expect("a good configuration");
        engine.set_config(Arc::new(config), moment(0));
        let detector = DetectorInfo {
            width: SIDE,
            height: SIDE,
            has_centroids: false,
        };
        engine.start_model(Some(detector), moment(0));
        engine
    });
    let results: Vec<_> = (1..=SECONDS * RATE).map(result).collect();
    let mut events = 0;
    let before = clock_gettime(ClockId::ThreadCPUTime);
    for (frame, result) in (1..).zip(&results) {
        report.accept(result, 1.0);
        if let Some(engine) = &mut engine {
            events += engine.update(result, moment(frame)).len();
        }
    }
    let spent = clock_gettime(ClockId::ThreadCPUTime) - before;
    assert!(events > 0 || !with_events, "objects that move cause events");
    (spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9) / f64::from(SECONDS)
}

fn scene() -> Value {
    let tenth = |number: u32| f64::from(number) / 10.0;
    let zones = (0..10).map(|number| {
        let (left, right) = (tenth(number), tenth(number + 1));
        let polygon = json!([[left, 0], [right, 0], [right, 1], [left, 1]]);
        (format!("zone{number}"), json!({"polygon": polygon}))
    });
    let lines = (1..=4).map(|number| {
        let x = tenth(2 * number);
        (format!("line{number}"), json!({"from": [x, 0], "to": [x, 1]}))
    });
    let rules = (0..10).flat_map(|number| {
        let zone = format!("zone{number}");
        [
            (format!("inside{number}"), json!({"zone": &zone, "enter_after_ms": 300})),
            (format!("full{number}"), json!({"zone": &zone, "count_at_least": 5})),
        ]
    });
    json!({
        "zones": zones.collect::<serde_json::Map<_, _>>(),
        "lines": lines.collect::<serde_json::Map<_, _>>(),
        "rules": rules.collect::<serde_json::Map<_, _>>(),
    })
}

/// Objects that swing from left to right and back, each in its row and with its own speed.
fn result(frame: u32) -> InferenceResult {
    let object = |number: u32| {
        let phase = f64::from(frame + 7 * number) / f64::from(200 + number);
        let x = 0.5 - 0.4 * (phase * std::f64::consts::TAU).cos();
        BoundingBox {
            label: "person".into(),
            value: 0.9,
            x: (x * f64::from(SIDE)) as i64 - 12,
            y: i64::from(SIDE * number / OBJECTS),
            width: 24,
            height: 14,
            object_id: None,
        }
    };
    InferenceResult {
        bounding_boxes: Some((0..OBJECTS).map(object).collect()),
        ..InferenceResult::default()
    }
}
