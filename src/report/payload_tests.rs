use super::*;
use crate::report::image::PictureRef;
use crate::report::samples::{boxed, boxes, classes, noise};
use proptest::prelude::*;
use serde_json::Value;

const ID: Uuid = Uuid::from_u128(0x6f1c_2f0e_9a5b_4c3d_8e7f_0123_4567_89ab);

fn builder(result: &InferenceResult) -> MessageBuilder<'_> {
    let counts = InferenceCounts {
        inference_count: Detections::of(result).count(),
        total_inferences: 42,
    };
    MessageBuilder {
        result,
        counts,
        id: ID,
        ts: 1_736_016_142_920,
        s3: None,
    }
}

fn text(result: &InferenceResult) -> String {
    let message = builder(result)
        .build(PictureInMessage::NotWanted, &Stats::default())
        .unwrap();
    assert_eq!(message.fit, MessageFit::Complete);
    String::from_utf8(message.json.to_vec()).unwrap()
}

/// A message with `between` between the timestamp and the S3 fields.
fn message(count: u64, between: &str) -> String {
    format!(
        r#"{{"time_ms":1,"inference_count":{count},"total_inferences":42,"id":"6f1c2f0e-9a5b-4c3d-8e7f-0123456789ab","ts":1736016142920,{between},"s3_bucket":"unset","s3_prefix":"unset"}}"#
    )
}

const CAT: &str = r#"{"label":"cat","value":0.91,"x":10,"y":20,"width":64,"height":48}"#;

