//! Keys of one part each: caches, certificates, microphone, collection, monitoring, model updates.

use std::time::Duration;

use serde_json::json;

use super::*;

#[test]
fn a_channel_of_the_microphone_is_a_word_or_a_number() {
    for (value, channel, warnings) in [
        (json!("Mix"), MicrophoneChannel::Mix, 0),
        (json!("auto"), MicrophoneChannel::Auto, 0),
        (json!(3), MicrophoneChannel::Number(3), 0),
        (json!("3.0"), MicrophoneChannel::Number(3), 0),
        (json!(0), MicrophoneChannel::Auto, 1),
        (json!("left"), MicrophoneChannel::Auto, 1),
    ] {
        let loaded = with("microphone_channel", value.clone());
        assert_eq!(
            (loaded.config.microphone_channel, loaded.warnings.len()),
            (channel, warnings),
            "{value}"
        );
    }
    assert_eq!(
        with("still_interval_ms", json!("250")).config.still_interval,
        Duration::from_millis(250)
    );
}

#[test]
fn the_keys_of_model_updates_are_read_and_a_digest_that_is_none_accepts_no_file() {
    let digest = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
    let text = json!({"model_poll_minutes": "15", "model_trial_inferences": 1, "model_probation_minutes": 0, "model_sha256": digest});
    let loaded = loaded(&text.to_string());
    assert_eq!(loaded.warnings, []);
    let expected = ModelUpdateConfig {
        poll: Some(Duration::from_secs(900)),
        trial_inferences: 1,
        probation: Duration::ZERO,
        sha256: Some(digest.to_ascii_lowercase()),
    };
    assert_eq!(loaded.config.model_updates, expected);
    for value in [
        json!("abc"),
        json!(7),
        json!(format!("{digest}0")),
        json!("g".repeat(64)),
    ] {
        let loaded = with("model_sha256", value.clone());
        assert_eq!(loaded.warnings.len(), 1, "{value}");
        let used = loaded.config.model_updates.sha256;
        assert!(used.is_some_and(|used| used.len() < 64), "no file is accepted: {value}");
    }
    for (key, value) in [
        ("model_poll_minutes", -1),
        ("model_trial_inferences", 0),
        ("model_probation_minutes", 99_999),
    ] {
        let loaded = with(key, json!(value));
        assert_eq!(
            (loaded.warnings.len(), loaded.config.model_updates),
            (1, documented_defaults().model_updates),
            "{key}"
        );
    }
}

#[test]
fn the_sandbox_of_the_model_is_a_word_and_allows_absolute_paths() {
    for (mode, expected) in [
        ("Strict", SandboxMode::Strict),
        ("off", SandboxMode::Off),
        ("auto", SandboxMode::Auto),
    ] {
        let loaded = with("model_sandbox", json!(mode));
        assert_eq!((loaded.config.model_sandbox.mode, loaded.warnings.len()), (expected, 0));
    }
    let wrong = with("model_sandbox", json!("none"));
    assert_eq!(
        (wrong.config.model_sandbox.mode, wrong.warnings.len()),
        (SandboxMode::Auto, 1)
    );
    for value in [
        json!(["/dev/npu0", "/srv/a b"]),
        json!("/dev/npu0:/srv/a b"),
        json!(" /dev/npu0 : /srv/a b: "),
    ] {
        let loaded = with("model_allow", value.clone());
        let expected: [PathBuf; 2] = ["/dev/npu0".into(), "/srv/a b".into()];
        assert_eq!(loaded.config.model_sandbox.allow, expected, "{value}");
        assert_eq!(loaded.warnings, []);
    }
    for value in [
        json!("dev/npu0"),
        json!(["/dev/npu0", "x"]),
        json!({"path": "/"}),
        json!([7]),
    ] {
        let loaded = with("model_allow", value.clone());
        assert_eq!(loaded.config.model_sandbox.allow, Vec::<PathBuf>::new(), "{value}");
        assert_eq!(loaded.warnings.len(), 1, "{value}");
    }
}

