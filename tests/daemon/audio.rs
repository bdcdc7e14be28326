//! Audio models, from a launch line or an audio file to messages, with exact counts and samples.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::Site;
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::scripts::{classified, hearing, recorded};

const PAUSE: &str = "ei_shutdown_behavior=wait_for_restart";

/// A WAV file of 16-bit mono samples.
fn wav(samples: &[i16], sample_rate: u32) -> Vec<u8> {
    let mut file = b"RIFF____WAVEfmt ".to_vec();
    file.extend(16u32.to_le_bytes());
    file.extend([1, 0, 1, 0]);
    file.extend(sample_rate.to_le_bytes());
    file.extend((sample_rate * 2).to_le_bytes());
    file.extend([2, 0, 16, 0]);
    file.extend(b"data");
    file.extend((samples.len() as u32 * 2).to_le_bytes());
    file.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    let size = file.len() as u32 - 8;
    file[4..8].copy_from_slice(&size.to_le_bytes());
    file
}

/// Samples that differ from each other within a window.
fn ramp(count: usize) -> Vec<i16> {
    (0..count).map(|i| (i as i16).wrapping_mul(7)).collect()
}

struct Played {
    site: Site,
    observer: Observer,
    record: PathBuf,
    metrics: Value,
    log: String,
}

/// Plays a file to its end with a scripted model.
fn play(samples: &[i16], hello: &Value, arguments: &[&str]) -> Played {
    let script = json!({"answers": [classified(0.25), classified(0.75)], "repeat": "cycle"});
    play_script(samples, hello, script, arguments)
}

/// Plays a file to its end with this script.
fn play_script(samples: &[i16], hello: &Value, mut script: Value, arguments: &[&str]) -> Played {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let file = site.write("sound.wav", wav(samples, 16_000));
    let record = site.path().join("record");
    script["hello"] = hello.clone();
    script["record"] = json!(record);
    script["record_at_most"] = json!(100_000);
    let model = site.scripted_model(&script);
    let line = format!("filesrc location={} ! wavparse", file.display());
    let mut all = vec!["--model", model.to_str().unwrap(), "--gst", &line, "--set", PAUSE];
    all.extend(["--set", "iotcore_backoff=1", "--set", "metrics_sleeptime_ms=200"]);
    all.extend(arguments);
    let daemon = site.run(&broker.url(), &all);
    observer.wait_for_status("paused", 1);
    // There is no inference before the first whole window.
    let before_window = usize::from(hello["model_parameters"]["use_continuous_mode"] == true);
    let inferred = classify_requests(&record).len() - before_window;
    let metrics = observer.wait_for("model/metrics", "everything delivered", |metrics| {
        let runner = &metrics["runner"];
        runner["inferences"] == json!(inferred) && runner["delivered"] == runner["published"]
    });
    let log = daemon.stop();
    Played {
        site,
        observer,
        record,
        metrics,
        log,
    }
}

/// The classify requests with their kind and their values.
fn classify_requests(record: &Path) -> Vec<(String, Vec<i16>)> {
    let kinds = [
        "classify",
        "classify_shm",
        "classify_continuous",
        "classify_continuous_shm",
    ];
    let lines = recorded(record);
    let requests = lines.iter().filter_map(|line| {
        let kind = kinds.iter().find(|kind| line.get(**kind).is_some())?;
        let values = line[*kind]["features"].as_array().expect("all values");
        let samples = values.iter().map(|value| value.as_f64().unwrap() as i16).collect();
        Some(((*kind).to_owned(), samples))
    });
    requests.collect()
}

#[test]
fn a_whole_window_is_classified_every_slice_with_exactly_the_samples_of_the_file() {
    let samples = ramp(10_300);
    let played = play(&samples, &hearing(16_000, 4_000, 1_000, false), &["--unthrottled"]);
    let requests = classify_requests(&played.record);
    assert_eq!(requests.len(), 7, "one at 4000 samples and one every 1000 after it");
    for (index, (kind, features)) in requests.iter().enumerate() {
        assert_eq!(kind, "classify_shm");
        let start = index * 1_000;
        assert!(
            features == &samples[start..start + 4_000],
            "window {index} differs from the file"
        );
    }
    let messages = played.observer.all("inference/output");
    assert_eq!(messages.len(), 7);
    let first = messages[0].json();
    assert_eq!(first["c"], json!({"yes": 0.25, "no": 0.75}));
    assert_eq!(
        (&first["inference_count"], &first["total_inferences"]),
        (&json!(1), &json!(1))
    );
    assert!(first.get("image").is_none() && first.get("image_omitted").is_none());
    let runner = &played.metrics["runner"];
    assert_eq!(
        (&runner["frames_captured"], &runner["audio_overruns"]),
        (&json!(7), &json!(0))
    );
    assert_eq!(played.metrics["details"]["n"], 7);
    assert!(!played.log.contains("silence"), "{}", played.log);
}

