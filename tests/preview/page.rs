//! The page in a real browser.

use serde_json::{Value, json};

use crate::preview::chromium::{Chromium, View};
use crate::preview::client::{BALL, NO_BROKER, Served};
use crate::support::daemon::Site;
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::ports::free_port;
use crate::support::scripts::{hello, script};

/// Finds, in one picture of the page, the middle of the white ball and the middle of the box around it, both in parts of
/// the picture's sides; and a sum that changes with the picture. `null`: no ball or no box in this picture.
const BALL_AND_BOX: &str = r"(() => {
  const view = document.getElementById('view');
  if (view.hidden) return null;
  const {data, width, height} = view.getContext('2d').getImageData(0, 0, view.width, view.height);
  const stroke = (r, g, b) => g > 150 && g - r > 60;
  let n = 0, sx = 0, sy = 0, left = 1e9, right = -1, top = 1e9, bottom = -1, sum = 0;
  // The frame of the box is a long run of its colour; its label is a filled block, told by its rows being full.
  const rows = new Array(height).fill(0);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const i = 4 * (y * width + x), r = data[i], g = data[i + 1], b = data[i + 2];
    if (r > 200 && g > 200 && b > 200) { n++; sx += x; sy += y; }
    if (stroke(r, g, b)) { rows[y]++; sum = (sum + i) % 1000003; }
  }
  if (!n) return null;
  const bx = sx / n, by = sy / n;
  // From the ball outwards to the first pixels of the frame.
  const at = (x, y) => { const i = 4 * (Math.round(y) * width + Math.round(x)); return stroke(data[i], data[i + 1], data[i + 2]); };
  const walk = (dx, dy) => { for (let d = 1; d < 80; d += .5) { const x = bx + dx * d, y = by + dy * d; if (x < 0 || y < 0 || x >= width || y >= height) return null; if (at(x, y)) return d; } return null; };
  const [l, r, u, d] = [walk(-1, 0), walk(1, 0), walk(0, -1), walk(0, 1)];
  if (l === null || r === null || u === null || d === null) return null;
  return {ball: [bx / width, by / height], box: [(bx + (r - l) / 2) / width, (by + (d - u) / 2) / height], size: [(l + r) / width, (u + d) / height], sum};
})()";

fn pair(value: &Value) -> (f64, f64) {
    (value[0].as_f64().unwrap(), value[1].as_f64().unwrap())
}

