//! Drawing zones and lines in a real browser.

use ei_greengrass::config::parse_events;
use serde_json::{Value, json};

use crate::preview::chromium::{Chromium, View};
use crate::preview::client::{BALL, NO_BROKER, Served};
use crate::support::daemon::Site;
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::ports::free_port;
use crate::support::scripts::{hello, script};

/// The places of these fractions of the shown picture, in pixels of the window.
async fn places<const N: usize>(page: &mut Chromium, fractions: [(f64, f64); N]) -> [(f64, f64); N] {
    page.eval("document.getElementById('picture').scrollIntoView({block: 'nearest'})")
        .await;
    // The picture is fitted into its element.
    let rectangle = "(() => { const view = document.getElementById('view'), box = view.getBoundingClientRect();
      const scale = Math.min(box.width / view.width, box.height / view.height), wide = view.width * scale, high = view.height * scale;
      return [box.left + (box.width - wide) / 2, box.top + (box.height - high) / 2, wide, high]; })()";
    let rectangle = page.eval(rectangle).await;
    let number = |n: usize| rectangle[n].as_f64().unwrap();
    fractions.map(|(x, y)| (number(0) + x * number(2), number(1) + y * number(3)))
}

/// The JSON that the page gives.
async fn drawn(page: &mut Chromium) -> Value {
    let text = page.eval("document.getElementById('events-json').value").await;
    serde_json::from_str(text.as_str().unwrap()).unwrap_or(Value::Null)
}

async fn wait_for_drawn(page: &mut Chromium, wanted: impl Fn(&Value) -> bool) -> Value {
    let text = "document.getElementById('events-json').value";
    let json = |text: &Value| serde_json::from_str(text.as_str().unwrap_or_default()).unwrap_or(Value::Null);
    let text = page.wait_for(text, |text| wanted(&json(text))).await;
    json(&text)
}

async fn draw_zone(page: &mut Chromium, from: (f64, f64), to: (f64, f64)) {
    page.click("new-zone").await;
    let middle = ((from.0 + to.0) / 2.0, (from.1 + to.1) / 2.0);
    let places = places(page, [from, middle, to]).await;
    page.drag_mouse(&places).await;
}

#[track_caller]
fn assert_near(points: &Value, wanted: &[(f64, f64)], tolerance: f64) {
    let points: Vec<_> = points.as_array().unwrap().iter().collect();
    assert_eq!(points.len(), wanted.len(), "{points:?}");
    for (point, wanted) in points.iter().zip(wanted) {
        let (x, y) = (point[0].as_f64().unwrap(), point[1].as_f64().unwrap());
        assert!(
            (x - wanted.0).abs() <= tolerance && (y - wanted.1).abs() <= tolerance,
            "{points:?} instead of {wanted:?}"
        );
    }
}

