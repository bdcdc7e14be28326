use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::util::geometry::Point;

fn example() -> Value {
    json!({
        "zones": {"bay": {"polygon": [[0.1, 0.5], [0.9, 0.5], [0.9, 1], [0.1, 1]], "labels": ["person"], "anchor": "bottom"}},
        "lines": {"gate": {"from": [0.5, 0], "to": [0.5, 1], "labels": ["car", "truck"],
            "directions": {"left_to_right": "in", "right_to_left": "out"}}},
        "rules": {
            "occupied": {"zone": "bay", "min_value": 0.6, "enter_after_ms": 500, "leave_after_ms": 2000, "update_every_s": 60},
            "queue": {"zone": "bay", "count_at_least": 5, "for_ms": 10000},
            "defect": {"label": "scratch", "value_at_least": 0.8, "for_inferences": 3, "clear_after_ms": 5000, "repeat_after_s": 300},
        },
    })
}

/// The example with one place replaced: `/zones/bay/anchor`.
fn with(pointer: &str, value: Value) -> Value {
    let mut config = example();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    config.pointer_mut(parent).unwrap()[name] = value;
    config
}

fn problem(value: &Value) -> String {
    parse_events(value).expect_err(&value.to_string())
}

#[test]
fn the_documented_example_is_read() {
    let config = parse_events(&example()).unwrap();
    assert_eq!(config.zones[0].anchor, Anchor::Bottom);
    assert!(config.zones[0].labels.contains("person") && !config.zones[0].labels.contains("car"));
    let directions = &config.lines[0].directions;
    assert_eq!(
        (directions.forward.as_deref(), directions.backward.as_deref()),
        (Some("in"), Some("out"))
    );
    assert_eq!(config.rules[0].update_every, Some(Duration::from_secs(60)));
    assert_eq!(config.rules[1].condition.zone(), Some(0));
    assert!(matches!(
        &config.rules[2].condition,
        EventCondition::Label { label, inferences: 3, .. } if &**label == "scratch"
    ));
}

#[test]
fn the_text_of_the_object_means_the_same_and_what_is_shown_is_read_again() {
    let config = parse_events(&example()).unwrap();
    assert_eq!(parse_events(&json!(example().to_string())), Ok(config.clone()));
    assert_eq!(parse_events(&config.to_json()), Ok(config.clone()));
    assert_eq!(parse_events(&json!(config.to_string())), Ok(config));
    let lite = with("/rules/occupied/enter_after_ms", json!("500.000000"));
    assert_eq!(
        parse_events(&lite),
        parse_events(&example()),
        "numbers as Greengrass Lite writes them"
    );
}

#[test]
fn a_polygon_may_be_closed_and_points_may_be_repeated() {
    let closed = with("/zones/bay/polygon", json!([[0, 0], [1, 0], [1, 0], [1, 1], [0, 0]]));
    assert_eq!(parse_events(&closed).unwrap().zones[0].polygon.len(), 3);
}

#[test]
fn the_picture_decides_what_left_and_top_are_in_whichever_order_a_line_is_drawn() {
    let progress = |from: Value, to: Value, x: f64, y: f64| {
        let config = parse_events(&json!({"lines": {"l": {"from": from, "to": to}}})).unwrap();
        (
            config.lines[0].directions.axis,
            config.lines[0].progress(Point { x, y }),
        )
    };
    for (from, to) in [(json!([0.5, 0]), json!([0.5, 1])), (json!([0.5, 1]), json!([0.5, 0]))] {
        let (axis, left) = progress(from.clone(), to.clone(), 0.2, 0.5);
        assert!(axis == MovementAxis::Sideways && left < 0.0, "{left}");
        assert!(progress(from, to, 0.8, 0.5).1 > 0.0);
    }
    for (from, to) in [(json!([0, 0.5]), json!([1, 0.5])), (json!([1, 0.5]), json!([0, 0.5]))] {
        let (axis, above) = progress(from.clone(), to.clone(), 0.5, 0.2);
        assert!(axis == MovementAxis::UpAndDown && above < 0.0, "{above}");
        assert!(progress(from, to, 0.5, 0.8).1 > 0.0);
    }
}

#[test]
fn only_the_named_direction_of_a_line_counts() {
    let config = parse_events(&with("/lines/gate/directions", json!({"right_to_left": "out"}))).unwrap();
    assert_eq!(config.lines[0].directions.forward, None);
}

