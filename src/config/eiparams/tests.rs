use proptest::prelude::*;

use super::*;

fn warned(text: &str) -> Warning {
    let mut params = parse(text);
    assert_eq!(params.warnings.len(), 1, "{text}: {:?}", params.warnings);
    params.warnings.remove(0)
}

#[test]
fn every_option_of_the_runner_is_honoured() {
    let params = parse(
        "--greengrass --verbose --model-file '/opt/my model.eim' --force-target runner-linux-aarch64 --force-engine tflite \
         --force-variant float32 --impulse-id 7 --thresholds 4.min_anomaly_score=35,5.min_score=0.5 \
         --force-resize-mode fit-longest --force-camera-resolution 640,480 --camera /dev/video2 --microphone hw:1 \
         --gst-launch-args \"videotestsrc ! jpegenc\" --preview-port 8080 --preview-host 127.0.0.1 \
         --preview-original-resolution --dont-print-predictions --shm-behavior never --run-http-server 8000 \
         --camera-color-format YUY2 --enable-camera --api-key ei_hush",
    );
    assert_eq!(params.warnings, []);
    assert_eq!(params.model, Some(ModelSource::File("/opt/my model.eim".into())));
    assert_eq!(params.gst, Some(SourceLine("videotestsrc ! jpegenc".to_owned())));
    assert_eq!(
        (params.preview_port, params.preview_host.as_deref()),
        (Some(8080), Some("127.0.0.1"))
    );
    let threshold = |id, key: &str, value| Threshold {
        id,
        key: key.to_owned(),
        value,
    };
    let expected = RunnerOptions {
        thresholds: vec![threshold(4, "min_anomaly_score", 35.0), threshold(5, "min_score", 0.5)],
        resize_mode: Some(ResizeMode::FitLongest),
        camera_resolution: Some((640, 480)),
        shm: ShmBehavior::Never,
        verbosity: Verbosity::Verbose,
        quiet_predictions: true,
        force_target: Some("runner-linux-aarch64".to_owned()),
        force_engine: Some("tflite".to_owned()),
        force_variant: Some("float32".to_owned()),
        impulse_id: Some(7),
        camera: Some("/dev/video2".to_owned()),
        enable_camera: true,
        microphone: Some("hw:1".to_owned()),
        camera_color_format: Some("YUY2".to_owned()),
        preview_original_resolution: true,
        http_server: Some(8000),
        api_key: Some(Secret::new("ei_hush")),
        disable_camera: false,
        disable_microphone: false,
    };
    assert_eq!(params.options, expected);
    assert_eq!(params.applied.len(), 22);
}

#[test]
fn the_options_of_the_data_collection_are_honoured_and_its_key_is_not_shown() {
    let params = parse(
        "--disable-camera --disable-microphone --height 720 --width 1280 --hmac-key hush --dont-prompt-for-device-name",
    );
    assert_eq!(params.warnings, []);
    assert!(params.options.disable_camera && params.options.disable_microphone);
    assert_eq!(params.options.camera_resolution, Some((1280, 720)));
    assert!(!params.shown.contains("hush") && !format!("{:?}", params.applied).contains("hush"));
    assert_eq!(parse("--width 1280").options.camera_resolution, None);
    assert_eq!(
        parse("--fake-camera /opt/a.jpg").gst,
        Some(SourceLine(
            "multifilesrc location=\"/opt/a.jpg\" loop=true caps=\"image/jpeg,framerate=10/1\" ! jpegdec".to_owned()
        ))
    );
    assert_eq!(warned("--fake-camera 'a\"b.jpg'").key, "eiparams --fake-camera");
}

#[test]
fn monitoring_is_switched_on_by_the_option_alone_or_with_a_value() {
    for (text, is_on) in [
        ("--monitor", true),
        ("--monitor true", true),
        ("--monitor=true", true),
        ("--monitor --silent", true),
        ("--monitor=yes", true),
        ("--monitor false", false),
        ("--monitor=false", false),
        ("--monitor=FALSE", false),
        ("--monitor --monitor=false", false),
    ] {
        let params = parse(text);
        assert_eq!(params.monitor.is_on, Some(is_on), "{text}");
        assert_eq!(params.warnings, [], "{text}");
    }
    for text in ["--monitor maybe", "--monitor=", "--monitor=2"] {
        let warning = warned(text);
        assert_eq!(warning.key, "eiparams --monitor", "{text}");
        assert!(warning.accepted.contains("true, false"), "{text}: {}", warning.accepted);
        assert_eq!(parse(text).monitor.is_on, None, "{text}");
    }
}

#[test]
fn size_and_interval_of_the_monitoring_are_read_with_and_without_an_equals_sign() {
    for text in [
        "--monitor-max-storage-size 500 --monitor-summary-interval-ms 120000",
        "--monitor-max-storage-size=500 --monitor-summary-interval-ms=120000",
    ] {
        let params = parse(text);
        assert_eq!(params.warnings, [], "{text}");
        assert_eq!(params.monitor.max_storage_bytes, Some(500 << 20));
        assert_eq!(params.monitor.summary_interval, Some(Duration::from_secs(120)));
    }
    for option in [
        "--monitor-max-storage-size 0",
        "--monitor-max-storage-size x",
        "--monitor-summary-interval-ms 59999",
        "--monitor-summary-interval-ms=-1",
        "--monitor-summary-interval-ms",
    ] {
        let warning = warned(option);
        let name = option.split([' ', '=']).next().unwrap();
        assert_eq!(warning.key, format!("eiparams {name}"));
        assert!(warning.accepted.contains("from"), "{option}");
    }
}

