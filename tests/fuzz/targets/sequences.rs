//! Sequences of calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ei_greengrass::config::parse_events;
use ei_greengrass::events::{DetectorInfo, EndReason, EventEngine, Moment};
use ei_greengrass::fuzzing::util::Window;
use ei_greengrass::model::{BoundingBox, InferenceResult};
use serde_json::json;
use uuid::Uuid;

use crate::input::Input;

/// Amounts within an hour, with those of an earlier process.
pub fn sliding_window(data: &[u8]) {
    let mut input = Input(data);
    let mut window = Window::new(u32::from(input.byte()));
    let mut now = Duration::from_secs(2 * 24 * 3600);
    while !input.is_empty() {
        let before = window.sum(now);
        match input.byte() % 4 {
            0 => now += Duration::from_secs(input.amount() % 100_000),
            1 => {
                window.add(now, input.amount());
                assert!(window.sum(now) >= before, "an amount counts");
            }
            2 => window.take_back(input.amount()),
            _ => {
                let elapsed = Duration::from_millis(input.amount());
                let ages: Vec<_> = (0..input.byte() % 4)
                    .map(|_| (input.amount().wrapping_mul(60_000), input.amount()))
                    .collect();
                window.restore(now, elapsed, &ages);
                assert!(window.sum(now) >= before, "what an earlier process added counts");
            }
        }
        let sum = window
            .ages(now)
            .iter()
            .fold(0, |sum: u64, (_, amount)| sum.saturating_add(*amount));
        assert_eq!(window.sum(now), sum, "the sum is that of the entries");
    }
}

/// Zones, lines and rules with any boxes at any time.
pub fn event_engine(data: &[u8]) {
    let config = parse_events(&json!({
        "zones": {"door": {"polygon": [[0.1, 0.1], [0.6, 0.1], [0.5, 0.9]]}},
        "lines": {"gate": {"from": [0.5, 0.0], "to": [0.5, 1.0]}},
        "rules": {
            "stay": {"on": "dwell", "zone": "door", "min_seconds": 2},
            "enter": {"on": "enter", "zone": "door"},
            "many": {"on": "count", "zone": "door", "min": 2},
            "odd": {"on": "label", "label": "a"}
        }
    }));
    let mut input = Input(data);
    let mut ids = 0;
    let mut engine = EventEngine::new(move || {
        ids += 1;
        Uuid::from_u128(ids)
    });
    let mut now = Moment {
        at: Instant::now(),
        ts: 1_700_000_000_000,
        inference_id: None,
    };
    engine.set_config(Arc::new(config.unwrap_or_default()), now);
    let detector = DetectorInfo {
        width: 320,
        height: 240,
        has_centroids: input.byte() % 2 == 1,
    };
    engine.start_model(Some(detector), now);
    let mut open = 0_usize;
    while !input.is_empty() {
        let events = match input.byte() {
            0 => {
                let mut events = Vec::new();
                engine.end_all(EndReason::Restart, now, &mut events);
                events
            }
            1 => {
                now.at += Duration::from_secs(input.byte().into());
                engine.pass_time(now)
            }
            2 => engine.start_model(Some(detector), now),
            boxes => {
                now.at += Duration::from_millis(u64::from(input.byte()) * 4);
                now.ts = now.ts.saturating_add(input.amount());
                let boxes = (0..boxes % 6).map(|_| any_box(&mut input)).collect();
                let result = InferenceResult {
                    bounding_boxes: Some(boxes),
                    ..InferenceResult::default()
                };
                engine.update(&result, now)
            }
        };
        for event in events {
            serde_json::to_string(&event).expect("an event is JSON");
        }
        open = open.max(engine.open_events().map(|(_, number)| number).sum());
        assert!(engine.objects().count() <= 2000, "the objects are bounded");
        engine.occupancy().for_each(drop);
        engine.improved();
    }
    assert!(open <= 10_000, "open events are bounded");
    serde_json::to_string(&engine.state()).expect("the state is JSON");
}

fn any_box(input: &mut Input<'_>) -> BoundingBox {
    let mut edge = || match input.byte() {
        255 => i64::from(input.number() as i32),
        near => i64::from(near) * 2 - 100,
    };
    BoundingBox {
        x: edge(),
        y: edge(),
        width: edge(),
        height: edge(),
        label: ["a", "b", ""][usize::from(input.byte()) % 3].to_owned(),
        value: f64::from(input.byte()) / 200.0,
        object_id: None,
    }
}