#[test]
fn each_mistake_is_named_with_its_place_its_value_and_what_is_accepted() {
    for (pointer, value, parts) in [
        (
            "/zones/bay/anchor",
            json!("botom"),
            &["zones.bay.anchor", "botom", "did you mean `bottom`?"][..],
        ),
        ("/zones/bay/anchor", json!(5), &["zones.bay.anchor", "5", "center"]),
        ("/zones/bay/polygn", json!(1), &["polygn", "did you mean `polygon`?"]),
        ("/zones/bay/labels", json!([]), &["zones.bay.labels", "every label"]),
        ("/zones/bay/labels", json!([7]), &["zones.bay.labels", "7"]),
        (
            "/zones/bay/polygon",
            json!([[0, 0], [1, 1]]),
            &["2 different points", "needs 3"],
        ),
        ("/zones/bay/polygon", json!([[0, 0], [0.5, 0.5], [1, 1]]), &["no area"]),
        (
            "/zones/bay/polygon",
            json!([[0, 0], [0.001, 0], [0, 0.001]]),
            &["no area"],
        ),
        (
            "/zones/bay/polygon",
            json!([[0, 0], [1, 1], [1, 0], [0, 1]]),
            &["crosses", "after point 0"],
        ),
        (
            "/zones/bay/polygon",
            json!([[0, 0], [320, 0], [0, 1]]),
            &["polygon[1]", "320", "not pixels"],
        ),
        (
            "/zones/bay/polygon",
            json!([[0, 0], [-0.1, 0], [0, 1]]),
            &["polygon[1]", "from 0 to 1"],
        ),
        (
            "/zones/bay/polygon",
            json!([[0, 0], ["NaN", 0], [0, 1]]),
            &["polygon[1]", "NaN"],
        ),
        (
            "/zones/bay/polygon",
            json!([[0, 0], [1, 0, 1], [0, 1]]),
            &["polygon[1]", "two numbers"],
        ),
        ("/zones/bay/polygon", json!("square"), &["square", "3 to 64 points"]),
        ("/zones/two words", json!({}), &["two words", "letters"]),
        ("/zones/bay", json!([]), &["zones.bay", "[]", "object"]),
        ("/lines/gate/to", json!([0.5, 0]), &["lines.gate", "length"]),
        ("/lines/gate/to", json!(null), &["lines.gate.to", "missing"]),
        (
            "/lines/gate/directions",
            json!({"in": "left"}),
            &["directions", "left_to_right"],
        ),
        (
            "/lines/gate/directions",
            json!({"left_to_rigth": "in"}),
            &["did you mean `left_to_right`?"],
        ),
        (
            "/lines/gate/directions",
            json!({"top_to_bottom": "in"}),
            &["vertical", "left_to_right"],
        ),
        (
            "/lines/gate/directions",
            json!({"left_to_right": "in and out"}),
            &["in and out", "letters"],
        ),
        (
            "/rules/occupied/zone",
            json!("bey"),
            &["rules.occupied.zone", "did you mean `bay`?"],
        ),
        (
            "/rules/occupied/min_value",
            json!(60),
            &["rules.occupied.min_value", "60", "0 to 1"],
        ),
        (
            "/rules/occupied/enter_after_ms",
            json!(-1),
            &["enter_after_ms", "-1", "86400000"],
        ),
        (
            "/rules/occupied/enter_after",
            json!(5),
            &["did you mean `enter_after_ms`?"],
        ),
        ("/rules/queue/count_at_least", json!(0), &["count_at_least", "1 to 128"]),
        ("/rules/defect/value_at_least", json!("inf"), &["value_at_least", "inf"]),
        (
            "/rules/defect/value_at_least",
            json!(null),
            &["value_at_least", "missing"],
        ),
        ("/rules/defect/keep_at", json!(0.9), &["keep_at", "not above"]),
        ("/rules/defect/label", json!(3), &["rules.defect.label", "3"]),
        ("/rules/cars", json!({"line": "gate"}), &["rules.cars", "needs no rule"]),
        (
            "/rules/none",
            json!({"labl": "x"}),
            &["rules.none", "did you mean `label`?"],
        ),
        ("/zone", json!({}), &["`zone`", "did you mean `zones`?"]),
    ] {
        let text = problem(&with(pointer, value));
        for part in parts {
            assert!(text.contains(part), "`{part}` in {text}");
        }
    }
}

#[test]
fn several_mistakes_are_named_at_once_and_many_are_counted() {
    let mut config = with("/zones/bay/anchor", json!("x"));
    config["rules"]["queue"]["zone"] = json!("nowhere");
    let text = problem(&config);
    assert!(text.contains("anchor") && text.contains("nowhere"), "{text}");
    let rules: serde_json::Map<_, _> = (0..20).map(|n| (format!("r{n}"), json!({"label": "x"}))).collect();
    assert!(problem(&json!({"rules": rules})).ends_with("; and 15 more"));
}