#[tokio::test]
async fn a_zone_drawn_with_the_mouse_is_applied_and_its_events_arrive() {
    let broker = Mosquitto::start();
    let served = Served::ball(&broker.url(), &[]);
    let observer = Observer::connect(broker.port, served.site.device());
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.wait_for_text("zone-source", "None yet").await;
    page.click("edit").await;
    draw_zone(&mut page, (0.1, 0.1), (0.6, 0.9)).await;
    let first = wait_for_drawn(&mut page, |drawn| drawn["zones"]["zone1"].is_object()).await;
    let corners = [(0.1, 0.1), (0.6, 0.1), (0.6, 0.9), (0.1, 0.9)];
    assert_near(&first["zones"]["zone1"]["polygon"], &corners, 0.003);
    parse_events(&first).expect("the configuration accepts it");

    // A corner is dragged, the middle of an edge becomes a corner, and the whole zone is moved.
    let drag = places(&mut page, [(0.6, 0.9), (0.8, 0.95)]).await;
    page.drag_mouse(&drag).await;
    let drag = places(&mut page, [(0.1, 0.5), (0.05, 0.5)]).await;
    page.drag_mouse(&drag).await;
    let drag = places(&mut page, [(0.4, 0.4), (0.45, 0.35)]).await;
    page.drag_mouse(&drag).await;
    let corners = [(0.15, 0.05), (0.65, 0.05), (0.85, 0.9), (0.15, 0.85), (0.1, 0.45)];
    let moved = drawn(&mut page).await;
    assert_near(&moved["zones"]["zone1"]["polygon"], &corners, 0.006);
    page.click("undo").await;
    page.click("undo").await;
    page.click("undo").await;
    assert_eq!(drawn(&mut page).await, first);

    page.type_into("shape-name", "two words").await;
    page.wait_for_text("editor-error", "without accents and blanks").await;
    page.type_into("shape-name", "bay").await;
    page.type_into("shape-labels", "ball, car").await;
    page.click("new-line").await;
    let ends = places(&mut page, [(0.5, 0.05), (0.5, 0.5), (0.5, 0.95)]).await;
    page.drag_mouse(&ends).await;
    page.type_into("direction-0", "in").await;
    let named = drawn(&mut page).await;
    assert_eq!(named["zones"]["bay"]["labels"], json!(["ball", "car"]));
    assert_eq!(named["rules"]["bay-occupied"]["zone"], "bay");
    assert_eq!(
        named["lines"]["line1"]["directions"],
        json!({"left_to_right": "in", "right_to_left": "right_to_left"})
    );
    let clipboard =
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async text => { window.copied = text; }}})";
    page.eval(&format!("{clipboard}; 0")).await;
    page.click("copy").await;
    let copied = page.wait_for("window.copied", |copied| !copied.is_null()).await;
    assert_eq!(parse_events(&copied), parse_events(&named));
    page.screenshot("drawing").await;
    page.click("apply").await;
    page.wait_for_text("applied", "Applied. They stay until a deployment changes them")
        .await;
    let event = observer.wait_for("/events", "an event of the zone", |event| event["zone"] == "bay");
    assert_eq!(
        (&event["event"], &event["rule"]),
        (&json!("start"), &json!("bay-occupied"))
    );
    observer.wait_for("/events", "a crossing", |event| event["direction"] == "in");

    page.wait_for_text("last-events", "bay-occupied").await;
    page.wait_for_text("last-events", "ball #").await;
    page.wait_for_text("results", "ball #").await;
    page.wait_for_text("event-counts", "inside").await;
    let counted = "/in [1-9]/.test(document.getElementById('zones').textContent)";
    page.wait_for(counted, |counted| *counted == true).await;
    page.eval("scrollTo(0, 0)").await;
    page.screenshot("zones").await;

    // Deleting the zone also deletes its rule; without anything left, there are no events any more.
    page.click("edit").await;
    let inside = places(&mut page, [(0.2, 0.3)]).await;
    page.drag_mouse(&inside).await;
    page.click("delete-shape").await;
    let line = places(&mut page, [(0.5, 0.3)]).await;
    page.drag_mouse(&line).await;
    page.click("delete-shape").await;
    assert_eq!(page.eval("document.getElementById('events-json').value").await, "");
    page.click("apply").await;
    page.wait_for("document.getElementById('events').hidden", |hidden| *hidden == true)
        .await;
    assert_eq!(served.status().await["event_counts"], Value::Null);
    served.daemon.stop();
}

#[tokio::test]
async fn a_bad_zone_shows_its_error_and_cancel_forgets_it() {
    // Without a broker, a notice moves the picture.
    let broker = Mosquitto::start();
    let served = Served::ball(&broker.url(), &[]);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.click("edit").await;
    page.click("new-zone").await;
    let corners = places(&mut page, [(0.2, 0.2), (0.8, 0.8), (0.8, 0.2), (0.2, 0.8), (0.2, 0.2)]).await;
    for corner in corners {
        page.drag_mouse(&[corner]).await;
    }
    // The device checks while the person draws.
    page.wait_for_text("editor-error", "crosses or touches itself").await;
    page.click("apply").await;
    page.wait_for_text("editor-error", "crosses or touches itself").await;
    page.screenshot("bad-zone").await;

    // Dragged apart, it is a square.
    let drag = places(&mut page, [(0.8, 0.8), (0.5, 0.1)]).await;
    page.drag_mouse(&drag).await;
    page.wait_for("document.getElementById('editor-error').hidden", |hidden| {
        *hidden == true
    })
    .await;
    parse_events(&drawn(&mut page).await).unwrap();
    page.type_into("events-json", r#"{"zones": {"bay": {"polygon": 5}}}"#)
        .await;
    page.wait_for_text("editor-error", "zones.bay.polygon").await;
    page.type_into("events-json", "{").await;
    page.wait_for_text("editor-error", "is no JSON object").await;
    page.click("cancel").await;
    page.click("edit").await;
    assert_eq!(page.eval("document.getElementById('events-json').value").await, "");
    let (_, body) = served.get("/api/events").await;
    let config: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(config["events"], Value::Null);
    served.daemon.stop();
}

/// From now on, the answers of the device to checks wait until `release()` is called on the page.
const HOLD_CHECKS: &str = "(() => {
  const ask = window.fetch, held = [];
  window.fetch = (url, ...more) => !String(url).endsWith('/check') ? ask(url, ...more)
    : new Promise(resolve => held.push(() => ask(url, ...more).then(resolve)));
  window.heldChecks = () => held.length;
  window.release = async () => {
    await Promise.all(held.splice(0).map(send => send()));
    await new Promise(done => setTimeout(done));
  };
})()";

