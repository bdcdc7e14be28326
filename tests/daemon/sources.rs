//! Launch lines of many kinds: files, live sources, encoders and decoders.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use serde_json::{Value, json};

use super::stage::{Stage, lines};
use crate::support::daemon::Daemon;
use crate::support::http::{HttpServer, Reply};
use crate::support::scripts::{boxed, hello, script};

/// Runs a launch line to its end, to make a file.
fn play_to_end(line: &str) {
    let pipeline = gst::parse::launch(line).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let limit = gst::ClockTime::from_seconds(20);
    let end = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(limit, &ends)
        .expect("an end");
    assert_eq!(end.type_(), gst::MessageType::Eos);
    pipeline.set_state(gst::State::Null).unwrap();
}

/// Writes a video file with this many pictures at 30 per second. Returns a launch line that plays it.
fn video(directory: &Path, pictures: u32) -> String {
    let path = directory.join(format!("{pictures}.avi"));
    gst::init().unwrap();
    let line = format!(
        "videotestsrc num-buffers={pictures} ! video/x-raw,format=I420,width=64,height=48,framerate=30/1 ! jpegenc ! avimux \
         ! filesink location={}",
        path.display()
    );
    play_to_end(&line);
    format!("filesrc location={} ! avidemux ! jpegdec", path.display())
}

fn model(stage: &Stage) -> PathBuf {
    stage.site.scripted_model(&script(&[boxed(0.5)]))
}

fn milliseconds_between(earlier: &Value, later: &Value) -> Duration {
    let ts = |notice: &Value| notice["result"]["ts"].as_u64().unwrap();
    Duration::from_millis(ts(later) - ts(earlier))
}

#[test]
fn a_file_is_played_again_after_its_end() {
    let stage = Stage::new();
    let source = video(stage.site.path(), 45);
    let daemon = stage.run(model(&stage), &source, &[]);
    stage.observer.wait_for_status("started", 3);
    stage.wait_for_figures("two ends", |runner| {
        runner["capture_restarts"].as_u64() >= Some(2) && runner["inferences"].as_u64() > Some(60)
    });
    let log = daemon.stop();
    assert_eq!(
        lines(&log, "WARN", "source"),
        Vec::<&str>::new(),
        "the end of a file is no failure"
    );
    assert!(!stage.order().contains(&"paused".to_owned()));
}

#[test]
fn the_session_pauses_after_the_last_inference_of_a_file_until_the_command_restart() {
    for spelling in ["wait_for_restart", "wait_on_restart"] {
        let stage = Stage::new();
        let source = video(stage.site.path(), 40);
        let behavior = format!("ei_shutdown_behavior={spelling}");
        // Messages with pictures take longer than the notice. The notice must come after them.
        let sets = [behavior.as_str(), "publish_inference_base64_image=yes"];
        let daemon = stage.run_unthrottled(model(&stage), &source, &sets);
        stage.observer.wait_for_status("paused", 1);
        stage.settle();
        let order = stage.order();
        assert_eq!(
            order.iter().filter(|kind| *kind == "inference").count(),
            40,
            "{spelling}: {order:?}"
        );
        assert_eq!(
            order.last().map(String::as_str),
            Some("paused"),
            "{spelling}: {order:?}"
        );
        stage.wait_for_figures("every frame", |runner| {
            runner["frames_captured"] == 40 && runner["inferences"] == 40 && runner["delivered"] == 40
        });
        // Nothing has changed two metrics messages later.
        let seen = stage.observer.all("model/metrics").len();
        stage.observer.wait_for_count("model/metrics", seen + 2);
        assert_eq!(stage.order(), order);

        let answer = stage
            .observer
            .command(&json!({"cmd": "restart"}), |result| result.get("restart").is_some());
        assert_eq!(answer, json!({"restart": "OK"}));
        stage.observer.wait_for_status("paused", 2);
        let again = stage.order().split_off(order.len());
        assert_eq!(
            again.iter().filter(|kind| *kind == "inference").count(),
            40,
            "{again:?}"
        );
        assert_eq!(again.iter().filter(|kind| *kind == "started").count(), 1, "{again:?}");
        let first = stage.observer.all("inference/output")[40].json();
        assert_eq!(first["total_inferences"], 1, "as in a new process");
        daemon.stop();
    }
}

