use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;

mod any_value;
mod parts;

fn sources(text: &str) -> Sources {
    Sources {
        text: Some((TextOrigin::Environment, text.to_owned())),
        current_dir: "/work-dir".into(),
        ..Sources::default()
    }
}

fn loaded(text: &str) -> Loaded {
    load(&sources(text)).unwrap()
}

/// Loads one key with one value.
fn with(key: &str, value: Value) -> Loaded {
    loaded(&json!({ key: value }).to_string())
}

/// The configuration of the documentation's defaults.
fn documented_defaults() -> Config {
    Config {
        device_name: "MyEdgeImpulseDevice".to_owned(),
        launch: Launch::Runner,
        sleep_time: Duration::from_secs(10),
        lock_filename: "/tmp/ei_lockfile_runner".into(),
        source: None,
        still_interval: Duration::from_secs(1),
        microphone_channel: MicrophoneChannel::Auto,
        iotcore_backoff: 5,
        qos: Qos::AtLeastOnce,
        ei_bindir: "/usr/local/bin".into(),
        secret_id: "EI_API_KEY".to_owned(),
        secret_name: "ei_api_key".to_owned(),
        model: None,
        shutdown_behavior: ShutdownBehavior::Restart,
        publish_image: false,
        events: None,
        publish_inferences: true,
        file_cache: None,
        s3_cache_bucket: None,
        event_clip: None,
        filter: FilterConfig {
            enabled: false,
            given: 0.7,
            scores_are_probabilities: None,
            criteria: Criteria::GreaterOrEqual,
        },
        metrics_interval: Duration::from_secs(30),
        user_groups: "video audio input users".to_owned(),
        install_kvssink: false,
        broker: None,
        iot_auth: IotAuth::SigV4,
        spool_max_bytes: 64 << 20,
        work_dir: "/work-dir".into(),
        local_topics: false,
        collect: false,
        frame_collection: None,
        monitor: None,
        model_updates: ModelUpdateConfig {
            poll: None,
            trial_inferences: 30,
            probation: Duration::from_secs(600),
            sha256: None,
        },
        model_sandbox: ModelSandboxConfig::default(),
        preview: PreviewConfig {
            enabled: true,
            host: "0.0.0.0".to_owned(),
            port: 4912,
            token: None,
        },
        runner: RunnerOptions::default(),
    }
}

#[test]
fn the_tutorials_configuration_gives_the_documented_defaults_without_a_warning() {
    let text = include_str!("../../tests/data/tutorial-config.json");
    let loaded = loaded(text);
    let mut expected = documented_defaults();
    expected.filter.given = 50.0;
    assert_eq!(loaded.config.filter.threshold(), 0.5);
    assert_eq!(loaded.config, expected);
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.notes.len(), 1);
    assert!(
        loaded.notes[0].contains("50") && loaded.notes[0].contains("percentage"),
        "{:?}",
        loaded.notes
    );
}

#[test]
fn nothing_at_all_and_the_tables_own_defaults_give_the_documented_defaults() {
    let nothing = load(&Sources {
        current_dir: "/work-dir".into(),
        ..Sources::default()
    })
    .unwrap();
    assert_eq!(nothing.config, documented_defaults());
    let table: serde_json::Map<_, _> = defaults().map(|(key, value)| (key.to_owned(), value)).collect();
    let table = loaded(&Value::Object(table).to_string());
    assert_eq!(table.config, documented_defaults());
    assert_eq!(
        (table.warnings.len(), table.notes.len()),
        (0, 0),
        "{:?} {:?}",
        table.warnings,
        table.notes
    );
}

#[test]
fn numbers_as_greengrass_lite_writes_them_are_read() {
    let typed = r#"{"default_threshold":50.000000000000000,"sleep_time_sec":10.000000000000000,"iotcore_backoff":5.000000000000000,"iotcore_qos":0.000000000000000,"metrics_sleeptime_ms":30000.000000000000000,"preview_port":4913.000000000000000}"#;
    let text = r#"{"default_threshold":"50.000000000000000","sleep_time_sec":"10","iotcore_backoff":"5","iotcore_qos":"0.0","metrics_sleeptime_ms":"30000","preview_port":"4913"}"#;
    let (typed, text) = (loaded(typed), loaded(text));
    assert_eq!(typed.warnings, []);
    assert_eq!(typed.config, text.config);
    assert_eq!(typed.config.preview.port, 4913);
    assert_eq!(typed.config.qos, Qos::AtMostOnce);
}

