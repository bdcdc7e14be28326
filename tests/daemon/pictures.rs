//! Published boxes match their pictures.

use base64::Engine;
use gstreamer as gst;
use gstreamer::prelude::*;
use serde_json::Value;

use super::stage::Stage;
use crate::support::daemon::Site;
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;

const BALL: &str = "videotestsrc pattern=ball is-live=true ! video/x-raw,width=640,height=480,framerate=30/1";

/// Mean position of the bright pixels of the message's own picture.
fn bright_centre(message: &Value) -> (f64, f64) {
    let jpeg = base64::engine::general_purpose::STANDARD
        .decode(message["image"].as_str().expect("an image"))
        .expect("base64");
    let picture = image::load_from_memory(&jpeg).expect("a JPEG").to_luma8();
    assert_eq!(picture.dimensions(), (320, 320));
    let bright: Vec<_> = picture.enumerate_pixels().filter(|(_, _, p)| p.0[0] > 128).collect();
    assert!(!bright.is_empty(), "there is a ball in the picture");
    let n = bright.len() as f64;
    let sum = bright
        .iter()
        .fold((0.0, 0.0), |s, (x, y, _)| (s.0 + f64::from(*x), s.1 + f64::from(*y)));
    (sum.0 / n, sum.1 / n)
}

#[test]
fn the_published_box_is_at_the_position_of_the_ball() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let daemon = site.run(
        &broker.url(),
        &[
            "--model",
            "builtin:ball",
            "--gst",
            BALL,
            "--set",
            "iotcore_backoff=1",
            "--set",
            "publish_inference_base64_image=yes",
        ],
    );
    // On a busy machine an encoder that is behind leaves pictures out; every one that comes must fit its box.
    observer.wait_for_nth("inference/output", "30 messages with their picture", 29, |m| {
        m["image"].is_string()
    });
    let messages: Vec<_> = observer
        .all("inference/output")
        .iter()
        .map(|seen| seen.json())
        .filter(|message| message["image"].is_string())
        .collect();
    let mut places = std::collections::HashSet::new();
    for message in &messages {
        let (x, y) = bright_centre(message);
        let ball = &message["box"][0];
        assert_eq!(ball["label"], "ball");
        let side = |key: &str| ball[key].as_f64().unwrap();
        let centre = (side("x") + side("width") / 2.0, side("y") + side("height") / 2.0);
        assert!(
            (centre.0 - x).abs() <= 3.0 && (centre.1 - y).abs() <= 3.0,
            "the box {ball} is centred at {centre:?}, the ball of its picture at {:?}",
            (x, y)
        );
        places.insert((x as i64 / 4, y as i64 / 4));
    }
    assert!(places.len() > 5, "the ball moves: {places:?}");
    for pair in messages.windows(2) {
        assert!(
            pair[0]["total_inferences"].as_u64() < pair[1]["total_inferences"].as_u64(),
            "in order"
        );
    }
    daemon.stop();
}

/// Left, top, right and bottom of the ball in each picture of `source`, as GStreamer's own elements deliver them.
fn balls(source: &str, side: usize) -> Vec<[f64; 4]> {
    gst::init().unwrap();
    let line = format!("{source} ! videoconvert ! video/x-raw,format=GRAY8 ! appsink name=end sync=false");
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline
        .by_name("end")
        .unwrap()
        .downcast::<gstreamer_app::AppSink>()
        .unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut found = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        let pixels = sample.buffer().unwrap().map_readable().unwrap();
        let bright = (0..side * side).filter(|place| pixels[*place] > 128);
        let edges = bright.fold([usize::MAX, usize::MAX, 0, 0], |[left, top, right, bottom], place| {
            let (x, y) = (place % side, place / side);
            [left.min(x), top.min(y), right.max(x), bottom.max(y)]
        });
        found.push(edges.map(|edge| edge as f64));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    found
}

#[test]
fn unthrottled_every_frame_is_inferred_once_in_order_to_the_last() {
    // The next frame is converted while the model works on one, here for longer than a conversion takes.
    for model in ["builtin:ball", "builtin:slow=5"] {
        let stage = Stage::new();
        let source =
            "videotestsrc pattern=ball num-buffers=90 ! video/x-raw,format=I420,width=320,height=320,framerate=30/1";
        let truth = balls(source, 320);
        let daemon = stage.run_unthrottled(model, source, &["ei_shutdown_behavior=wait_for_restart"]);
        stage.observer.wait_for_status("paused", 1);
        let messages = stage.observer.all("inference/output");
        assert_eq!((truth.len(), messages.len()), (90, 90), "{model}");
        for (number, (message, edges)) in messages.iter().zip(&truth).enumerate() {
            let ball = &message.json()["box"][0];
            let side = |key: &str| ball[key].as_f64().unwrap();
            let (x, y) = (side("x"), side("y"));
            let seen = [x, y, x + side("width") - 1.0, y + side("height") - 1.0];
            assert!(
                seen.iter().zip(edges).all(|(seen, edge)| (seen - edge).abs() <= 1.0),
                "{model}, frame {number}: {seen:?} instead of {edges:?}"
            );
        }
        let moved = |pair: &&[[f64; 4]]| pair[0].iter().zip(&pair[1]).any(|(a, b)| (a - b).abs() > 2.0);
        let moves = truth.windows(2).filter(moved).count();
        assert!(moves > 45, "most neighbouring frames can be told apart: {moves}");
        daemon.stop();
    }
}
