//! The WebSocket at `/`, as applications of the existing runner use it.

use base64::Engine;
use serde_json::{Value, json};

use crate::preview::client::{NO_BROKER, Served};

#[tokio::test]
async fn an_application_receives_a_hello_and_every_inference() {
    let served = Served::ball(NO_BROKER, &[]);
    let mut client = served.connect("/").await;
    let hello = client.next().await;
    assert_eq!(hello["type"], "hello");
    assert_eq!(hello["project"]["name"], "builtin:ball");
    assert_eq!(hello["modelParameters"]["sensorType"], "camera");
    assert_eq!(hello["modelParameters"]["image_input_width"], 320);
    assert!(hello["inferencingEngine"].is_object(), "{hello}");
    for _ in 0..5 {
        let message = client.next().await;
        assert_eq!(message["type"], "classification");
        assert!(message["result"]["bounding_boxes"].is_array(), "{message}");
        assert!(message["timeMs"].as_u64() >= Some(1), "{message}");
    }
    let seen = client
        .wait_for("a ball", |m| m["result"]["bounding_boxes"][0]["label"] == "ball")
        .await;
    assert_eq!(
        seen["result"]["bounding_boxes"][0]
            .as_object()
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        ["label", "value", "x", "y", "width", "height"]
    );
    served.daemon.stop();
}

#[tokio::test]
async fn pictures_are_sent_only_while_a_client_requests_them() {
    let served = Served::ball(NO_BROKER, &[]);
    let mut client = served.connect("/").await;
    client.wait_for_type("classification").await;
    assert_eq!(
        served.status().await["page"]["pictures_encoded"],
        0,
        "nobody asked for pictures"
    );

    let asked = json!({"type": "set-camera-preview", "enabled": true, "messageId": 7});
    let answer = client.ask(&asked).await;
    assert_eq!(
        answer,
        json!({"messageId": 7, "type": "handling-message-success", "message": asked.to_string()})
    );
    let preview = client.wait_for_type("camera-preview").await;
    let image = preview["image"]
        .as_str()
        .unwrap()
        .strip_prefix("data:image/jpeg;base64,")
        .unwrap();
    let jpeg = base64::engine::general_purpose::STANDARD.decode(image).unwrap();
    let picture = image::load_from_memory(&jpeg).unwrap();
    assert_eq!((picture.width(), picture.height()), (320, 320));

    client
        .ask(&json!({"type": "toggle-camera-preview", "enabled": false}))
        .await;
    let status = served
        .wait_for_status("nobody wants pictures", |status| status["page"]["picture_viewers"] == 0)
        .await;
    let before = status["page"]["pictures_encoded"].as_u64().unwrap();
    for _ in 0..20 {
        client.wait_for_type("classification").await;
    }
    let after = served.status().await["page"]["pictures_encoded"].as_u64().unwrap();
    assert!(after <= before + 1, "{before} pictures, then {after}");
    served.daemon.stop();
}

#[tokio::test]
async fn a_threshold_change_reaches_the_model_and_the_next_client() {
    let served = Served::ball(NO_BROKER, &[]);
    let mut client = served.connect("/").await;
    let hello = client.wait_for_type("hello").await;
    let block = &hello["modelParameters"]["thresholds"][0];
    let (id, key) = (block["id"].clone(), "min_score");
    assert_ne!(block[key], json!(0.999), "{block}");
    let answer = client
        .ask(&json!({"type": "threshold-override", "id": id, "key": key, "value": 0.999}))
        .await;
    assert_eq!(answer["type"], "handling-message-success", "{answer}");
    let nothing = |message: &Value| {
        message["result"]["bounding_boxes"]
            .as_array()
            .is_some_and(Vec::is_empty)
    };
    client.wait_for("no ball is that certain", nothing).await;
    let mut next = served.connect("/").await;
    assert_eq!(
        next.wait_for_type("hello").await["modelParameters"]["thresholds"][0][key],
        0.999
    );
    served.daemon.stop();
}

#[tokio::test]
async fn an_invalid_message_is_answered_with_the_reason() {
    let served = Served::ball(NO_BROKER, &[]);
    let mut client = served.connect("/").await;
    client.wait_for_type("hello").await;
    for (message, reason) in [
        (json!({"type": "dance", "messageId": "x"}), "set-camera-preview"),
        (json!({"messageId": 1}), "Invalid \"type\""),
        (json!({"type": "set-camera-preview", "enabled": "yes"}), "true or false"),
        (
            json!({"type": "threshold-override", "id": 999, "key": "k", "value": 1}),
            "Cannot find threshold with ID 999",
        ),
        (json!([]), "Invalid \"type\""),
    ] {
        let answer = client.ask(&message).await;
        assert_eq!(answer["type"], "handling-message-error", "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(reason), "{answer}");
        assert_eq!(answer.get("messageId"), message.get("messageId"));
    }
    served.daemon.stop();
}

#[tokio::test]
async fn pictures_are_also_available_without_a_websocket() {
    let served = Served::ball(NO_BROKER, &[]);
    let (code, jpeg) = served.get("/snapshot.jpg").await;
    assert_eq!(
        (code, image::guess_format(&jpeg).unwrap()),
        (200, image::ImageFormat::Jpeg)
    );

    let mut stream = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .get(served.url("/stream.mjpeg"))
        .send()
        .await
        .unwrap();
    let kind = stream.headers()["content-type"].to_str().unwrap().to_owned();
    let boundary = format!("--{}", kind.split_once("boundary=").unwrap().1);
    let mut received = Vec::new();
    let parts = |bytes: &[u8]| String::from_utf8_lossy(bytes).matches(&boundary).count();
    while parts(&received) < 3 {
        received.extend(stream.chunk().await.unwrap().expect("the stream goes on"));
    }
    drop(stream);
    served
        .wait_for_status("the stream's client is gone", |status| status["page"]["viewers"] == 0)
        .await;

    let (code, text) = served.get("/metrics").await;
    let text = String::from_utf8(text).unwrap();
    assert_eq!(code, 200);
    assert!(
        text.contains("\nei_greengrass_inferences_total ") && text.ends_with("# EOF\n"),
        "{text}"
    );
    assert_eq!(served.get("/healthz").await, (200, b"ok\n".to_vec()));
    assert_eq!(served.get("/nothing").await.0, 404);
    served.daemon.stop();
}