#[test]
fn a_file_plays_in_real_time_and_unthrottled_as_fast_as_possible() {
    let pictures = 75; // 2.5 s
    let stage = Stage::new();
    let source = video(stage.site.path(), pictures);
    let play = |number: usize, run: &dyn Fn() -> Daemon| {
        let daemon = run();
        let started = stage.observer.wait_for_status("started", number);
        let paused = stage.observer.wait_for_status("paused", number);
        stage.wait_for_figures("the end of the file", |runner| runner["frames_captured"] == pictures);
        daemon.stop();
        milliseconds_between(&started, &paused)
    };
    let (model, sets) = (model(&stage), ["ei_shutdown_behavior=wait_for_restart"]);
    let played = play(1, &|| stage.run(&model, &source, &sets));
    assert!((2000..6000).contains(&played.as_millis()), "{played:?}");
    let before = stage.observer.all("inference/output").len();
    let unthrottled = play(2, &|| stage.run_unthrottled(&model, &source, &sets));
    assert!(unthrottled.as_millis() < 1500, "{unthrottled:?}");
    stage.settle();
    let totals: Vec<_> = stage.observer.all("inference/output")[before..]
        .iter()
        .map(|seen| seen.json()["total_inferences"].as_u64().unwrap())
        .collect();
    assert_eq!(
        totals,
        (1..=u64::from(pictures)).collect::<Vec<_>>(),
        "every picture once"
    );
}

#[test]
fn a_camera_that_fails_is_started_again_and_the_error_of_gstreamer_is_logged() {
    let stage = Stage::new();
    let source = "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=30/1 ! identity error-after=20";
    let daemon = stage.run(model(&stage), source, &[]);
    stage.observer.wait_for_status("started", 3);
    stage.wait_for_figures("two faults", |runner| {
        runner["capture_restarts"].as_u64() >= Some(2) && runner["model_restarts"] == 0
    });
    let log = daemon.stop();
    let logged = lines(&log, "WARN", "Failed after iterations as requested");
    assert_eq!(logged.len(), 1, "the same error once: {logged:?}");
    assert!(logged[0].contains("identity"), "{}", logged[0]);
}

#[test]
fn a_line_of_gst_args_that_ends_in_an_encoder_works() {
    let stage = Stage::new();
    let daemon = Daemon::start(stage.command(
        model(&stage),
        &["gst_args=videotestsrc:is-live=true:!:video/x-raw,width=64,height=48:!:jpegenc"],
    ));
    stage.observer.wait_for_count("inference/output", 10);
    let log = daemon.stop();
    assert!(!log.contains("jpegdec"), "the encoder is dropped, not undone");
}

#[test]
fn a_source_that_delivers_jpeg_works() {
    // Known from the last element, and found from what it offers.
    for end in ["rtpjpegpay ! rtpjpegdepay", "valve"] {
        let stage = Stage::new();
        let record = stage.site.path().join("record");
        let mut script = script(&[boxed(0.5)]);
        (script["hello"], script["record"]) = (hello(4, 4), json!(record));
        let source = format!(
            "videotestsrc is-live=true pattern=solid-color foreground-color=0xff808080 \
             ! video/x-raw,format=I420,width=64,height=48,framerate=30/1 ! jpegenc quality=95 ! {end}"
        );
        let daemon = stage.run(stage.site.scripted_model(&script), &source, &[]);
        stage.observer.wait_for_count("inference/output", 10);
        let log = daemon.stop();
        assert!(log.contains("jpegdec"), "{end}");
        let text = std::fs::read_to_string(record).unwrap();
        let asked: Value = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .find(|request| request.get("classify_shm").is_some())
            .unwrap();
        for value in asked["classify_shm"]["features"].as_array().unwrap() {
            let rgb = value.as_f64().unwrap() as u32;
            for shift in [0, 8, 16] {
                assert!(
                    (0x80_i64 - i64::from(rgb >> shift & 0xff)).abs() <= 4,
                    "{end}: {rgb:#x}"
                );
            }
        }
    }
}