#[test]
fn every_key_is_listed_once_in_the_order_of_the_table_with_its_origin() {
    let mut sources = sources(r#"{"iotcore_qos": 0, "preview_port": 1, "iotcore_backoff": "x"}"#);
    sources.sets = vec![
        parse_set("preview_port=5000").unwrap(),
        parse_set("cache_file_max_mb=7").unwrap(),
    ];
    sources.model = Some("/m.eim".to_owned());
    sources.mqtt = Some("mqtt://h".to_owned());
    sources.gst = Some("videotestsrc".to_owned());
    let loaded = load(&sources).unwrap();
    let keys: Vec<_> = loaded.entries.iter().map(|entry| entry.key).collect();
    assert_eq!(keys, KEYS.map(|key| key.name));
    let entry = |key: &str| {
        let entry = loaded.entries.iter().find(|entry| entry.key == key).unwrap();
        (entry.value.as_str(), entry.origin.to_string())
    };
    assert_eq!(entry("iotcore_qos"), ("0", "config".to_owned()));
    assert_eq!(entry("preview_port"), ("5000", "--set".to_owned()));
    assert_eq!(entry("ei_local_model_file"), ("/m.eim", "--model".to_owned()));
    assert_eq!(entry("iot_endpoint"), ("mqtt://h", "--mqtt".to_owned()));
    assert_eq!(entry("gst_args"), ("videotestsrc", "--gst".to_owned()));
    assert_eq!(entry("iotcore_backoff"), ("5", "default".to_owned()));
    assert_eq!(entry("work_dir"), ("/work-dir", "default".to_owned()));
    assert_eq!(loaded.config.source, Some(SourceLine("videotestsrc".to_owned())));
}

#[test]
fn a_later_layer_wins_and_can_take_a_value_away() {
    let mut sources = sources(r#"{"ei_local_model_file": "/a.eim", "gst_args": "a:!:b", "s3_bucket": "bucket"}"#);
    sources.sets = vec![
        ("ei_local_model_file".into(), "/b.eim".into()),
        ("gst_args".into(), "__none__".into()),
    ];
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.config.model, Some(ModelSource::File("/b.eim".into())));
    assert_eq!(loaded.config.source, None);
    sources.model = Some("builtin:ball".to_owned());
    assert_eq!(
        load(&sources).unwrap().config.model,
        Some(ModelSource::Builtin("ball".to_owned()))
    );
}

#[test]
fn a_threshold_that_is_no_probability_is_kept_for_models_with_other_scores() {
    for (value, given) in [(json!(101), 101.0), (json!(0), 0.0), (json!("-2.5"), -2.5)] {
        let loaded = with("default_threshold", value);
        assert_eq!(
            loaded.warnings,
            [],
            "whether it can be used is known with the model only"
        );
        assert!(loaded.notes[0].contains("regression or anomaly"), "{:?}", loaded.notes);
        let mut filter = loaded.config.filter;
        assert_eq!((filter.given, filter.warning().is_some()), (given, true));
        filter.scores_are_probabilities = Some(false);
        assert_eq!((filter.threshold(), filter.warning()), (given, None));
        filter.scores_are_probabilities = Some(true);
        let warning = filter.warning().expect("a warning").to_string();
        let start = format!("`default_threshold` is {given}; accepted: a number above 0: up to 1 it is a fraction");
        assert!(
            warning.starts_with(&start) && warning.ends_with("used instead: 0.7"),
            "{warning}"
        );
        assert_eq!(filter.threshold(), 0.7);
    }
}

#[test]
fn a_value_that_is_not_accepted_is_one_warning_that_names_four_things_and_the_default() {
    for (key, value, shown, accepted, used) in [
        ("iotcore_qos", json!(7), "7", "0 or 1", "1"),
        ("iotcore_qos", json!("2"), "\"2\"", "0 or 1", "1"),
        ("sleep_time_sec", json!(0), "0", "86400", "10"),
        ("sleep_time_sec", json!("1e30"), "1e30", "86400", "10"),
        ("sleep_time_sec", json!(true), "true", "seconds", "10"),
        ("default_threshold", json!("NaN"), "NaN", "percentage", "0.7"),
        ("default_threshold", json!("much"), "much", "fraction", "0.7"),
        (
            "threshold_criteria",
            json!("about"),
            "about",
            "gt, ge, eq, le, lt",
            "ge",
        ),
        ("metrics_sleeptime_ms", json!(100), "100", "above 100", "60000"),
        ("metrics_sleeptime_ms", json!("-1"), "-1", "above 100", "60000"),
        ("metrics_sleeptime_ms", json!("x"), "x", "above 100", "30000"),
        (
            "publish_inference_base64_image",
            json!("maybe"),
            "maybe",
            "yes or no",
            "no",
        ),
        ("device_name", json!(["a"]), "[\"a\"]", "text", "MyEdgeImpulseDevice"),
        (
            "iotcore_backoff",
            json!(4_294_967_296_u64),
            "4294967296",
            "integer",
            "5",
        ),
        (
            "ei_shutdown_behavior",
            json!("explode"),
            "explode",
            "wait_for_restart",
            "none",
        ),
        ("preview_port", json!(65536), "65536", "65535", "4912"),
        ("cache_file_max_mb", json!(-5), "-5", "MiB", "1024"),
        ("work_dir", json!("a\u{0}b"), "a\\0b", "path", "none"),
    ] {
        let loaded = with(key, value);
        assert_eq!(loaded.warnings.len(), 1, "{key}: {:?}", loaded.warnings);
        let text = loaded.warnings[0].to_string();
        assert!(!text.contains('\n'), "{text}");
        for part in [key, shown, accepted] {
            assert!(text.contains(part), "`{part}` in {text}");
        }
        assert_eq!(loaded.warnings[0].used, used, "{text}");
    }
}

#[test]
fn what_is_no_address_of_a_broker_is_an_error() {
    for address in [
        json!("http://h"),
        json!("amqp://me:hush@h"),
        json!("mqtt:///path"),
        json!("mqttt://h"),
        json!("two words"),
        json!("localhost:1883"),
        json!("me:hush@h:8883"),
        json!({"host": "h"}),
    ] {
        let text = json!({ "iot_endpoint": address }).to_string();
        let error = load(&sources(&text)).unwrap_err().to_string();
        assert!(
            error.contains("iot_endpoint") && error.contains("accepted is"),
            "{error}"
        );
        assert!(!error.contains("hush"), "{error}");
    }
    let tcp = with("iot_endpoint", json!("tcp://h:1884"));
    assert_eq!(tcp.config.broker.as_deref(), Some("mqtt://h:1884"));
    assert!(tcp.notes.iter().any(|note| note.contains("tcp://")), "{:?}", tcp.notes);
}

#[test]
fn the_arn_of_something_else_is_no_secret_id() {
    for arn in [
        "arn:aws:ssm:eu-west-1:123456789012:parameter/EI_API_KEY",
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:",
        "arn:aws:secretsmanager:::secret:EI_API_KEY",
        "arn:aws:kms:eu-west-1:123456789012:key/1",
    ] {
        let loaded = with("ei_sm_secret_id", json!(arn));
        assert_eq!(
            (loaded.config.secret_id.as_str(), loaded.warnings.len()),
            ("EI_API_KEY", 1),
            "{arn}"
        );
    }
    for id in [
        "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:EI_API_KEY-AbCdEf",
        "arnold/EI_API_KEY",
    ] {
        assert_eq!(with("ei_sm_secret_id", json!(id)).config.secret_id, id);
    }
}

#[test]
fn values_below_one_of_the_backoff_mean_every_one_without_a_word() {
    for value in [json!(1), json!(0), json!("-1"), json!(-100.0)] {
        let loaded = with("iotcore_backoff", value);
        assert_eq!((loaded.config.iotcore_backoff, loaded.warnings.len()), (1, 0));
    }
}

#[test]
fn switches_are_read_in_any_case_and_notation() {
    for value in [json!("YES"), json!("on"), json!(true), json!("True")] {
        assert!(
            with("publish_inference_base64_image", value.clone())
                .config
                .publish_image,
            "{value}"
        );
    }
    for value in [json!("No"), json!("off"), json!(false)] {
        assert!(!with("preview", value.clone()).config.preview.enabled, "{value}");
    }
}

#[test]
fn an_unknown_key_is_one_warning_that_suggests_the_likely_one() {
    let loaded = with("iotcore_qoss", json!(1));
    assert_eq!(loaded.warnings.len(), 1);
    assert!(
        loaded.warnings[0].to_string().contains("did you mean `iotcore_qos`?"),
        "{}",
        loaded.warnings[0]
    );
    let loaded = with("temperature", json!(21));
    assert_eq!(loaded.warnings.len(), 1);
    assert!(
        !loaded.warnings[0].to_string().contains("did you mean"),
        "{}",
        loaded.warnings[0]
    );
}

#[test]
fn keys_of_the_old_component_without_effect_are_accepted_and_say_so() {
    let loaded = loaded(r#"{"node_version": 20, "vips_version": "8", "ei_poll_sleeptime_ms": "2500"}"#);
    assert_eq!(loaded.warnings, []);
    for key in ["node_version", "vips_version", "ei_poll_sleeptime_ms"] {
        let entry = loaded.entries.iter().find(|entry| entry.key == key).unwrap();
        assert!(entry.remark.as_ref().unwrap().contains("no effect"), "{entry:?}");
    }
}

#[test]
fn a_launch_type_that_does_not_exist_ends_the_program_and_names_those_that_do() {
    assert_eq!(with("launch", json!("Linux")).config.launch, Launch::Linux);
    let lock = |text: &str| load(&sources(text)).unwrap().config.lock_filename;
    assert_eq!(lock(r#"{"launch": "linux"}"#), PathBuf::from("/tmp/ei_lockfile_linux"));
    assert_eq!(
        lock(r#"{"launch": "linux", "lock_filename": "/tmp/x"}"#),
        PathBuf::from("/tmp/x")
    );
    for value in [json!("windows"), json!(5)] {
        let error = load(&sources(&json!({"launch": value}).to_string()))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("runner") && error.contains("linux") && error.contains(value.to_string().trim_matches('"')),
            "{error}"
        );
    }
}

#[test]
fn a_set_without_a_value_is_an_error_that_shows_no_more_than_the_key() {
    assert_eq!(parse_set("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
    let error = parse_set("preview_token:hush").unwrap_err().to_string();
    assert!(
        error.contains("preview_token") && error.contains("KEY=VALUE") && !error.contains("hush"),
        "{error}"
    );
    assert!(parse_set("=x").is_err());
}

#[test]
fn keys_win_over_runner_options_that_mean_the_same() {
    let params = "--model-file /e.eim --gst-launch-args 'a ! b' --preview-port 1 --preview-host 127.0.0.1";
    let below = with("eiparams", json!(params));
    assert_eq!(below.warnings, []);
    assert_eq!(below.config.model, Some(ModelSource::File("/e.eim".into())));
    assert_eq!(below.config.source, Some(SourceLine("a ! b".to_owned())));
    assert_eq!(
        (below.config.preview.port, below.config.preview.host.as_str()),
        (1, "127.0.0.1")
    );
    let origins = below
        .entries
        .iter()
        .filter(|entry| entry.origin == Origin::EiParams)
        .count();
    assert_eq!(origins, 4);

    let keys = json!({"eiparams": params, "ei_local_model_file": "/k.eim", "gst_args": "c:!:d", "preview_port": 2, "preview_host": "::"});
    let above = loaded(&keys.to_string());
    assert_eq!(above.config.model, Some(ModelSource::File("/k.eim".into())));
    assert_eq!(above.config.source, Some(SourceLine("c:!:d".to_owned())));
    assert_eq!(
        (above.config.preview.port, above.config.preview.host.as_str()),
        (2, "::")
    );
    assert_eq!(
        above
            .eiparams
            .iter()
            .filter(|option| option.meaning.contains("no effect"))
            .count(),
        4
    );
}

#[test]
fn the_install_script_gets_switches_as_yes_or_no_and_absence_as_empty() {
    let loaded = loaded(r#"{"install_kvssink": true, "ei_ggc_user_groups": "video render", "preview_token": "hush"}"#);
    let get = |key| get(&loaded, key);
    assert_eq!(get("install_kvssink").as_deref(), Some("yes"));
    assert_eq!(get("ei_ggc_user_groups").as_deref(), Some("video render"));
    assert_eq!(get("gst_args").as_deref(), Some(""));
    assert_eq!(get("ei_bindir").as_deref(), Some("/usr/local/bin"));
    assert_eq!(get("preview_token").as_deref(), Some("***"));
    assert_eq!(get("no_such_key"), None);
}

#[test]
fn a_configuration_that_greengrass_did_not_fill_in_is_the_defaults_and_one_warning() {
    let loaded = loaded("{configuration:/Parameters}");
    assert_eq!(loaded.config, documented_defaults());
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn a_known_key_beside_the_parameters_is_a_warning_and_other_sections_are_not() {
    let loaded = loaded(r#"{"Parameters": {"preview": "no"}, "iotcore_qos": 0, "accessControl": {}}"#);
    assert_eq!(loaded.config.qos, Qos::AtLeastOnce);
    assert_eq!(loaded.warnings.len(), 1);
    assert!(
        loaded.warnings[0].to_string().contains("iotcore_qos"),
        "{}",
        loaded.warnings[0]
    );
}

#[test]
fn a_key_given_twice_is_one_warning() {
    let loaded = loaded(r#"{"iotcore_qos": 1, "iotcore_qos": 0}"#);
    assert_eq!((loaded.config.qos, loaded.warnings.len()), (Qos::AtMostOnce, 1));
}
