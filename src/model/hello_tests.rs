use super::*;
use proptest::prelude::*;
use serde_json::json;

/// The recorded hello of one of the models in `tests/data/eim`.
fn recorded(name: &str) -> Map<String, Value> {
    let path = format!("{}/tests/data/eim/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    serde_json::from_str(line["response"].as_str().unwrap()).unwrap()
}

fn with(changes: Value) -> Result<Hello, HelloError> {
    let mut answer = recorded("fomo-face");
    let Some(Value::Object(parameters)) = answer.get_mut("model_parameters") else {
        panic!()
    };
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => parameters.remove(key),
            value => parameters.insert(key.clone(), value.clone()),
        };
    }
    parse(answer)
}

fn message(changes: Value) -> String {
    with(changes).unwrap_err().to_string()
}

#[test]
fn an_image_model_names_size_and_resize_mode() {
    let hello = parse(recorded("fomo-face")).unwrap();
    let resize = Some(ResizeMode::Squash);
    assert_eq!(
        hello.info.input,
        ModelInput::Image {
            width: 96,
            height: 96,
            grey: false,
            resize
        }
    );
    assert_eq!(
        (hello.info.features, hello.info.project_id, hello.info.deploy_version),
        (9216, 222550, 98)
    );
    assert_eq!(hello.info.labels, ["face"]);
    assert_eq!(hello.info.model_type, "constrained_object_detection");
    assert!(!hello.info.slow_first_inference);
    assert_eq!(hello.info.sensor_name(), "camera");
    assert_eq!(hello.features_shm.unwrap().name, "/shm-da53b921ef5d");
    assert_eq!(hello.info.raw_parameters["thresholds"][0]["min_score"], 0.5);
}

#[test]
fn a_model_of_2023_names_neither_resize_mode_nor_shared_memory() {
    let hello = parse(recorded("fomo-face-legacy2023")).unwrap();
    assert_eq!(
        hello.info.input,
        ModelInput::Image {
            width: 96,
            height: 96,
            grey: false,
            resize: None
        }
    );
    assert_eq!((hello.features_shm, hello.features_shm_error), (None, None));
}

#[test]
fn a_keyword_model_takes_audio() {
    let hello = parse(recorded("kws")).unwrap();
    assert_eq!(
        hello.info.input,
        ModelInput::Audio {
            frequency: 16_000,
            slice_size: 4_000,
            continuous: true
        }
    );
    assert_eq!((hello.info.features, hello.info.sensor_name()), (16_000, "microphone"));
}

#[test]
fn free_form_segments_are_sorted_by_index() {
    let mut answer = recorded("imgcls-fruit-freeform");
    let first = answer["freeform_output_shm"][0].clone();
    let mut second = first.clone();
    second["index"] = json!(1);
    second["name"] = json!("/shm-second");
    answer["freeform_output_shm"] = json!([second, first]);
    assert_eq!(
        segment_names(&answer),
        ["/shm-e3b5062416d9", "/shm-second", "/shm-c858c7fd8263"]
    );
    let names: Vec<_> = parse(answer)
        .unwrap()
        .freeform_shm
        .into_iter()
        .map(|segment| segment.name)
        .collect();
    assert_eq!(names, ["/shm-c858c7fd8263", "/shm-second"]);
}

#[test]
fn other_sensors_are_named_and_are_not_an_error() {
    for (sensor, name) in [(json!(2), "accelerometer"), (json!(4), "positional")] {
        assert_eq!(
            with(json!({ "sensor": sensor })).unwrap().info.input,
            ModelInput::Unsupported(name)
        );
    }
    // An unknown one that takes pictures gets pictures.
    for sensor in [json!(9), json!(-1), json!("camera"), Value::Null] {
        let input = with(json!({ "sensor": sensor })).unwrap().info.input;
        assert!(matches!(input, ModelInput::Image { .. }), "{input:?}");
    }
    let sizeless = json!({ "sensor": 9, "image_input_width": 0, "image_input_height": 0, "input_features_count": 0 });
    assert_eq!(with(sizeless).unwrap().info.input, ModelInput::Unsupported("unknown"));
}

#[test]
fn the_engine_tells_whether_the_first_answer_is_slow() {
    assert!(
        with(json!({ "inferencing_engine": 6 }))
            .unwrap()
            .info
            .slow_first_inference
    );
    let mut answer = recorded("fomo-face");
    answer["inferencing_engine"]["properties"] = json!(["gpu_delegates"]);
    assert!(parse(answer).unwrap().info.slow_first_inference);
}