#[test]
fn sizes_are_bounded() {
    let many = |name: &str, count: usize, value: Value| {
        let entries: serde_json::Map<_, _> = (0..count).map(|n| (format!("n{n}"), value.clone())).collect();
        json!({ name: entries })
    };
    let zone = json!({"polygon": [[0, 0], [1, 0], [0, 1]]});
    assert!(parse_events(&many("zones", 32, zone.clone())).is_ok());
    assert!(problem(&many("zones", 33, zone)).contains("up to 32"));
    assert!(problem(&many("lines", 33, json!({"from": [0, 0], "to": [1, 0]}))).contains("up to 32"));
    assert!(problem(&many("rules", 65, json!({"label": "a", "value_at_least": 1}))).contains("up to 64"));
    let points: Vec<_> = (0..65)
        .map(|n| f64::from(n) / 65.0 * std::f64::consts::TAU)
        .map(|angle| json!([0.5 + angle.cos() / 2.0, 0.5 + angle.sin() / 2.0]))
        .collect();
    assert!(problem(&json!({"zones": {"z": {"polygon": points}}})).contains("up to 64"));
    assert!(problem(&json!({"zones": {"x".repeat(49): {}}})).contains("48"));
}

#[test]
fn what_is_no_object_or_has_nothing_in_it_is_refused() {
    for (value, part) in [
        (json!("{"), "no JSON"),
        (json!("[1]"), "accepted is an object"),
        (json!(7), "accepted is an object"),
        (json!({}), "no zone"),
        (json!({"zones": {}}), "no zone"),
        (json!({"zones": []}), "a name for each"),
        (json!(r#"{"rules": {"a": {}, "a": {}}}"#), "more than once"),
    ] {
        let text = problem(&value);
        assert!(text.contains(part), "`{part}` in {text}");
    }
}

#[test]
fn the_labels_are_listed_with_the_parts_that_name_them() {
    let config = parse_events(&example()).unwrap();
    let labels: Vec<_> = config
        .named_labels()
        .map(|(part, label)| format!("{part}: {label}"))
        .collect();
    assert_eq!(
        labels,
        [
            "zone bay: person",
            "line gate: car",
            "line gate: truck",
            "rule defect: scratch"
        ]
    );
    let known = ["persons", "car", "truck", "scratch"].map(str::to_owned);
    let expected =
        "zone bay of `events` waits for the label `person`, which the model does not have (did you mean `persons`?)";
    assert_eq!(config.unknown_labels(&known), [expected]);
    assert_eq!(config.unknown_labels(&[]), [""; 0]);
}

proptest! {
    #[test]
    fn any_text_is_a_configuration_or_an_error(text in "\\PC{0,80}") {
        let _ = parse_events(&json!(text));
    }

    #[test]
    fn any_points_are_a_polygon_or_an_error(points in prop::collection::vec((-0.1..1.1f64, -0.1..1.1f64), 0..9)) {
        let config = json!({"zones": {"z": {"polygon": points}}});
        if let Ok(config) = parse_events(&config) {
            prop_assert_eq!(parse_events(&config.to_json()), Ok(config));
        }
    }
}

#[test]
fn a_name_given_twice_in_any_object_of_the_configuration_is_refused() {
    for (text, name) in [
        (
            r#"{"events": {"rules": {"a": {"label": "x", "value_at_least": 1, "label": "y"}}}}"#,
            "label",
        ),
        (
            r#"{"Parameters": {"events": {"rules": {"a": {"label": "x", "value_at_least": 1}, "a": {"label": "y", "value_at_least": 1}}}}}"#,
            "a",
        ),
        (
            "events:\n  zones: {}\n  zones: {}\n  rules:\n    a: {label: x, value_at_least: 1}\n",
            "zones",
        ),
        (
            r#"{"events": "{\"rules\": {\"a\": {\"label\": \"x\", \"value_at_least\": 1, \"value_at_least\": 2}}}"}"#,
            "value_at_least",
        ),
        (r#"{"event_clip": {"pre_s": 1, "pre_s": 2}}"#, "pre_s"),
    ] {
        let sources = crate::config::Sources {
            text: Some((crate::config::TextOrigin::Environment, text.to_owned())),
            current_dir: "/work-dir".into(),
            ..crate::config::Sources::default()
        };
        let loaded = crate::config::load(&sources).unwrap();
        let warnings = loaded
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n");
        assert!(
            warnings.contains(&format!("has the name `{name}` more than once in one object")),
            "{text}: {warnings}"
        );
        assert!(
            loaded.config.events.is_none() && loaded.config.event_clip.is_none(),
            "{text}"
        );
    }
}