#[test]
fn a_forced_variant_wins_over_quantized_in_either_order() {
    for text in [
        "--force-variant float32 --quantized",
        "--quantized --force-variant float32",
    ] {
        assert_eq!(parse(text).options.force_variant.as_deref(), Some("float32"), "{text}");
    }
}

#[test]
fn an_option_may_be_joined_to_its_value() {
    let params =
        parse("--silent --model-file=builtin:ball --thresholds=4.min_score=0.5 --quantized --mode=http-server");
    assert_eq!(params.warnings, []);
    assert_eq!(params.model, Some(ModelSource::Builtin("ball".to_owned())));
    assert_eq!(params.options.thresholds.len(), 1);
    assert_eq!(params.options.force_variant.as_deref(), Some("int8"));
    assert_eq!(params.options.http_server, Some(1337));
    assert_eq!(params.options.verbosity, Verbosity::Silent);
    assert_eq!(params.applied[1].option, "--model-file=builtin:ball");
}

#[test]
fn the_port_of_the_http_server_wins_over_the_mode_in_either_order() {
    assert_eq!(
        parse("--mode http-server --run-http-server 80").options.http_server,
        Some(80)
    );
    assert_eq!(
        parse("--run-http-server 80 --mode http-server").options.http_server,
        Some(80)
    );
}

#[test]
fn unknown_options_are_warned_of_by_name_and_swallow_one_value() {
    let params = parse("--telemetry true --clean --dev --silent --frobnicate=hush --clean");
    let names: Vec<&str> = params.warnings.iter().map(|w| w.key.as_str()).collect();
    assert_eq!(
        names,
        [
            "eiparams --telemetry",
            "eiparams --clean",
            "eiparams --dev",
            "eiparams --frobnicate"
        ]
    );
    assert_eq!(params.options.verbosity, Verbosity::Silent);
    let shown = format!("{:?} {}", params.warnings, params.shown);
    assert!(!shown.contains("hush") && !shown.contains("true"), "{shown}");
}

#[test]
fn a_bad_value_is_one_warning_and_changes_nothing() {
    for text in [
        "--shm-behavior maybe",
        "--preview-port 99999",
        "--thresholds x",
        "--thresholds 4.min_score=NaN",
        "--force-resize-mode big",
        "--force-camera-resolution 0,480",
        "--force-camera-resolution 640",
        "--impulse-id -1",
        "--mode studio",
        "--run-http-server x",
        "--preview-host 'a b'",
        "--camera",
        "--camera --api-key=x",
        "--model-file builtin:",
        "--silent=yes",
        "stray",
        "--silent stray words",
    ] {
        let warning = warned(text);
        assert!(warning.key.starts_with("eiparams"), "{text}: {warning}");
    }
    assert_eq!(
        parse("--shm-behavior maybe --preview-port 99999 --thresholds x").options,
        RunnerOptions::default()
    );
    assert!(warned("--preview-port 99999").to_string().contains("99999"));
}

#[test]
fn an_open_quote_is_a_warning_and_the_text_is_split_at_its_blanks() {
    let params = parse("--silent --camera \"front door");
    assert_eq!(
        params.warnings.len(),
        2,
        "the quote, and the stray word: {:?}",
        params.warnings
    );
    assert_eq!(params.options.verbosity, Verbosity::Silent);
    assert_eq!(
        warned("--camera \"door").value,
        "a text with a quote that is not closed"
    );
}

#[test]
fn a_secret_is_in_nothing_that_is_shown() {
    for text in [
        "--api-key hush",
        "--api-key=hush",
        "--api-key 'hush hush' hush",
        "--api-key \"hush hush",
        "--apikey hush",
        "--api-key:hush",
        "--gst-launch-args 'rtspsrc location=rtsp://me:hush@h/x user-pw=hush'",
        "--hmac-key hush --silent hush",
    ] {
        let params = parse(text);
        let shown = format!("{params:?}");
        assert!(!shown.contains("hush"), "{text}: {shown}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read(text in "(?s)(--[a-z-]{1,12}[= ]|[ -~\n]{0,6}){0,12}") {
        parse(&text);
    }

    #[test]
    fn any_value_of_any_option_is_read_and_an_api_key_is_never_shown(value in "[ -~ü\n]{0,20}") {
        for option in &OPTIONS {
            let params = parse(&shlex::try_join([option.name, &value]).unwrap());
            prop_assert!(params.warnings.len() <= 1 || option.accepted.is_none());
        }
        let key = format!("S3CRET{value}");
        let params = parse(&shlex::try_join(["--api-key", &key, "--silent"]).unwrap());
        let shown = format!("{params:?}");
        prop_assert!(!shown.contains("S3CRET"), "{}", shown);
    }
}