#[test]
fn a_message_with_boxes_has_the_documented_fields_in_their_order() {
    let result = InferenceResult {
        model_ms: 3,
        info: Some("first".into()),
        ..boxes(&[0.91])
    };
    let expected =
        message(1, &format!(r#""box":[{CAT}]"#)).replacen(r#""time_ms":1"#, r#""time_ms":3,"info":"first""#, 1);
    assert_eq!(text(&result), expected);
}

#[test]
fn a_classification_is_an_object_in_the_models_order() {
    assert_eq!(
        text(&classes(&[("zebra", 0.25), ("ant", 0.75)])),
        message(1, r#""c":{"zebra":0.25,"ant":0.75}"#)
    );
}

#[test]
fn a_visual_anomaly_grid_has_its_anomaly_values() {
    let result = InferenceResult {
        visual_anomaly_grid: Some(vec![boxed(0.91), boxed(0.91)]),
        visual_anomaly_max: Some(9.5),
        visual_anomaly_mean: Some(1.25),
        ..Default::default()
    };
    let between = format!(r#""grid":[{CAT},{CAT}],"visual_anomaly_max":9.5,"visual_anomaly_mean":1.25"#);
    assert_eq!(text(&result), message(2, &between));
}

#[test]
fn a_grid_without_cells_has_its_anomaly_values() {
    let result = InferenceResult {
        visual_anomaly_grid: Some(vec![]),
        visual_anomaly_max: Some(0.5),
        visual_anomaly_mean: Some(0.25),
        ..Default::default()
    };
    let between = r#""grid":[],"visual_anomaly_max":0.5,"visual_anomaly_mean":0.25"#;
    assert_eq!(text(&result), message(0, between));
}

#[test]
fn the_result_can_be_only_an_anomaly_score() {
    let result = InferenceResult {
        anomaly: Some(2.5),
        ..Default::default()
    };
    assert_eq!(text(&result), message(1, r#""anomaly":2.5"#));
}

#[test]
fn anomaly_is_added_to_a_classification() {
    let result = InferenceResult {
        anomaly: Some(-0.5),
        ..classes(&[("a", 1.0)])
    };
    assert_eq!(text(&result), message(1, r#""c":{"a":1.0},"anomaly":-0.5"#));
}

#[test]
fn freeform_is_an_array_of_arrays_counted_by_array() {
    let result = InferenceResult {
        freeform: Some(vec![vec![0.1, 2.0], vec![]]),
        ..Default::default()
    };
    assert_eq!(text(&result), message(2, r#""freeform":[[0.1,2.0],[]]"#));
}

#[test]
fn tracked_objects_are_sent_as_boxes_with_their_id() {
    let mut tracked = boxed(0.91);
    tracked.object_id = Some(7);
    let result = InferenceResult {
        object_tracking: Some(vec![tracked]),
        ..boxes(&[0.5, 0.6])
    };
    assert_eq!(
        text(&result),
        message(1, &format!(r#""box":[{}]"#, CAT.replace('}', r#","object_id":7}"#)))
    );
}

#[test]
fn exactly_one_kind_is_sent_of_a_result_with_several() {
    let result = InferenceResult {
        bounding_boxes: Some(vec![boxed(0.91)]),
        ..classes(&[("a", 1.0)])
    };
    assert_eq!(text(&result), message(1, &format!(r#""box":[{CAT}]"#)));
}

#[test]
fn a_message_contains_bucket_and_prefix_if_the_s3_cache_is_on() {
    let s3 = S3Fields {
        bucket: "photos",
        prefix: "Fruit_v25/",
    };
    let result = boxes(&[0.91]);
    let message = MessageBuilder {
        s3: Some(s3),
        ..builder(&result)
    }
    .build(PictureInMessage::NotWanted, &Stats::default())
    .unwrap();
    let value: Value = serde_json::from_slice(&message.json).unwrap();
    assert_eq!(
        (&value["s3_bucket"], &value["s3_prefix"]),
        (&"photos".into(), &"Fruit_v25/".into())
    );
}

#[test]
fn a_picture_is_the_last_field_and_decodes_to_the_cached_jpeg() {
    let data = noise(32 * 32);
    let picture = EncodedPicture::new(PictureRef {
        width: 32,
        height: 32,
        grey: true,
        data: &data,
    })
    .unwrap();
    let message = builder(&boxes(&[0.91]))
        .build(PictureInMessage::Encoded(&picture), &Stats::default())
        .unwrap();
    let value: Value = serde_json::from_slice(&message.json).unwrap();
    assert_eq!(value.as_object().unwrap().keys().next_back().unwrap(), "image");
    assert_eq!(
        STANDARD.decode(value["image"].as_str().unwrap()).unwrap(),
        picture.jpeg()[..]
    );
}

#[test]
fn a_large_picture_is_made_smaller_until_the_message_fits() {
    let stats = Stats::default();
    let data = noise(640 * 640 * 3);
    let picture = EncodedPicture::new(PictureRef {
        width: 640,
        height: 640,
        grey: false,
        data: &data,
    })
    .unwrap();
    assert!(picture.jpeg().len() > MAX_MESSAGE);
    let message = builder(&boxes(&[0.91]))
        .build(PictureInMessage::Encoded(&picture), &stats)
        .unwrap();
    assert_eq!(message.fit, MessageFit::Complete);
    assert!(
        (MAX_MESSAGE / 2..=MAX_MESSAGE).contains(&message.json.len()),
        "{}",
        message.json.len()
    );
    assert_eq!((stats.published.get(), stats.images_omitted.get()), (1, 0));
}

#[test]
fn a_picture_keeps_its_quality_if_it_fits_exactly() {
    let data = noise(64 * 64);
    let picture = EncodedPicture::new(PictureRef {
        width: 64,
        height: 64,
        grey: true,
        data: &data,
    })
    .unwrap();
    let build = |info: usize| {
        let result = InferenceResult {
            info: Some("i".repeat(info)),
            ..boxes(&[0.91])
        };
        builder(&result)
            .build(PictureInMessage::Encoded(&picture), &Stats::default())
            .unwrap()
            .json
    };
    let filler = MAX_MESSAGE - build(0).len();
    assert_eq!(build(filler).len(), MAX_MESSAGE);
    let value: Value = serde_json::from_slice(&build(filler + 1)).unwrap();
    assert!(STANDARD.decode(value["image"].as_str().unwrap()).unwrap().len() < picture.jpeg().len());
    assert!(build(filler + 1).len() <= MAX_MESSAGE);
}

#[test]
fn a_picture_that_cannot_fit_is_replaced_by_image_omitted() {
    let stats = Stats::default();
    let data = noise(64 * 64);
    let picture = EncodedPicture::new(PictureRef {
        width: 64,
        height: 64,
        grey: true,
        data: &data,
    })
    .unwrap();
    // Room for `image_omitted`, not for a picture.
    let result = freeform_message_of(MAX_MESSAGE - 100);
    let message = builder(&result)
        .build(PictureInMessage::Encoded(&picture), &stats)
        .unwrap();
    assert_eq!(message.fit, MessageFit::ImageOmitted);
    let value: Value = serde_json::from_slice(&message.json).unwrap();
    assert_eq!(value["image_omitted"], true);
    assert!(value.get("image").is_none());
    assert_eq!((stats.published.get(), stats.images_omitted.get()), (1, 1));
}

#[test]
fn a_message_too_large_without_a_picture_is_oversized_but_complete() {
    let stats = Stats::default();
    let largest = builder(&freeform_message_of(MAX_MESSAGE))
        .build(PictureInMessage::NotWanted, &stats)
        .unwrap();
    assert_eq!((largest.json.len(), largest.fit), (MAX_MESSAGE, MessageFit::Complete));

    let mut too_large = boxes(&[0.5]);
    too_large.info = Some(String::new());
    too_large.info = Some("i".repeat(MAX_MESSAGE + 1 - text(&too_large).len()));
    let over = builder(&too_large).build(PictureInMessage::NotWanted, &stats).unwrap();
    assert_eq!((over.json.len(), over.fit), (MAX_MESSAGE + 1, MessageFit::Oversized));
    assert!(serde_json::from_slice::<Value>(&over.json).is_ok());
    assert_eq!((stats.published.get(), stats.oversized.get()), (1, 1));
}

#[test]
fn a_grid_that_is_too_large_keeps_the_cells_with_the_highest_values() {
    let cells: Vec<_> = (0..3_000).map(|i| boxed(f64::from(i * 7 % 3_000))).collect();
    let result = InferenceResult {
        visual_anomaly_grid: Some(cells),
        ..Default::default()
    };
    for picture in [PictureInMessage::NotWanted, PictureInMessage::Missing] {
        let stats = Stats::default();
        let message = builder(&result).build(picture, &stats).unwrap();
        assert_ne!(message.fit, MessageFit::Oversized);
        assert!(
            (MAX_MESSAGE - 200..=MAX_MESSAGE).contains(&message.json.len()),
            "{}",
            message.json.len()
        );
        let json: Value = serde_json::from_slice(&message.json).unwrap();
        let values: Vec<_> = json["grid"]
            .as_array()
            .unwrap()
            .iter()
            .map(|cell| cell["value"].as_f64().unwrap())
            .collect();
        let expected: Vec<_> = (0..values.len()).map(|i| (2_999 - i) as f64).collect();
        assert_eq!(values, expected);
        assert_eq!(json["grid_omitted"], 3_000 - values.len());
        assert_eq!(
            (stats.published.get(), stats.results_cut.get(), stats.oversized.get()),
            (1, 1, 0)
        );
    }
}

#[test]
fn boxes_and_labels_that_are_too_many_are_cut_to_the_strongest() {
    let labels: Vec<_> = (0..9_000).map(|i| (format!("label {i}"), f64::from(i))).collect();
    let tracked = InferenceResult {
        object_tracking: boxes(&labels.iter().map(|(_, value)| *value).collect::<Vec<_>>()).bounding_boxes,
        ..Default::default()
    };
    let classified = InferenceResult {
        classification: Some(labels),
        ..Default::default()
    };
    for (result, kind, count) in [(&tracked, "box", "box_omitted"), (&classified, "c", "c_omitted")] {
        let stats = Stats::default();
        let message = builder(result).build(PictureInMessage::Missing, &stats).unwrap();
        assert!(
            (MAX_MESSAGE - 200..=MAX_MESSAGE).contains(&message.json.len()),
            "{kind}: {}",
            message.json.len()
        );
        let json: Value = serde_json::from_slice(&message.json).unwrap();
        let values: Vec<_> = match &json[kind] {
            Value::Array(boxes) => boxes.iter().map(|item| item["value"].as_f64().unwrap()).collect(),
            labels => labels
                .as_object()
                .unwrap()
                .values()
                .map(|value| value.as_f64().unwrap())
                .collect(),
        };
        assert!(
            values.iter().all(|value| *value > 8_999.0 - values.len() as f64),
            "{kind}"
        );
        assert_eq!(json[count], 9_000 - values.len());
        assert_eq!(
            (json["image_omitted"].as_bool(), message.omitted),
            (Some(true), 9_000 - values.len())
        );
        assert_eq!((stats.results_cut.get(), stats.images_omitted.get()), (1, 1));
    }
}

#[test]
fn a_freeform_result_that_is_too_large_keeps_its_first_values() {
    let result = InferenceResult {
        freeform: Some(vec![vec![0.5; 10], vec![0.25; 100_000], vec![0.125]]),
        ..Default::default()
    };
    let stats = Stats::default();
    let message = builder(&result).build(PictureInMessage::NotWanted, &stats).unwrap();
    assert_eq!((message.fit, stats.results_cut.get()), (MessageFit::Complete, 1));
    let json: Value = serde_json::from_slice(&message.json).unwrap();
    let lengths: Vec<_> = json["freeform"]
        .as_array()
        .unwrap()
        .iter()
        .map(|array| array.as_array().unwrap().len())
        .collect();
    assert_eq!((lengths.len(), lengths[0], lengths[2]), (3, 10, 0));
    assert!(lengths[1] > 20_000);
    assert_eq!(json["grid_omitted"], 100_011 - lengths[0] - lengths[1]);
}

/// A freeform result whose message has exactly `bytes` bytes; `info` fills the message.
fn freeform_message_of(bytes: usize) -> InferenceResult {
    let mut result = InferenceResult {
        freeform: Some(vec![vec![0.5; 30_000]]),
        info: Some(String::new()),
        ..Default::default()
    };
    result.info = Some("i".repeat(bytes - text(&result).len()));
    result
}

fn any_boxes() -> impl Strategy<Value = Option<Vec<BoundingBox>>> {
    let any_box = (any::<String>(), any::<f64>(), any::<[i64; 4]>(), any::<Option<i64>>()).prop_map(
        |(label, value, [x, y, width, height], object_id)| BoundingBox {
            label,
            value,
            x,
            y,
            width,
            height,
            object_id,
        },
    );
    prop::option::of(prop::collection::vec(any_box, 0..4))
}

prop_compose! {
    fn any_result()(
        classification in any::<Option<Vec<(String, f64)>>>(),
        bounding_boxes in any_boxes(),
        object_tracking in any_boxes(),
        visual_anomaly_grid in any_boxes(),
        values in any::<[Option<f64>; 3]>(),
        freeform in any::<Option<Vec<Vec<f32>>>>(),
        model_ms: u64,
        info: Option<String>,
    ) -> InferenceResult {
        let [visual_anomaly_max, visual_anomaly_mean, anomaly] = values;
        InferenceResult { classification, bounding_boxes, object_tracking, visual_anomaly_grid, visual_anomaly_max,
            visual_anomaly_mean, anomaly, freeform, model_ms, info, ..Default::default() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_published_message_is_json_within_the_limit(
        result in any_result(), width in 1u32..400, height in 1u32..400, filler in 0usize..140_000,
    ) {
        let result = InferenceResult { info: Some("i".repeat(filler)), ..result };
        let data = noise((width * height * 3) as usize);
        let picture = EncodedPicture::new(PictureRef { width, height, grey: false, data: &data }).unwrap();
        let message = builder(&result).build(PictureInMessage::Encoded(&picture), &Stats::default()).unwrap();
        prop_assert_eq!(message.json.len() > MAX_MESSAGE, message.fit == MessageFit::Oversized);
        let value: Value = serde_json::from_slice(&message.json).unwrap();
        let kinds = ["freeform", "grid", "box", "c"].iter().filter(|kind| value.get(kind).is_some()).count();
        let has_only_scores = matches!(Detections::of(&result), Detections::Anomaly(_) | Detections::VisualAnomaly(_));
        prop_assert!(kinds == 1 || kinds == 0 && has_only_scores);
    }
}

#[test]
fn a_missing_picture_gives_image_omitted() {
    let stats = Stats::default();
    let message = builder(&boxes(&[0.91]))
        .build(PictureInMessage::Missing, &stats)
        .unwrap();
    let value: Value = serde_json::from_slice(&message.json).unwrap();
    assert_eq!(
        (&value["image_omitted"], message.fit),
        (&Value::Bool(true), MessageFit::ImageOmitted)
    );
    assert_eq!((stats.images_omitted.get(), stats.published.get()), (1, 1));
}
