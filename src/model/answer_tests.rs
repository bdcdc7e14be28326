use super::*;
use crate::model::BoundingBox;
use crate::model::lenient::{MAX_ITEMS, MAX_LABEL};
use proptest::prelude::*;

fn result(result: &str) -> (InferenceResult, u64) {
    let answer = parse(format!("{{\"id\":1,\"success\":true,\"result\":{result}}}").as_bytes()).unwrap();
    (answer.result.unwrap(), answer.cleaned)
}

#[test]
fn classes_keep_the_models_order() {
    let (result, cleaned) = result(r#"{"classification":{"zebra":0.25,"ant":0.5,"mole":1}}"#);
    let expected = [("zebra", 0.25), ("ant", 0.5), ("mole", 1.0)].map(|(label, value)| (label.to_owned(), value));
    assert_eq!(result.classification.unwrap(), expected);
    assert_eq!(cleaned, 0);
}

#[test]
fn values_that_are_not_numbers_are_replaced_and_counted() {
    let (result, cleaned) = result(
        r#"{"classification":{"a":null,"b":NaN,"c":-inf,"d":1e999,"nan":0.5},"anomaly":null,"visual_anomaly_max":"x"}"#,
    );
    let values: Vec<f64> = result
        .classification
        .unwrap()
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    assert_eq!(values, [0.0, 0.0, 0.0, 0.0, 0.5]);
    assert_eq!((result.anomaly, result.visual_anomaly_max), (None, None));
    assert_eq!(cleaned, 6);
}

#[test]
fn a_box_without_usable_coordinates_is_left_out() {
    let (result, cleaned) = result(
        r#"{"bounding_boxes":[{"label":"a","value":null,"x":1.5,"y":-2,"width":1e30,"height":4,"more":[{}]},
            {"label":"b","value":1,"x":null,"y":1,"width":1,"height":1}, 7]}"#,
    );
    let expected = BoundingBox {
        label: "a".into(),
        value: 0.0,
        x: 2,
        y: -2,
        width: i64::from(i32::MAX),
        height: 4,
        object_id: None,
    };
    assert_eq!(result.bounding_boxes.unwrap(), [expected]);
    assert_eq!(cleaned, 3);
}

#[test]
fn long_labels_are_cut_between_characters() {
    let (result, cleaned) = result(&format!(r#"{{"classification":{{"a{}":1}}}}"#, "é".repeat(200)));
    assert_eq!(result.classification.unwrap()[0].0, format!("a{}", "é".repeat(127)));
    assert_eq!(cleaned, 1);
}

#[test]
fn long_lists_are_cut() {
    let boxes = vec![r#"{"label":"a","value":1,"x":0,"y":0,"width":1,"height":1}"#; MAX_ITEMS + 5].join(",");
    let (result, cleaned) = result(&format!(r#"{{"bounding_boxes":[{boxes}]}}"#));
    assert_eq!(result.bounding_boxes.unwrap().len(), MAX_ITEMS);
    assert_eq!(cleaned, 5);
}

#[test]
fn unknown_types_of_result_are_ignored() {
    let (result, cleaned) = result(r#"{"heat_map":{"a":[1,2]},"bounding_boxes":null}"#);
    assert_eq!((result, cleaned), (InferenceResult::default(), 0));
}

#[test]
fn free_form_values_come_as_lists_or_are_in_shared_memory() {
    assert_eq!(
        result(r#"{"freeform":[[0.5,null],[]]}"#).0.freeform,
        Some(vec![vec![0.5, 0.0], vec![]])
    );
    let answer = parse(br#"{"id":3,"success":true,"result":{"freeform":"shm"}}"#).unwrap();
    assert!(answer.freeform_in_shm);
}

#[test]
fn a_failure_has_the_models_message_with_or_without_an_id() {
    let answer = parse(br#"{"id":9,"success":false,"error":"Failed to handle message"}"#).unwrap();
    assert_eq!(
        (answer.id, answer.result),
        (Some(9), Err("Failed to handle message".into()))
    );
    let answer = parse(br#"{"success":false,"error":"Missing 'id'"}"#).unwrap();
    assert_eq!((answer.id, answer.result), (None, Err("Missing 'id'".into())));
    assert!(parse(br#"{"id":9}"#).unwrap().result.is_err());
}

#[test]
fn the_time_is_the_sum_of_the_processing_steps() {
    let text = br#"{"id":1,"success":true,"result":{},"timing":{"dsp":1,"classification":2,"postprocessing":3,"anomaly":4,"json":50,"stdin":60}}"#;
    assert_eq!(parse(text).unwrap().result.unwrap().model_ms, 10);
    let odd = br#"{"id":1,"success":true,"result":{},"timing":{"dsp":-5,"classification":1e300,"anomaly":null}}"#;
    assert_eq!(parse(odd).unwrap().result.unwrap().model_ms, u64::MAX);
}

#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    for field in ["id", "unknown", "error"] {
        let deep = format!(
            "{{\"{field}\":{}{},\"error\":0}}",
            "[".repeat(1_000_000),
            "]".repeat(1_000_000)
        );
        assert!(parse(deep.as_bytes()).map_or(true, |answer| answer.result.is_err()));
    }
    let deep = format!(
        "{{\"result\":{{\"freeform\":{}{}}}}}",
        "[".repeat(1_000_000),
        "]".repeat(1_000_000)
    );
    assert!(parse(deep.as_bytes()).is_ok());
    assert!(serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(&deep).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn every_parsed_result_is_finite_and_bounded(
        kind in prop::sample::select(vec!["classification", "bounding_boxes", "freeform", "anomaly", "object_tracking"]),
        value in "[\\[\\]{}:,\"a-z0-9.eE\\- ]{0,60}|\\{\"a\":(null|1e400|-?[0-9]{1,4}e[0-9]{1,3}|nan|inf)\\}|\\[\\{\"label\":[a-z0-9\"]{1,4},\"x\":(null|true|[0-9e]{1,6})\\}\\]",
    ) {
        if let Ok(answer) = parse(format!("{{\"success\":true,\"result\":{{\"{kind}\":{value}}}}}").as_bytes())
            && let Ok(result) = answer.result {
            for (label, value) in result.classification.into_iter().flatten() {
                prop_assert!(value.is_finite() && label.len() <= MAX_LABEL);
            }
            prop_assert!(result.freeform.into_iter().flatten().flatten().all(f32::is_finite));
            prop_assert!(result.anomaly.is_none_or(f64::is_finite));
        }
    }
}