#[test]
fn a_continuous_model_gets_each_slice_once_and_its_window_is_cached_as_wav() {
    let samples = ramp(9_000);
    let site = Site::new();
    let cache = site.path().join("cache");
    let directory = format!("cache_file_directory={}", cache.display());
    let sets = [
        "--set",
        "enable_cache_to_file=yes",
        "--set",
        &directory,
        "--set",
        "publish_inference_base64_image=yes",
    ];
    let mut arguments = vec!["--unthrottled"];
    arguments.extend(sets);
    let played = play(&samples, &hearing(16_000, 4_000, 2_000, true), &arguments);
    let requests = classify_requests(&played.record);
    assert!(requests.iter().all(|(kind, _)| kind == "classify_continuous_shm"));
    let slices: Vec<_> = requests.into_iter().map(|(_, slice)| slice).collect();
    assert_eq!(
        slices,
        samples[..8_000].chunks(2_000).map(<[i16]>::to_vec).collect::<Vec<_>>()
    );

    let messages = played.observer.all("inference/output");
    assert_eq!(messages.len(), 3, "none before the first whole window");
    for (index, window) in [(0, 0..4_000), (2, 4_000..8_000)] {
        let id = messages[index].json()["id"].as_str().unwrap().to_owned();
        let file = std::fs::read(cache.join(format!("{id}.img"))).expect("the cached sound");
        assert!(
            file == wav(&samples[window], 16_000),
            "the cached window of message {index}"
        );
        let json = std::fs::read(cache.join(format!("{id}.json"))).expect("the cached message");
        assert_eq!(json, messages[index].payload);
        assert!(
            messages[index].json().get("image_omitted").is_none(),
            "sound has no picture to leave out"
        );
    }
    drop(played.site);
}

#[test]
fn a_model_that_refuses_slices_gets_whole_windows() {
    let samples = ramp(6_000);
    let refusal = "Failed to run classifier (-5)";
    let script = json!({"answers": [{"error": refusal}, classified(0.25)], "repeat": "last"});
    let played = play_script(
        &samples,
        &hearing(16_000, 4_000, 1_000, true),
        script,
        &["--unthrottled"],
    );
    let requests = classify_requests(&played.record);
    let kinds: Vec<_> = requests.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "classify_continuous_shm",
            "classify_shm",
            "classify_shm",
            "classify_shm"
        ]
    );
    for (index, (_, window)) in requests[1..].iter().enumerate() {
        assert!(window == &samples[index * 1_000..][..4_000], "window {index}");
    }
    assert_eq!(played.observer.all("inference/output").len(), 3);
    let line = "The model refuses continuous classification; it gets whole windows from now on";
    assert_eq!(played.log.matches(line).count(), 1, "{}", played.log);
    assert!(played.log.contains(refusal), "{}", played.log);
}

#[test]
fn a_model_that_refuses_slices_is_not_asked_again_after_a_restart_of_source_or_model() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let file = site.write("sound.wav", wav(&ramp(6_000), 16_000));
    let record = site.path().join("record");
    let refusal = "Failed to run classifier (-5)";
    // The file has three windows: the first play is answered, the model ends in the second, and a new one plays on.
    let answers = json!([{"error": refusal}, classified(0.5), classified(0.5), classified(0.5), {"exit": 3}]);
    let script = json!({"hello": hearing(16_000, 4_000, 1_000, true), "answers": answers, "repeat": "cycle",
        "record": record, "record_at_most": 100_000});
    let model = site.scripted_model(&script);
    let line = format!("filesrc location={} ! wavparse", file.display());
    let arguments = ["--model", model.to_str().unwrap(), "--gst", &line, "--unthrottled"];
    let daemon = site.run(
        &broker.url(),
        &[&arguments[..], &["--set", "metrics_sleeptime_ms=200"]].concat(),
    );
    observer.wait_for("model/metrics", "a restart of each", |metrics| {
        let runner = &metrics["runner"];
        runner["capture_restarts"].as_u64() >= Some(2) && runner["model_restarts"].as_u64() >= Some(1)
    });
    observer.wait_for_status("started", 3);
    let log = daemon.stop();
    let kinds: Vec<_> = classify_requests(&record).into_iter().map(|(kind, _)| kind).collect();
    assert!(kinds.len() > 5, "{kinds:?}");
    assert_eq!(kinds[0], "classify_continuous_shm");
    assert!(kinds[1..].iter().all(|kind| kind == "classify_shm"), "{kinds:?}");
    assert_eq!(
        log.matches("The model refuses continuous classification").count(),
        1,
        "{log}"
    );
}

#[test]
fn an_audio_file_plays_in_real_time() {
    let begun = Instant::now();
    let played = play(&ramp(24_000), &hearing(16_000, 8_000, 4_000, false), &[]);
    assert_eq!(classify_requests(&played.record).len(), 5);
    assert!(
        begun.elapsed() > Duration::from_millis(1_400),
        "1.5 s of sound took {:?}",
        begun.elapsed()
    );
}