#[tokio::test]
async fn the_page_shows_a_box_on_the_ball_the_filter_and_the_broker() {
    let mut broker = Mosquitto::start();
    let served = Served::ball(&broker.url(), &[]);
    let observer = Observer::connect(broker.port, served.site.device());
    observer.wait_for_status("started", 1);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.wait_for_text("pill-mqtt", "connected").await;

    let mut pictures = std::collections::HashSet::new();
    while pictures.len() < 5 {
        let found = page.wait_for(BALL_AND_BOX, |found| !found.is_null()).await;
        let (ball, framed) = (pair(&found["ball"]), pair(&found["box"]));
        assert!(
            (ball.0 - framed.0).abs() < 0.02 && (ball.1 - framed.1).abs() < 0.02,
            "the box is not around the ball: {found}"
        );
        let size = pair(&found["size"]);
        let is_cut = |center: f64, size: f64| center - size / 2.0 < 0.01 || center + size / 2.0 > 0.99;
        if is_cut(framed.0, size.0) || is_cut(framed.1, size.1) {
            // A part of the ball is outside the picture, so its box is smaller.
            continue;
        }
        assert!(
            (0.04..0.16).contains(&size.0) && (0.04..0.16).contains(&size.1),
            "{found}"
        );
        pictures.insert(found["sum"].to_string());
    }
    let results = page.wait_for_text("results", "ball").await;
    assert!(["0.", "1.00"].iter().any(|value| results.contains(value)), "{results}");
    page.wait_for_text("messages", "inference/output").await;

    page.wait_for_text("filter", "off").await;
    observer.command(&json!({"cmd": "set_threshold_filter_confidence", "value": 0.6}), |r| {
        r.get("confidence_threshold").is_some()
    });
    observer.command(&json!({"cmd": "enable_threshold_filter"}), |r| {
        r.get("threshold_filter_config").is_some()
    });
    page.wait_for_text("filter", "on: confidence ≥ 0.6").await;

    broker.down();
    page.wait_for_text("pill-mqtt", "offline").await;
    page.wait_for_text("pill-mqtt", "waiting").await;
    page.wait_for_text("banner", "Messages are kept").await;
    // What is on disk waits too.
    let count = |value: &Value| value.as_u64().unwrap();
    served
        .wait_for_status("messages on disk among those that wait", |status| {
            let spooled = count(&status["counters"]["spooled"]);
            spooled > 10 && count(&status["mqtt"]["waiting"]) >= spooled
        })
        .await;
    page.screenshot("offline").await;
    broker.up();
    page.wait_for_text("pill-mqtt", "connected").await;
    page.wait_for("document.getElementById('banner').hidden", |hidden| *hidden == true)
        .await;

    page.wait_for(BALL_AND_BOX, |found| !found.is_null()).await;
    page.screenshot("light").await;
    page.look(View {
        dark: true,
        ..View::DESK
    })
    .await;
    page.wait_for_text("rate", ".").await;
    page.wait_for(BALL_AND_BOX, |found| !found.is_null()).await;
    page.screenshot("dark").await;
    page.look(View::PHONE).await;
    page.wait_until_it_fits(&["filter", "counts"]).await;
    page.wait_for(BALL_AND_BOX, |found| !found.is_null()).await;
    page.screenshot("phone").await;
    served.daemon.stop();
    page.wait_for_text("notice", "No connection to the device").await;
}

#[tokio::test]
async fn the_page_shows_why_there_is_no_picture() {
    let served = Served::start(NO_BROKER, &["--model", "/nonexistent/model.eim", "--gst", BALL]);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.wait_for_text("notice", "No model").await;
    page.wait_for_text("pill-model", "not running").await;
    page.wait_for_text("pill-mqtt", "offline").await;
    page.screenshot("no-model").await;
    served.daemon.stop();

    let site = Site::new();
    let mut other_sensor = script(&[]);
    other_sensor["hello"]["model_parameters"]["sensor"] = json!(2);
    let model = site.scripted_model(&other_sensor);
    let arguments = ["--model", model.to_str().unwrap(), "--gst", BALL];
    let served = Served::start_at(site, free_port(), NO_BROKER, &arguments);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.wait_for_text("notice", "This model works on sensor “accelerometer”")
        .await;
    page.wait_for_text("pill-model", "cannot be run").await;
    served.daemon.stop();

    let camera = "v4l2src device=/dev/video-not-there ! videoconvert";
    let served = Served::start(NO_BROKER, &["--model", "builtin:ball", "--gst", camera]);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.wait_for_text("notice", "No picture").await;
    page.wait_for_text("pill-source", "not running").await;
    page.screenshot("no-camera").await;
    served.daemon.stop();
}

#[tokio::test]
async fn the_page_shows_a_cache_that_fails() {
    let more = ["enable_cache_to_file=yes", "cache_file_directory=/dev/null/pairs"];
    let more: Vec<_> = more.iter().flat_map(|setting| ["--set", setting]).collect();
    let served = Served::ball(NO_BROKER, &more);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    let said = page.wait_for_text("banner", "The file cache does not work: ").await;
    assert!(said.contains("/dev/null/pairs"), "{said}");
    served.daemon.stop();
}

#[tokio::test]
async fn classes_are_bars_and_no_label_becomes_markup() {
    let evil = "<img src=x onerror=document.title='owned'>";
    let site = Site::new();
    let answer = json!({"classification": {evil: 0.8, "plain": 0.2}});
    let model = site.scripted_model(&script(&[answer]));
    let model = model.to_str().unwrap().to_owned();
    let port = free_port();
    let served = Served::start_at(site, port, NO_BROKER, &["--model", &model, "--gst", BALL]);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.wait_for_text("results", evil).await;
    page.wait_for_text("results", "0.800").await;
    assert_eq!(page.eval("document.querySelectorAll('#results img').length").await, 0);
    assert_ne!(page.eval("document.title").await, "owned");
    page.screenshot("classes").await;
    served.daemon.stop();
}