#[test]
fn a_source_may_change_its_size_while_it_runs() {
    let stage = Stage::new();
    let record = stage.site.path().join("record");
    let mut script = script(&[boxed(0.5)]);
    (script["hello"], script["record"]) = (hello(4, 4), json!(record));
    let part = |width: u32, height: u32| {
        format!(
            "videotestsrc num-buffers=15 pattern=solid-color foreground-color=0xff336699 \
             ! video/x-raw,format=RGB,width={width},height={height},framerate=30/1 ! c. "
        )
    };
    let source = format!(
        "concat name=c ! queue {}{}{}",
        part(64, 48),
        part(161, 121),
        part(48, 64)
    );
    let sets = ["ei_shutdown_behavior=wait_for_restart"];
    let daemon = stage.run_unthrottled(stage.site.scripted_model(&script), &source, &sets);
    stage.observer.wait_for_status("paused", 1);
    let figures = stage.wait_for_figures("every frame", |runner| runner["inferences"] == 45);
    assert_eq!(
        (&figures["frames_dropped"], &figures["capture_restarts"]),
        (&json!(0), &json!(0))
    );
    daemon.stop();
    let text = std::fs::read_to_string(record).unwrap();
    let asked: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["classify_shm"]["features"].clone())
        .filter(|features| !features.is_null())
        .collect();
    assert_eq!(asked.len(), 45);
    let colour = f64::from(0x33_6699);
    assert!(
        asked
            .iter()
            .all(|features| features.as_array().unwrap().iter().all(|value| *value == colour))
    );
}

#[test]
fn a_line_that_duplicates_frames_to_2200_per_second_keeps_running() {
    let stage = Stage::new();
    let source = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=320,framerate=30/1 \
                  ! videorate ! video/x-raw,framerate=2200/1";
    let daemon = stage.run("builtin:slow=20", source, &["iotcore_backoff=5"]);
    let figures = stage.wait_for_figures("two seconds of it", |runner| {
        runner["frames_captured"].as_u64() > Some(4000) && runner["published"].as_u64() > Some(5)
    });
    assert_eq!(
        (&figures["capture_restarts"], &figures["model_restarts"]),
        (&json!(0), &json!(0))
    );
    assert!(figures["frames_skipped"].as_u64() > Some(3000), "{figures}");
    assert_eq!(stage.order().iter().filter(|kind| *kind == "started").count(), 1);
    daemon.stop();
}

/// A JPEG file of 64 x 48.
fn picture(directory: &Path) -> Vec<u8> {
    let path = directory.join("picture.jpg");
    let line = format!(
        "videotestsrc num-buffers=1 pattern=ball ! video/x-raw,format=I420,width=64,height=48 ! jpegenc ! filesink location={}",
        path.display()
    );
    gst::init().unwrap();
    play_to_end(&line);
    std::fs::read(path).unwrap()
}

#[test]
fn a_still_picture_over_http_is_fetched_again_after_the_interval() {
    let stage = Stage::new();
    let picture = picture(stage.site.path());
    let server = HttpServer::start(move |_| Reply::bytes("image/jpeg", picture.clone()));
    let source = format!("souphttpsrc location={}/snap.jpg", server.url());
    let daemon = stage.run(model(&stage), &source, &["still_interval_ms=300"]);
    let first = stage.observer.wait_for_count("inference/output", 1)[0].clone();
    let fifth = stage.observer.wait_for_count("inference/output", 5)[4].clone();
    let ts = |message: &Value| message["ts"].as_u64().unwrap();
    let lasted = ts(&fifth) - ts(&first);
    assert!((1200..8000).contains(&lasted), "four pauses of 300 ms took {lasted} ms");
    let figures = stage.wait_for_figures("figures after the fifth", |runner| {
        runner["inferences"].as_u64() >= Some(5)
    });
    assert_eq!(
        (&figures["capture_restarts"], &figures["problems"]),
        (&json!(0), &json!([]))
    );
    assert_eq!(figures["health"]["source"], "running");
    assert_eq!(stage.order().iter().filter(|kind| *kind == "started").count(), 1);
    let log = daemon.stop();
    assert_eq!(lines(&log, "WARN", "source"), Vec::<&str>::new());
    assert_eq!(lines(&log, "INFO", "Capture started").len(), 1);
}