#[test]
fn the_keys_of_collected_frames_are_read_and_off_without_a_trigger() {
    let text = json!({
        "collect_uncertain": "0.4-0.6", "collect_per_hour": "3", "collect_every_minutes": 60, "collect_category": "Testing",
        "collect_mb_per_day": 5,
    });
    let loaded = loaded(&text.to_string());
    assert_eq!(loaded.warnings, []);
    let expected = FrameCollectionConfig {
        band: Some(ValueBand { low: 0.4, high: 0.6 }),
        per_hour: 3,
        every: Some(Duration::from_secs(3600)),
        category: SampleCategory::Testing,
        bytes_per_day: 5 << 20,
    };
    assert_eq!(loaded.config.frame_collection, Some(expected));
    assert!(!loaded.config.wants_studio_channel(), "uploads need no channel");

    let only_regular = with("collect_every_minutes", json!(5)).config.frame_collection.unwrap();
    assert_eq!((only_regular.band, only_regular.per_hour), (None, 10));
    let defaults = with("collect_uncertain", json!("0.3-0.7"))
        .config
        .frame_collection
        .unwrap();
    assert_eq!(
        (defaults.every, defaults.category, defaults.bytes_per_day),
        (None, SampleCategory::Training, 20 << 20)
    );
    for text in [
        r#"{"collect_uncertain": false}"#,
        r#"{"collect_per_hour": 5, "collect_category": "testing"}"#,
        r#"{"launch": "linux", "collect_uncertain": "0.4-0.6"}"#,
    ] {
        let loaded = self::loaded(text);
        assert_eq!(
            (loaded.config.frame_collection, loaded.warnings),
            (None, vec![]),
            "{text}"
        );
    }
}

#[test]
fn a_band_that_cannot_be_meant_is_off_and_its_warning_says_what_is_wrong() {
    for (value, part) in [
        (json!("40-60"), "0.4-0.6"),
        (json!("0,4-0,6"), "0.4-0.6"),
        (json!("0.6-0.4"), "0.4-0.6"),
        (json!(0.5), "one value"),
        (json!(true), "no band"),
        (json!([0.4, 0.6]), "low-high"),
    ] {
        let loaded = with("collect_uncertain", value.clone());
        assert_eq!(loaded.config.frame_collection, None, "{value}");
        let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
        assert!(warnings.len() == 1 && warnings[0].contains(part), "{warnings:?}");
    }
    for (key, value) in [
        ("collect_per_hour", json!(-1)),
        ("collect_category", json!("train")),
        ("collect_mb_per_day", json!(0)),
    ] {
        assert_eq!(with(key, value).warnings.len(), 1, "{key}");
    }
}

#[test]
fn a_cache_without_a_place_is_a_warning_and_off() {
    for (switch, key) in [
        ("enable_cache_to_file", "cache_file_directory"),
        ("enable_cache_to_s3", "s3_bucket"),
    ] {
        let off = with(switch, json!("yes"));
        assert_eq!(
            (off.config.file_cache.is_some(), off.config.s3_cache_bucket.is_some()),
            (false, false)
        );
        assert_eq!(off.warnings.len(), 1, "{:?}", off.warnings);
        assert!(off.warnings[0].to_string().contains(key), "{}", off.warnings[0]);
        assert_eq!(get(&off, switch).as_deref(), Some("no"));
    }
    let on = loaded(
        r#"{"enable_cache_to_file":"yes","cache_file_directory":"/c","cache_file_max_mb":2,"enable_cache_to_s3":true,"s3_bucket":"bucket"}"#,
    );
    assert_eq!(
        on.config.file_cache,
        Some(FileCacheConfig {
            directory: "/c".into(),
            max_bytes: 2 << 20
        })
    );
    let bucket = on.config.s3_cache_bucket.map(|bucket| bucket.to_string());
    assert_eq!(bucket.as_deref(), Some("bucket"));
    assert_eq!(on.warnings, []);
}