#[tokio::test]
async fn audio_is_shown_as_a_level_and_a_label() {
    let tone = "audiotestsrc is-live=true freq=440 volume=0.5";
    let served = Served::start(NO_BROKER, &["--model", "builtin:audio", "--gst", tone]);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.wait_for_text("heard", "tone").await;
    // A sine of half the full amplitude is 9 dB below it: 85 of 100 of the meter's 60 dB.
    let level = "parseFloat(document.getElementById('level').style.width)";
    page.wait_for(level, |level| {
        level.as_f64().is_some_and(|level| (83.0..=87.0).contains(&level))
    })
    .await;
    assert_eq!(page.eval("document.getElementById('view').hidden").await, true);
    page.screenshot("sound").await;
    served.daemon.stop();
}

/// The middle of the first box's frame, in parts of the picture's sides.
const MIDDLE_OF_FRAME: &str = r"(() => {
  const view = document.getElementById('view');
  if (view.hidden) return null;
  const {data, width, height} = view.getContext('2d').getImageData(0, 0, view.width, view.height);
  let left = 1e9, right = -1, top = 1e9, bottom = -1;
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const i = 4 * (y * width + x);
    if (data[i + 1] > 150 && data[i + 1] - data[i] > 60) { left = Math.min(left, x); right = Math.max(right, x); top = Math.min(top, y); bottom = Math.max(bottom, y); }
  }
  return {size: [width, height], frame: [left / width, right / width, top / height, bottom / height]};
})()";

#[tokio::test]
async fn boxes_are_in_the_right_place_on_pictures_in_the_cameras_resolution() {
    let site = Site::new();
    // The middle quarter of what the model sees, which is the middle square of the camera's picture.
    let found =
        json!({"bounding_boxes": [{"label": "thing", "value": 0.5, "x": 24, "y": 24, "width": 48, "height": 48}]});
    let mut answers = script(&[found]);
    answers["hello"] = hello(96, 96);
    answers["hello"]["model_parameters"]["image_resize_mode"] = "fit-shortest".into();
    let model = site.scripted_model(&answers);
    let model = model.to_str().unwrap().to_owned();
    let black = "videotestsrc pattern=black is-live=true ! video/x-raw,width=1280,height=720,framerate=30/1";
    let port = free_port();
    let served = Served::start_at(
        site,
        port,
        NO_BROKER,
        &[
            "--model",
            &model,
            "--gst",
            black,
            "--set",
            "eiparams=--greengrass --preview-original-resolution",
        ],
    );
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    let seen = page
        .wait_for(MIDDLE_OF_FRAME, |seen| {
            seen["frame"][1].as_f64().is_some_and(|right| right > 0.0)
        })
        .await;
    assert_eq!(seen["size"], json!([1280, 720]));
    // 720 of 1280 columns are seen, and the box is half of that: columns 460 to 820; rows to 540 (above, its label begins).
    for (side, wanted) in [(0, 460.0 / 1280.0), (1, 820.0 / 1280.0), (3, 540.0 / 720.0)] {
        let seen = seen["frame"][side].as_f64().unwrap();
        assert!((seen - wanted).abs() < 0.01, "{seen} instead of {wanted}");
    }
    let (_, jpeg) = served.get("/snapshot.jpg").await;
    let size = image::load_from_memory(&jpeg).unwrap();
    assert_eq!((size.width(), size.height()), (1280, 720));
    served.daemon.stop();
}