/// MJPEG as cameras send it, with this many pictures.
fn multipart(picture: &[u8], count: usize) -> Vec<u8> {
    let head = format!(
        "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
        picture.len()
    );
    [head.as_bytes(), picture, b"\r\n"].concat().repeat(count)
}

#[test]
fn an_mjpeg_stream_that_ends_at_once_is_no_still_picture() {
    let stage = Stage::new();
    let picture = picture(stage.site.path());
    let server =
        HttpServer::start(move |_| Reply::bytes("multipart/x-mixed-replace; boundary=frame", multipart(&picture, 3)));
    let source = format!("souphttpsrc location={}/video", server.url());
    let daemon = stage.run(model(&stage), &source, &["still_interval_ms=100"]);
    daemon.wait_for_line("it ended right after its start");
    stage.wait_for_figures("two restarts", |runner| runner["capture_restarts"].as_u64() >= Some(2));
    let log = daemon.stop();
    assert_eq!(lines(&log, "INFO", "still picture"), Vec::<&str>::new());
}

#[test]
fn a_still_picture_that_the_server_refuses_is_a_failure_without_the_password() {
    let stage = Stage::new();
    let server = HttpServer::start(|_| Reply::bytes("text/plain", "busy").status(503));
    let url = server.url().replace("http://", "http://viewer:geheim7@");
    let source = format!("souphttpsrc location={url}/snap.jpg?token=geheim8");
    let daemon = stage.run(model(&stage), &source, &["still_interval_ms=100"]);
    let figures = stage.wait_for_figures("a problem", |runner| {
        let problem = runner["problems"][0].as_str().unwrap_or_default();
        problem.starts_with("source: ") && runner["capture_restarts"].as_u64() >= Some(2)
    });
    assert_eq!(figures["inferences"], 0);
    let log = daemon.stop();
    assert!(
        lines(&log, "WARN", "The source failed and restarts")[0].contains("503"),
        "{log}"
    );
    assert!(
        !log.contains("geheim") && !figures.to_string().contains("geheim"),
        "{log}"
    );
}

#[test]
fn a_source_that_freezes_is_called_stalled_until_it_delivers_again() {
    let stage = Stage::new();
    // The second input prevents the end of the stream after the five frames of the first one.
    let caps = "video/x-raw,width=64,height=48,framerate=50/1";
    let source = format!(
        "videotestsrc is-live=true num-buffers=5 ! {caps} ! funnel name=f videotestsrc is-live=true ! {caps} ! \
         valve drop=true ! f. f. ! videoconvert"
    );
    let daemon = stage.run(model(&stage), &source, &[]);
    stage.wait_for_figures("the health before", |runner| {
        runner["health"]["source"] == "running" && runner["inferences"].as_u64() >= Some(1)
    });
    let figures = stage.wait_for_figures("the health after", |runner| runner["health"]["source"] == "stalled");
    assert_eq!(figures["problems"], json!(["source: it delivered no frame for 10 s"]));
    assert_eq!(figures["capture_restarts"], 1);
    let inferences = figures["inferences"].as_u64();
    stage.wait_for_figures("the health after the restart", |runner| {
        runner["health"]["source"] == "running" && runner["inferences"].as_u64() > inferences
    });
    daemon.stop();
}