#[test]
fn a_bucket_that_s3_can_never_have_is_refused_with_the_reason() {
    let on = sources(r#"{"enable_cache_to_s3":true,"s3_bucket":"MyS3Bucket123"}"#);
    let off = with("s3_bucket", json!("MyS3Bucket123"));
    assert_eq!(off.config.s3_cache_bucket, None);
    for text in [load(&on).unwrap_err().to_string(), off.warnings[0].to_string()] {
        assert!(
            text.contains("MyS3Bucket123") && text.contains("capital letters"),
            "{text}"
        );
    }
    let other = with("s3_bucket", json!("s3://my-bucket/site"));
    assert_eq!(get(&other, "s3_bucket").as_deref(), Some("my-bucket/site"));
    assert_eq!(other.warnings, []);
}

#[test]
fn a_place_without_its_cache_says_that_it_has_no_effect() {
    let loaded = loaded(r#"{"cache_file_directory":"/c","s3_bucket":"bucket"}"#);
    assert_eq!(
        (
            loaded.config.file_cache.as_ref(),
            loaded.config.s3_cache_bucket.as_ref()
        ),
        (None, None)
    );
    assert_eq!(loaded.warnings, []);
    let remarks: Vec<_> = loaded
        .entries
        .iter()
        .filter(|e| e.origin == Origin::Config)
        .map(|e| e.remark.is_some())
        .collect();
    assert_eq!(remarks, [true, true]);
}

#[test]
fn inferences_that_are_not_published_are_remarked_where_there_are_no_events() {
    let remark = |text: &str| {
        let loaded = loaded(text);
        let mut entries = loaded.entries.iter();
        let entry = entries.find(|entry| entry.key == "publish_inferences").unwrap();
        entry.remark.is_some()
    };
    let events = json!({"zones": {"all": {"polygon": [[0, 0], [1, 0], [1, 1]]}}, "rules": {"there": {"zone": "all"}}});
    assert!(remark(r#"{"publish_inferences":"no"}"#));
    assert!(!remark(r#"{"publish_inferences":"yes"}"#) && !remark("{}"));
    assert!(!remark(
        &json!({"publish_inferences": "no", "events": events}).to_string()
    ));
}

#[test]
fn certificates_need_both_files() {
    let full = loaded(r#"{"iot_auth":"X509","iot_cert":"c.pem","iot_key":"k.pem"}"#);
    assert_eq!(
        full.config.iot_auth,
        IotAuth::X509 {
            cert: "c.pem".into(),
            key: "k.pem".into(),
            ca: None
        }
    );
    assert_eq!(full.warnings, []);
    let half = loaded(r#"{"iot_auth":"x509","iot_cert":"c.pem"}"#);
    assert_eq!(half.config.iot_auth, IotAuth::SigV4);
    assert_eq!(half.warnings.len(), 1);
    assert!(half.warnings[0].to_string().contains("iot_key"), "{}", half.warnings[0]);
    assert_eq!(get(&half, "iot_auth").as_deref(), Some("sigv4"));
}

fn monitor(text: &str) -> (Option<MonitorConfig>, Vec<String>) {
    let loaded = loaded(text);
    let keys = loaded.warnings.iter().map(|warning| warning.key.clone());
    (loaded.config.monitor, keys.collect())
}

#[test]
fn monitoring_is_off_by_default_and_on_by_key_or_option() {
    let default = MonitorConfig {
        max_storage_bytes: 250 << 20,
        summary_interval: Duration::from_secs(60),
        record_interval: Duration::from_secs(1),
    };
    for (text, expected) in [
        ("{}", None),
        (r#"{"monitor": "yes"}"#, Some(default)),
        (r#"{"monitor": true}"#, Some(default)),
        (r#"{"eiparams": "--greengrass --monitor true"}"#, Some(default)),
        (r#"{"eiparams": "--monitor=false"}"#, None),
        (r#"{"monitor": "no", "eiparams": "--monitor"}"#, None),
        (r#"{"monitor": "yes", "eiparams": "--monitor=false"}"#, Some(default)),
        (
            r#"{"monitor": "yes", "monitor_max_storage_mb": 5, "monitor_record_interval_ms": 200, "eiparams": "--monitor-max-storage-size 7 --monitor-summary-interval-ms 90000"}"#,
            Some(MonitorConfig {
                max_storage_bytes: 5 << 20,
                summary_interval: Duration::from_secs(90),
                record_interval: Duration::from_millis(200),
            }),
        ),
    ] {
        assert_eq!(monitor(text), (expected, vec![]), "{text}");
    }
}

#[test]
fn values_of_the_monitoring_without_monitoring_are_a_warning_and_not_an_error() {
    let (config, warned) =
        monitor(r#"{"monitor_max_storage_mb": 5, "eiparams": "--monitor-summary-interval-ms 90000"}"#);
    assert_eq!(config, None);
    assert_eq!(
        warned,
        ["monitor_max_storage_mb", "eiparams --monitor-summary-interval-ms"]
    );
    let (config, warned) = monitor(r#"{"launch": "linux", "monitor": "yes"}"#);
    assert_eq!((config, warned), (None, vec!["monitor".to_owned()]));
    let (config, warned) =
        monitor(r#"{"monitor": "yes", "monitor_summary_interval_ms": 1000, "monitor_record_interval_ms": 0}"#);
    assert_eq!(config.unwrap().summary_interval, Duration::from_secs(60));
    assert_eq!(warned, ["monitor_summary_interval_ms", "monitor_record_interval_ms"]);
}