#[tokio::test]
async fn an_anomaly_grid_is_drawn_as_a_heat_map_and_freeform_values_are_summarised() {
    let site = Site::new();
    let cell = |x: u32, y: u32, value: f64| json!({"label": "anomaly", "value": value, "x": x, "y": y, "width": 16, "height": 12});
    let grid = json!({
        "visual_anomaly_grid": [cell(0, 0, 8.0), cell(16, 12, 2.0)], "visual_anomaly_max": 8.0, "visual_anomaly_mean": 5.0
    });
    let model = site.scripted_model(&script(&[grid]));
    let model = model.to_str().unwrap().to_owned();
    let black = "videotestsrc pattern=black is-live=true ! video/x-raw,width=64,height=48,framerate=30/1";
    let port = free_port();
    let served = Served::start_at(site, port, NO_BROKER, &["--model", &model, "--gst", black]);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.wait_for_text("results", "visual anomaly max").await;
    // How bright the four quarters are: the hottest cell, nothing, nothing, a warm cell.
    let quarters = r"(() => {
      const view = document.getElementById('view');
      const at = (x, y) => view.getContext('2d').getImageData(view.width * x, view.height * y, 1, 1).data[0];
      return [at(.25, .25), at(.75, .25), at(.25, .75), at(.75, .75)];
    })()";
    let seen = page
        .wait_for(quarters, |seen| seen[0].as_u64().is_some_and(|hot| hot > 100))
        .await;
    let red: Vec<u64> = (0..4).map(|n| seen[n].as_u64().unwrap()).collect();
    assert!(red[1] < 20 && red[2] < 20 && (30..red[0]).contains(&red[3]), "{red:?}");
    page.screenshot("anomaly").await;
    served.daemon.stop();

    let site = Site::new();
    let answer = json!({"freeform": [[0.25, 0.75, 0.5]]});
    let model = site.scripted_model(&script(&[answer]));
    let model = model.to_str().unwrap().to_owned();
    let port = free_port();
    let served = Served::start_at(site, port, NO_BROKER, &["--model", &model, "--gst", black]);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.wait_for_text("results", "3 values, highest at 1").await;
    page.wait_for_text("results", "0.750").await;
    served.daemon.stop();
}

#[tokio::test]
async fn the_page_shows_how_long_a_model_has_been_warming_up() {
    let site = Site::new();
    let first = json!({"delay_ms": 60_000, "then": {"bounding_boxes": []}});
    let mut answers = script(&[first]);
    answers["hello"]["inferencing_engine"] = json!({"engine_type": 4, "properties": ["gpu_delegates"]});
    let model = site.scripted_model(&answers);
    let model = model.to_str().unwrap().to_owned();
    let port = free_port();
    let served = Served::start_at(site, port, NO_BROKER, &["--model", &model, "--gst", BALL]);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.wait_for_text("pill-model", "warming up").await;
    page.wait_for_text("notice", "s so far. With a GPU engine this can take up to an hour")
        .await;
    page.wait_for_text("model-name", "Scripted v7").await;
    served.daemon.stop();
}

#[tokio::test]
async fn without_viewers_no_picture_is_encoded() {
    let served = Served::ball(NO_BROKER, &[]);
    let inferences = |status: &Value| status["counters"]["inferences"].as_u64().unwrap();
    let begin = inferences(&served.status().await);
    let status = served
        .wait_for_status("a second of inferences", |status| inferences(status) >= begin + 30)
        .await;
    assert_eq!(
        (&status["page"]["pictures_encoded"], &status["page"]["viewers"]),
        (&0.into(), &0.into())
    );
    let mut client = served.connect("/live").await;
    client.wait_for_type("moment").await;
    assert!(served.status().await["page"]["pictures_encoded"].as_u64() >= Some(1));
    drop(client);
    let before = served
        .wait_for_status("the client is gone", |status| status["page"]["viewers"] == 0)
        .await;
    let begin = inferences(&before);
    let after = served
        .wait_for_status("more inferences", |status| inferences(status) >= begin + 30)
        .await;
    let encoded = |status: &Value| status["page"]["pictures_encoded"].as_u64().unwrap();
    assert!(encoded(&after) <= encoded(&before) + 1, "one may have been on its way");
    served.daemon.stop();
}