#[test]
fn audio_with_another_sample_rate_and_two_channels_is_converted() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let record = site.path().join("record");
    let script = json!({"hello": hearing(8_000, 4_000, 0, false), "answers": [classified(0.5)], "record": record});
    let model = site.scripted_model(&script);
    let line = "audiotestsrc wave=square freq=2 volume=0.5 samplesperbuffer=4410 num-buffers=20 ! audio/x-raw,format=F32LE,rate=44100,channels=2";
    let daemon = site.run(
        &broker.url(),
        &[
            "--unthrottled",
            "--model",
            model.to_str().unwrap(),
            "--gst",
            line,
            "--set",
            PAUSE,
        ],
    );
    observer.wait_for_status("paused", 1);
    daemon.stop();
    // Two seconds at 8000: a window of half a second, and one every quarter of a second (the model names no slice).
    let requests: Vec<_> = recorded(&record)
        .into_iter()
        .filter(|line| line.get("classify_shm").is_some())
        .collect();
    assert_eq!(requests.len(), 7);
    for request in &requests {
        assert_eq!(request["classify_shm"]["count"], 4_000);
        let (first, last) = (&request["classify_shm"]["first"], &request["classify_shm"]["last"]);
        for sample in [first, last] {
            assert!(
                sample.as_f64().unwrap().abs() <= 20_000.0,
                "half of full scale, with the filter's ringing: {sample}"
            );
        }
    }
}

#[test]
fn a_model_slower_than_its_source_keeps_the_order_and_dropped_windows_are_counted() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let record = site.path().join("record");
    let answer = json!({"delay_ms": 20, "then": classified(0.5)});
    let script = json!({"hello": hearing(16_000, 16_001, 16_001, true), "record": record, "answers": [answer]});
    let model = site.scripted_model(&script);
    // A live source that does not wait for the clock. Its bytes are a running count, so the first byte of slice n is 2n.
    let line = "fakesrc is-live=true format=time num-buffers=100 sizetype=fixed sizemax=32002 filltype=pattern-span \
                ! audio/x-raw,format=S16LE,layout=interleaved,rate=16000,channels=1";
    let daemon = site.run(
        &broker.url(),
        &[
            "--model",
            model.to_str().unwrap(),
            "--gst",
            line,
            "--set",
            PAUSE,
            "--set",
            "metrics_sleeptime_ms=200",
        ],
    );
    observer.wait_for_status("paused", 1);
    let metrics = observer.wait_for("model/metrics", "every slice accounted for", |metrics| {
        let count = |name: &str| metrics["runner"][name].as_u64().unwrap();
        count("frames_captured") == 100 && count("inferences") + count("audio_overruns") == 100
    });
    daemon.stop();
    let slices: Vec<_> = recorded(&record)
        .iter()
        .filter_map(|line| line.get("classify_continuous_shm"))
        .map(|slice| (slice["first"].as_f64().unwrap() as i16 as u16 & 0xff) / 2)
        .collect();
    assert!(slices.is_sorted_by(|a, b| a < b), "{slices:?}");
    assert!(slices.len() < 50, "the model was too slow: {slices:?}");
    assert_eq!(
        &slices[slices.len() - 3..],
        [97, 98, 99],
        "four seconds of sound wait: {metrics}"
    );
}

#[test]
fn a_silent_microphone_is_logged_once_with_the_usual_causes() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let line = "audiotestsrc is-live=true wave=silence ! audio/x-raw,rate=16000,channels=1";
    let daemon = site.run(&broker.url(), &["--model", "builtin:audio", "--gst", line]);
    let line = daemon.wait_for_line("nothing but silence");
    for cause in ["muted", "--microphone", "--enable-camera"] {
        assert!(line.contains(cause), "{line}");
    }
    let log = daemon.stop();
    assert_eq!(log.matches("nothing but silence").count(), 1);
}

#[test]
fn the_built_in_model_distinguishes_a_tone_from_silence() {
    for (wave, label) in [("sine", "tone"), ("silence", "silence")] {
        let (site, broker) = (Site::new(), Mosquitto::start());
        let observer = Observer::connect(broker.port, site.device());
        let line = format!("audiotestsrc wave={wave} num-buffers=200 samplesperbuffer=400 ! audio/x-raw,rate=16000");
        let daemon = site.run(
            &broker.url(),
            &[
                "--unthrottled",
                "--model",
                "builtin:audio",
                "--gst",
                &line,
                "--set",
                "iotcore_backoff=1",
                "--set",
                PAUSE,
            ],
        );
        let messages = observer.wait_for_count("inference/output", 17);
        observer.wait_for_status("paused", 1);
        daemon.stop();
        assert_eq!(
            observer.all("inference/output").len(),
            17,
            "80000 samples are 20 slices; the first three are no whole window"
        );
        assert!(
            messages.iter().all(|m| m["c"][label].as_f64().unwrap() > 0.9),
            "{wave}: {messages:?}"
        );
    }
}
