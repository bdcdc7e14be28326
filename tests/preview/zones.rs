//! Zones, lines and rules over HTTP.

use serde_json::{Value, json};

use crate::preview::client::{BALL, NO_BROKER, Served};
use crate::support::daemon::Site;
use crate::support::ports::free_port;
use crate::support::scripts::cycle;

const PATH: &str = "/api/events";

async fn post(served: &Served, path: &str, body: &str, headers: &[(&'static str, &str)]) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.post(served.url(path)).body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn config(served: &Served) -> Value {
    serde_json::from_slice(&served.get(PATH).await.1).unwrap()
}

fn gate() -> String {
    json!({"lines": {"gate": {"from": [0.5, 0], "to": [0.5, 1]}}}).to_string()
}

#[tokio::test]
async fn zones_change_over_http_only_with_the_token_and_only_to_valid_ones() {
    let deployed = r#"events={"lines":{"old":{"from":[0,0.5],"to":[1,0.5]}}}"#;
    let arguments = ["--set", "preview_token=let-me-in", "--set", deployed];
    let served = Served::ball(NO_BROKER, &arguments);
    let before = config(&served).await;
    assert_eq!(
        (&before["deployed"], before["events"]["lines"]["old"].is_object()),
        (&json!(true), true)
    );

    let proxied = ("x-forwarded-for", "192.0.2.1");
    let evil = ("origin", "http://evil.example");
    for (headers, reason) in [
        (vec![proxied], "needs the token"),
        (vec![proxied, ("authorization", "Bearer wrong")], "needs the token"),
        (vec![evil], "another web site"),
        (vec![("origin", "null")], "another web site"),
    ] {
        let (status, text) = post(&served, PATH, &gate(), &headers).await;
        assert_eq!((status, text.contains(reason)), (403, true), "{headers:?}: {text}");
    }
    for (body, reason) in [
        ("", "accepted: an object"),
        ("{}", "has no zone, no line and no rule"),
        ("{", "is no JSON object"),
        (
            r#"{"zones":{"a":{"polygon":[[0,0],[1,1],[1,0],[0,1]]}}}"#,
            "crosses or touches itself",
        ),
        (
            r#"{"lines":{"a":{"from":[0,0],"to":[1,1]},"a":{"from":[0,0],"to":[1,1]}}}"#,
            "more than once",
        ),
    ] {
        let (status, text) = post(&served, PATH, body, &[]).await;
        assert_eq!((status, text.contains(reason)), (400, true), "{body}: {text}");
    }
    let (status, _) = post(&served, PATH, &"x".repeat(100_000), &[]).await;
    assert_eq!(status, 413);
    assert_eq!(config(&served).await, before, "nothing has changed");

    let known = [proxied, ("authorization", "Bearer let-me-in")];
    let (status, text) = post(&served, PATH, &gate(), &known).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &answer["deployed"]), (200, &json!(false)));
    assert_eq!(config(&served).await, answer);
    assert_eq!(post(&served, PATH, "none", &[]).await.0, 200);
    assert_eq!(config(&served).await, json!({"events": null, "deployed": false}));
    assert_eq!(post(&served, PATH, "deployed", &[]).await.0, 200);
    assert_eq!(config(&served).await, before);
    served.daemon.stop();
}

#[tokio::test]
async fn everybody_may_check_zones_and_nothing_changes() {
    let served = Served::ball(NO_BROKER, &[]);
    let proxied = [("x-forwarded-for", "192.0.2.1")];
    let path = "/api/events/check";
    assert_eq!(post(&served, path, &gate(), &proxied).await, (200, "ok\n".to_owned()));
    let (status, text) = post(&served, path, r#"{"lines":{"a":{"from":[0,0],"to":[0,0]}}}"#, &proxied).await;
    assert_eq!((status, text.contains("needs a length")), (400, true), "{text}");
    assert_eq!(config(&served).await, json!({"events": null, "deployed": true}));
    served.daemon.stop();
}

#[tokio::test]
async fn the_status_has_the_last_events_and_viewers_get_the_followed_objects() {
    let site = Site::new();
    let found = json!({"bounding_boxes": [{"label": "thing", "value": 0.9, "x": 12, "y": 8, "width": 8, "height": 8}]});
    let nothing = json!({"bounding_boxes": []});
    let answers = [vec![found; 6], vec![nothing; 6]].concat();
    let model = site.scripted_model(&cycle(&answers));
    let events = json!({
        "zones": {"all": {"polygon": [[0, 0], [1, 0], [1, 1], [0, 1]]}},
        "rules": {"there": {"label": "thing", "value_at_least": 0.5}}
    });
    let setting = format!("events={events}");
    let arguments = ["--model", model.to_str().unwrap(), "--gst", BALL, "--set", &setting];
    let served = Served::start_at(site, free_port(), NO_BROKER, &arguments);

    let mut client = served.connect("/live").await;
    let message = client.wait_for_type("events").await;
    assert_eq!(
        (&message["deployed"], &message["mayChange"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(message["config"]["rules"]["there"]["label"], "thing");
    let moment = client
        .wait_for("a followed object", |message| message["objects"][0]["found"] == true)
        .await;
    let object = &moment["objects"][0];
    assert_eq!(object["box"], json!({"x": 12, "y": 8, "width": 8, "height": 8}));
    assert_eq!((&object["zones"], &object["label"]), (&json!(["all"]), &json!("thing")));
    drop(client);

    let status = served
        .wait_for_status("as many events as are kept", |status| {
            status["counters"]["events"].as_u64() >= Some(24)
        })
        .await;
    let last = status["last_events"].as_array().unwrap();
    assert_eq!(last.len(), 20, "only the last ones");
    let ts: Vec<_> = last.iter().map(|event| event["ts"].as_u64().unwrap()).collect();
    assert!(ts.is_sorted_by(|newer, older| newer >= older), "{ts:?}");
    assert!(
        last.iter()
            .all(|event| event["rule"] == "there" && event["label"] == "thing")
    );
    served.daemon.stop();
}