#[tokio::test]
async fn the_answer_to_an_earlier_check_does_not_hide_what_is_wrong_with_a_name() {
    // Without a broker, a notice moves the picture.
    let broker = Mosquitto::start();
    let served = Served::ball(&broker.url(), &[]);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.click("edit").await;
    page.wait_for_text("hint", "Click a zone").await;
    page.eval(HOLD_CHECKS).await;
    page.type_into(
        "events-json",
        r#"{"zones": {"bay": {"polygon": [[0, 0], [1, 0], [1, 1]]}}}"#,
    )
    .await;
    page.wait_for("heldChecks()", |held| *held == 1).await;
    let inside = places(&mut page, [(0.7, 0.4)]).await;
    page.drag_mouse(&inside).await;
    page.overtype("shape-name", "two words").await;
    press(&mut page, "Enter", 13, 0).await;
    page.eval("release()").await;
    let error = page.eval("document.getElementById('editor-error').textContent").await;
    assert!(error.as_str().unwrap().contains("“two words” is not a name"), "{error}");

    // With its old name the zone is checked again.
    page.type_into("shape-name", "bay").await;
    page.wait_for("heldChecks()", |held| *held == 1).await;
    page.eval("release()").await;
    assert_eq!(
        page.eval("document.getElementById('editor-error').textContent").await,
        ""
    );
    served.daemon.stop();
}

#[tokio::test]
async fn without_the_token_zones_are_not_applied() {
    // Without a broker, a notice moves the picture.
    let broker = Mosquitto::start();
    let served = Served::ball(&broker.url(), &["--set", "preview_token=let-me-in"]);
    let mut page = Chromium::open("about:blank#", View::DESK).await;
    page.call("Network.enable", json!({})).await;
    let proxied = json!({"headers": {"x-forwarded-for": "192.0.2.1"}});
    page.call("Network.setExtraHTTPHeaders", proxied).await;
    page.call("Page.navigate", json!({"url": served.url("/")})).await;
    page.click("edit").await;
    draw_zone(&mut page, (0.2, 0.2), (0.8, 0.8)).await;
    page.click("apply").await;
    page.wait_for_text("editor-error", "needs the token").await;
    page.type_into("token", "wrong").await;
    page.click("apply").await;
    page.wait_for_text("editor-error", "needs the token").await;
    page.type_into("token", "let-me-in").await;
    page.click("apply").await;
    page.wait_for_text("applied", "Applied").await;
    page.wait_for_text("zone-source", "Changed on the device").await;
    page.click("edit").await;
    page.click("as-deployed").await;
    page.wait_for_text("zone-source", "None yet").await;
    served.daemon.stop();
}

