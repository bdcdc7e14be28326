//! What holds for any value of any key.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[test]
fn no_secret_is_in_anything_that_can_be_printed() {
    let config = json!({
        "preview_token": "hush",
        "preview_tokn": "hush",
        "iot_endpoint": "mqtts://me:hush@broker:8883",
        "gst_args": "rtspsrc:location=rtsp://me:hush@cam/1:!:decodebin",
        "eiparams": "--api-key hush --gst-launch-args 'rtspsrc user-pw=hush'",
    });
    let loaded = loaded(&config.to_string());
    assert!(!format!("{loaded:?}").contains("hush"), "{loaded:#?}");
    assert!(
        loaded.config.broker.as_ref().unwrap().contains("hush"),
        "the broker itself gets the password"
    );
    let mut sources =
        sources(r#"{"preview_token": ["hush"], "eiparams": {"--api-key": "hush"}, "iot_endpoint": "x://me:hush@h"}"#);
    sources.mqtt = Some("wss://me:hush@h".to_owned());
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.warnings.len(), 2);
    assert!(!format!("{loaded:?}").contains("hush"), "{loaded:#?}");
    let exposed = |sources: &Sources| load(sources).unwrap().notes.last().cloned().unwrap_or_default();
    assert!(exposed(&sources).starts_with("--mqtt holds a password"));
    sources.sets = vec![("preview_token".to_owned(), "hush".to_owned())];
    assert!(exposed(&sources).starts_with("--set preview_token holds a password or a token"));
    sources.sets = vec![("eiparams".to_owned(), "--greengrass".to_owned())];
    sources.mqtt = Some("wss://h".to_owned());
    assert!(!exposed(&sources).contains("cmdline"));
    sources.mqtt = Some("http://me:hush@h".to_owned());
    let refused = load(&sources).unwrap_err().to_string();
    assert!(
        refused.starts_with("--mqtt http://me:***@h cannot be used; accepted is a host name"),
        "{refused}"
    );
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|x| json!(x)),
        "(?s).{0,20}".prop_map(Value::from),
        "-?[0-9]{1,25}(\\.[0-9]{0,20})?(e-?[0-9]{1,4})?".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec(("[a-z]{0,4}", inner), 0..3).prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_value_of_any_key_yields_a_configuration_with_at_most_one_warning(value in any_value()) {
        for key in KEYS.iter().filter(|key| !["launch", "eiparams"].contains(&key.name)) {
            let Ok(loaded) = load(&sources(&json!({ key.name: value }).to_string())) else {
                prop_assert_eq!(key.name, "iot_endpoint", "any other key falls back to its default");
                continue;
            };
            prop_assert!(loaded.warnings.len() <= 1, "{}: {:?}", key.name, loaded.warnings);
            let config = &loaded.config;
            prop_assert!(config.filter.threshold() > 0.0 && config.filter.threshold() <= 1.0);
            prop_assert!(config.iotcore_backoff >= 1 && !config.sleep_time.is_zero());
            prop_assert!(config.metrics_interval > Duration::from_millis(100));
            for entry in &loaded.entries {
                prop_assert!(entry.value != "__none__");
            }
        }
    }

    #[test]
    fn any_value_of_a_secret_key_stays_unseen(value in any_value(), key in "(preview_token|preview_tokens|Preview-Token|api_key)") {
        let secret = json!(["S3CRET", value]);
        for value in [secret.clone(), json!(secret.to_string())] {
            let loaded = with(&key, value);
            prop_assert!(!format!("{loaded:?}").contains("S3CRET"), "{:?}", loaded);
        }
    }

    #[test]
    fn the_password_of_any_broker_stays_unseen(password in "[!-~]{0,12}", scheme in "(mqtt|wss|http|)") {
        let url = format!("{scheme}://me:S3CRET{password}@host:1883");
        let text = json!({ "iot_endpoint": url }).to_string();
        let shown = match load(&sources(&text)) {
            Ok(loaded) => format!("{loaded:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!shown.contains("S3CRET"), "{}", shown);
    }

    #[test]
    fn any_text_is_a_configuration_or_an_error(text in "(?s).{0,80}") {
        if let Err(error) = load(&sources(&text)) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