#[test]
fn scores_of_regression_and_anomaly_models_are_no_probabilities() {
    let is_probability = |parameters: Value| with(parameters).unwrap().info.has_probabilities();
    let classifier = |anomaly: Value, labels: Value| {
        is_probability(json!({ "model_type": "classification", "has_anomaly": anomaly, "labels": labels }))
    };
    assert!(classifier(json!(1), json!(["yes", "no"])));
    assert!(!classifier(json!(0), json!(["value"])), "regression");
    assert!(!classifier(json!(1), json!([])), "anomaly only");
    assert!(!classifier(json!(true), json!([])), "anomaly only, an old model");
    assert!(!classifier(json!(4), json!(["normal", "other"])), "visual anomaly");
    assert!(is_probability(
        json!({ "model_type": "object_detection", "has_anomaly": 0, "labels": ["face"] })
    ));
}

#[test]
fn unsupported_models_are_refused_with_a_reason() {
    assert!(message(json!({ "inferencing_engine": 17 })).contains("vision-language model"));
    let input = with(json!({ "image_input_frames": 4 })).unwrap().info.input;
    assert_eq!(input, ModelInput::SeveralImages(4));
    assert!(input.unsupported_reason().unwrap().contains("4 pictures at a time"));
    let answer = json!({ "success": false, "error": "License expired" });
    let Value::Object(answer) = answer else { panic!() };
    assert!(parse(answer).unwrap_err().to_string().contains("License expired"));
}

#[test]
fn sizes_must_be_in_range_and_consistent() {
    assert!(message(json!({ "image_input_width": 0 })).contains("image_input_width 0, accepted is 1 to 8192"));
    assert!(message(json!({ "image_input_height": 8193 })).contains("image_input_height 8193"));
    assert!(message(json!({ "image_input_height": null })).contains("without image_input_height"));
    assert!(message(json!({ "input_features_count": 9215 })).contains("accepted is 9216, one value a pixel"));
    assert_eq!(
        with(json!({ "input_features_count": null })).unwrap().info.features,
        9216
    );
    let audio = |changes: Value| {
        let mut all = json!({ "sensor": 1, "frequency": 16000.0, "input_features_count": 16000 });
        all.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        with(all)
    };
    assert!(audio(json!({})).is_ok());
    assert!(audio(json!({ "frequency": 0 })).is_err());
    assert!(audio(json!({ "input_features_count": 1e12 })).is_err());
}

#[test]
fn every_optional_field_may_be_absent_or_of_another_type() {
    for key in [
        "model_type",
        "label_count",
        "labels",
        "thresholds",
        "image_input_frames",
        "image_resize_mode",
        "has_anomaly",
    ] {
        for value in [Value::Null, json!({ "odd": [1] }), json!(-7.5), json!("text")] {
            assert!(with(json!({ key: value })).is_ok(), "{key} {value}");
        }
    }
    assert_eq!(
        with(json!({ "model_type": null })).unwrap().info.model_type,
        "classification"
    );
    let mut bare = recorded("fomo-face");
    for key in ["project", "inferencing_engine", "features_shm"] {
        bare.remove(key);
    }
    assert_eq!(parse(bare).unwrap().info.name, "");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z_/\\-]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z_]{0,8}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_hello_causes_a_panic(
        replaced in prop::collection::vec((0..6usize, any::<prop::sample::Index>(), any_json()), 1..4)
    ) {
        let mut answer = recorded("imgcls-fruit-freeform");
        for (object, index, value) in replaced {
            let pick = |map: &Map<String, Value>| map.keys().nth(index.index(map.len().max(1))).cloned();
            let target = match object {
                0 | 1 => answer.get_mut("model_parameters").and_then(Value::as_object_mut),
                2 => answer.get_mut("features_shm").and_then(Value::as_object_mut),
                3 => answer.get_mut("project").and_then(Value::as_object_mut),
                _ => Some(&mut answer),
            };
            if let Some((key, target)) = target.and_then(|target| Some((pick(target)?, target))) {
                target.insert(key, value);
            }
        }
        let _ = segment_names(&answer);
        let _ = parse(answer);
    }
}