#[tokio::test]
async fn a_finger_draws_on_a_phone_and_the_page_fits() {
    // Without a broker, a notice moves the picture.
    let broker = Mosquitto::start();
    let served = Served::ball(&broker.url(), &[]);
    let mut page = Chromium::open(&served.url("/"), View::PHONE).await;
    page.call("Emulation.setTouchEmulationEnabled", json!({"enabled": true}))
        .await;
    page.click("edit").await;
    page.click("new-line").await;
    let ends = places(&mut page, [(0.1, 0.5), (0.5, 0.5), (0.9, 0.5)]).await;
    page.drag_finger(&ends).await;
    let line = wait_for_drawn(&mut page, |drawn| drawn["lines"]["line1"].is_object()).await;
    assert_near(
        &json!([line["lines"]["line1"]["from"], line["lines"]["line1"]["to"]]),
        &[(0.1, 0.5), (0.9, 0.5)],
        0.006,
    );
    assert_eq!(line["lines"]["line1"]["directions"]["top_to_bottom"], "top_to_bottom");

    // A finger need not hit the end of the line exactly. Turned, the line is crossed sideways.
    let drag = places(&mut page, [(0.9, 0.53), (0.5, 0.8), (0.2, 0.95)]).await;
    page.drag_finger(&drag).await;
    let turned = drawn(&mut page).await;
    assert_near(&json!([turned["lines"]["line1"]["to"]]), &[(0.2, 0.95)], 0.006);
    assert_eq!(turned["lines"]["line1"]["directions"]["left_to_right"], "left_to_right");
    parse_events(&turned).unwrap();

    page.click("new-zone").await;
    for corner in places(&mut page, [(0.3, 0.1), (0.9, 0.1), (0.6, 0.6)]).await {
        page.drag_finger(&[corner]).await;
    }
    page.click("finish").await;
    let both = drawn(&mut page).await;
    assert_near(
        &both["zones"]["zone1"]["polygon"],
        &[(0.3, 0.1), (0.9, 0.1), (0.6, 0.6)],
        0.006,
    );
    page.wait_until_it_fits(&["editor", "shape"]).await;
    page.eval("document.getElementById('picture').scrollIntoView()").await;
    page.screenshot("drawing-phone").await;
    page.click("apply").await;
    page.wait_for_text("last-events", "ball #").await;
    page.wait_until_it_fits(&["zone-bar", "event-counts", "last-events"])
        .await;
    page.eval("document.getElementById('picture').scrollIntoView()").await;
    page.screenshot("zones-phone").await;
    page.eval("document.getElementById('events').scrollIntoView()").await;
    page.screenshot("events-phone").await;
    served.daemon.stop();
}

#[tokio::test]
async fn zones_are_where_the_model_sees_them_on_pictures_in_the_cameras_resolution() {
    // Without a broker, a notice moves the picture.
    let broker = Mosquitto::start();
    let site = Site::new();
    let mut answers = script(&[json!({"bounding_boxes": []})]);
    answers["hello"] = hello(96, 96);
    answers["hello"]["model_parameters"]["image_resize_mode"] = "fit-shortest".into();
    let model = site.scripted_model(&answers);
    let black = "videotestsrc pattern=black is-live=true ! video/x-raw,width=1280,height=720,framerate=30/1";
    let arguments = [
        "--model",
        model.to_str().unwrap(),
        "--gst",
        black,
        "--set",
        "eiparams=--greengrass --preview-original-resolution",
    ];
    let served = Served::start_at(site, free_port(), &broker.url(), &arguments);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.wait_for("document.getElementById('view').width", |width| *width != 320)
        .await;
    page.click("edit").await;
    // The model sees the middle 720 of 1280 columns: its quarters begin at columns 460 and 820.
    draw_zone(&mut page, (460.0 / 1280.0, 0.25), (820.0 / 1280.0, 0.75)).await;
    let zone = wait_for_drawn(&mut page, |drawn| drawn["zones"]["zone1"].is_object()).await;
    let corners = [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)];
    assert_near(&zone["zones"]["zone1"]["polygon"], &corners, 0.003);
    // The way back: the zone is drawn at the same pixels of the picture.
    let points = page
        .eval("document.querySelector('[data-zone]').getAttribute('points')")
        .await;
    let first = points
        .as_str()
        .unwrap()
        .split([' ', ','])
        .map(|n| n.parse::<f64>().unwrap());
    let wanted = [460.0, 180.0, 820.0, 180.0, 820.0, 540.0, 460.0, 540.0];
    for (seen, wanted) in first.zip(wanted) {
        assert!((seen - wanted).abs() < 2.5, "{points}");
    }
    // What the model does not see cannot become part of a zone.
    draw_zone(&mut page, (0.02, 0.1), (0.5, 0.2)).await;
    let zone = wait_for_drawn(&mut page, |drawn| drawn["zones"]["zone2"].is_object()).await;
    assert_eq!(zone["zones"]["zone2"]["polygon"][0][0], 0);
    served.daemon.stop();
}

