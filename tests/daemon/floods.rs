//! What others send to the component, many times and with hostile characters: the log stays short and readable.

use std::collections::BTreeMap;

use rumqttc::mqttbytes::QoS;
use serde_json::{Value, json};

use crate::support::broker::{Behaviour, MockBroker};
use crate::support::daemon::{Daemon, LIMIT, Site};
use crate::support::scripts::{frames, script};

/// What a hostile name contains: a line break, a colour, a bell, a change of the direction, a character without width, a
/// number of 300 digits.
pub fn hostile(number: usize) -> String {
    format!(
        "n{number}\n2026-01-01 ERROR forged\r\0\u{1b}[31m\u{7}\u{9b}\u{202e}\u{2066}\u{200b}\u{feff}{}",
        "9".repeat(300)
    )
}

/// Checks that each kind of line was written a few times, and that no line has a hostile character. The number of lines.
pub fn check_log(log: &str, is_json: bool) -> usize {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for line in log.lines() {
        let bad = |c: char| {
            c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        };
        assert!(!line.contains(bad), "{line:?}");
        assert!(!line.contains(&"9".repeat(100)), "{line}");
        assert!(line.len() < 20_000, "{line}");
        assert!(!line.starts_with("2026-01-01 ERROR"), "{line}");
        // GStreamer writes to stderr.
        if is_json && line.starts_with('{') {
            let line: Value = serde_json::from_str(line).unwrap();
            *kinds.entry(line["message"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    for (message, count) in kinds {
        assert!(count <= 60, "{count} lines with {message:?}");
    }
    log.lines().count()
}

fn start(site: &Site, broker: &str, model: &Value, source: &str, format: &str) -> Daemon {
    let model = site.scripted_model(model).display().to_string();
    let arguments = [
        "--log-format",
        format,
        "--model",
        &model,
        "--gst",
        source,
        "--unthrottled",
    ];
    let more = [
        "--set",
        "iotcore_backoff=1",
        "--set",
        "ei_shutdown_behavior=wait_for_restart",
    ];
    site.run(broker, &[&arguments[..], &more[..]].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_commands_writes_few_lines() {
    for format in ["json", "text"] {
        let (site, broker) = (Site::new(), MockBroker::start(Behaviour::default()).await);
        let daemon = start(&site, &broker.url(), &script(&[]), &frames(1), format);
        daemon.wait_for_line("The source ended");
        let status = |log: &[crate::support::broker::Entry]| {
            let topic = log.iter().filter_map(|entry| entry.published());
            let mut topics = topic.map(|publish| publish.topic.clone());
            topics.find(|topic| topic.ends_with("/command/output"))
        };
        broker.wait_for("a notice", LIMIT, |log| status(log).is_some()).await;
        let input = status(&broker.log()).unwrap().replace("/output", "/input");
        let send = |payload: Vec<u8>| broker.publish(&input, payload, false, false, QoS::AtMostOnce);
        let rounds = 1500;
        for number in 0..rounds {
            let name = hostile(number);
            send(json!({"cmd": name, "value": name}).to_string().into_bytes());
            send(format!("not JSON {name}").into_bytes());
            send(
                json!({"cmd": "set_events_config", "value": format!("{{\"{name}\": {name}}}")})
                    .to_string()
                    .into_bytes(),
            );
            send(
                json!({"cmd": "set_threshold_filter_confidence", "value": name})
                    .to_string()
                    .into_bytes(),
            );
            send(
                format!(
                    "{{\"cmd\":\"set_threshold_filter_confidence\",\"value\":1{}}}",
                    "0".repeat(300)
                )
                .into_bytes(),
            );
            if number % 100 == 99 {
                // The answers are not waited for: the daemon refuses what it cannot execute in time.
                tokio::task::yield_now().await;
            }
        }
        // The last one is answered, so all of them have arrived.
        let answered = async {
            loop {
                send(br#"{"cmd":"get_model_info"}"#.to_vec());
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                let answers = broker.published(&input.replace("/input", "/output"));
                if answers.iter().any(|answer| answer.contains("\"model_info\":{")) {
                    return answers;
                }
            }
        };
        let answers = tokio::time::timeout(LIMIT, answered).await.expect("an answer");
        for answer in &answers {
            assert!(
                !answer.contains('\u{202e}') && !answer.contains(&"9".repeat(100)),
                "{answer}"
            );
        }
        let lines = check_log(&daemon.stop(), format == "json");
        assert!(lines < 400, "{lines} lines");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_says_fills_no_log() {
    let found = |number: usize| json!({"bounding_boxes": [{"label": hostile(number), "value": 0.9, "x": 1, "y": 2, "width": 3, "height": 4}]});
    let failing = |number: usize| json!({"error": hostile(number)});
    let answers: Vec<_> = (0..300)
        .map(|number| {
            if number % 3 == 0 {
                failing(number)
            } else {
                found(number)
            }
        })
        .collect();
    for format in ["json", "text"] {
        let (site, broker) = (Site::new(), MockBroker::start(Behaviour::default()).await);
        let mut model = script(&answers);
        model["repeat"] = "cycle".into();
        model["hello"]["project"] = json!({"name": hostile(0), "owner": hostile(1), "deploy_version": 1, "id": 1});
        model["stdout"] = (0..500).map(hostile).collect::<Vec<_>>().into();
        model["stderr"] = model["stdout"].clone();
        let daemon = start(&site, &broker.url(), &model, &frames(900), format);
        daemon.wait_for_line("The source ended");
        let lines = check_log(&daemon.stop(), format == "json");
        assert!(lines < 300, "{lines} lines");
    }
}