#[tokio::test]
async fn no_label_of_an_event_becomes_markup() {
    let evil = "<img src=x onerror=document.title='owned'>";
    let site = Site::new();
    let found = json!({"bounding_boxes": [{"label": evil, "value": 0.9, "x": 12, "y": 8, "width": 8, "height": 8}]});
    let model = site.scripted_model(&script(&[found]));
    let events = json!({
        "zones": {"all": {"polygon": [[0, 0], [1, 0], [1, 1], [0, 1]], "labels": [evil]}},
        "rules": {"there": {"zone": "all", "enter_after_ms": 0}}
    });
    let setting = format!("events={events}");
    let arguments = ["--model", model.to_str().unwrap(), "--gst", BALL, "--set", &setting];
    let served = Served::start_at(site, free_port(), NO_BROKER, &arguments);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.wait_for_text("last-events", evil).await;
    page.wait_for_text("zones", "all · 1").await;
    page.click("edit").await;
    let inside = places(&mut page, [(0.5, 0.5)]).await;
    page.drag_mouse(&inside).await;
    page.wait_for("document.getElementById('shape-labels').value", |labels| {
        *labels == evil
    })
    .await;
    assert_eq!(page.eval("document.querySelectorAll('main img').length").await, 0);
    assert_ne!(page.eval("document.title").await, "owned");
    served.daemon.stop();
}

#[tokio::test]
async fn rules_for_sound_are_written_as_json() {
    let tone = "audiotestsrc is-live=true freq=440 volume=0.5";
    let served = Served::start(NO_BROKER, &["--model", "builtin:audio", "--gst", tone]);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.wait_for_text("edit", "Edit rules").await;
    page.click("edit").await;
    assert_eq!(page.eval("document.getElementById('new-zone').hidden").await, true);
    page.type_into(
        "events-json",
        r#"{"rules": {"heard": {"label": "tone", "value_at_least": 0.5}}}"#,
    )
    .await;
    page.click("apply").await;
    page.wait_for_text("last-events", "heard").await;
    page.wait_for_text("event-counts", "1 event, 1 open").await;
    served.daemon.stop();
}

/// Presses a key where the focus is.
async fn press(page: &mut Chromium, key: &str, code: u32, modifiers: u32) {
    let mut event =
        json!({"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers});
    if key == "Enter" {
        event["text"] = json!("\r");
    }
    page.call("Input.dispatchKeyEvent", event.clone()).await;
    event["type"] = json!("keyUp");
    event.as_object_mut().unwrap().remove("text");
    page.call("Input.dispatchKeyEvent", event).await;
}

#[tokio::test]
async fn zones_and_lines_are_drawn_with_the_keyboard_alone() {
    const SHIFT: u32 = 8;
    let broker = Mosquitto::start();
    let served = Served::ball(&broker.url(), &[]);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.wait_for("document.getElementById('zone-bar').hidden", |hidden| *hidden == false)
        .await;
    let focused = "document.activeElement.id";
    page.eval("document.getElementById('edit').focus()").await;
    press(&mut page, "Enter", 13, 0).await;
    page.wait_for(focused, |id| *id == "new-zone").await;
    press(&mut page, "Enter", 13, 0).await;
    page.wait_for(focused, |id| *id == "zones").await;
    // The zone moves, then one corner.
    press(&mut page, "ArrowRight", 39, 0).await;
    press(&mut page, "ArrowUp", 38, SHIFT).await;
    press(&mut page, "Enter", 13, 0).await;
    press(&mut page, "ArrowLeft", 37, SHIFT).await;
    let zone = drawn(&mut page).await;
    let corners = [(0.26, 0.25), (0.71, 0.25), (0.71, 0.65), (0.31, 0.65)];
    assert_near(&zone["zones"]["zone1"]["polygon"], &corners, 1e-6);
    parse_events(&zone).unwrap();
    // A line; then the zone is chosen in the list and deleted.
    page.eval("document.getElementById('new-line').focus()").await;
    press(&mut page, "Enter", 13, 0).await;
    page.wait_for("document.getElementById('shape-choice').value", |value| {
        *value == "lines line1"
    })
    .await;
    let choose = "const list = document.getElementById('shape-choice'); list.value = 'zones zone1'; \
                  list.dispatchEvent(new Event('change')); document.getElementById('zones').focus()";
    page.eval(&format!("(() => {{ {choose} }})()")).await;
    page.screenshot("drawing-keyboard").await;
    press(&mut page, "Delete", 46, 0).await;
    let line = drawn(&mut page).await;
    assert_eq!(
        (&line["zones"]["zone1"], &line["lines"]["line1"]["from"]),
        (&Value::Null, &json!([0.5, 0.2]))
    );
    page.eval("document.getElementById('cancel').focus()").await;
    press(&mut page, "Enter", 13, 0).await;
    page.wait_for(focused, |id| *id == "edit").await;
    served.daemon.stop();
}
