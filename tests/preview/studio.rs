//! What the page and `/api/status` show of Edge Impulse Studio.

use serde_json::{Value, json};

use crate::preview::chromium::{Chromium, View};
use crate::preview::client::{BALL, NO_BROKER, Served};
use crate::support::daemon::Site;
use crate::support::http::{HttpServer, Reply, Request};
use crate::support::ports::free_port;
use crate::support::remote_management::{Connection, OnHello, RemoteManagement};
use crate::support::scripts::{boxed, script};
use crate::support::studio::{self as stand_in, API_KEY, good_secret};

/// A label that must not become markup.
const EVIL: &str = "<img src=x onerror=document.title='owned'>";

/// API and ingestion: the label of a sample decides what comes of it.
fn answer(request: &Request) -> Reply {
    let project = json!({"id": 42, "name": "Tutorial", "owner": "tests"});
    if request.path.ends_with("/api/projects") {
        return Reply::json(&json!({"success": true, "projects": [project]}));
    }
    if !request.path.ends_with("/files") {
        return Reply::json(&json!({"success": true, "device": {"name": "Gate camera"}}));
    }
    match request.headers["x-label"].as_str() {
        "dark" => Reply::json(&json!({"success": false, "error": "the picture is too dark"})).status(400),
        "later" => Reply::bytes("text/plain", "busy").status(503),
        _ => Reply::json(&json!({"success": true, "files": [{"success": true}]})),
    }
}

fn ask_for_picture(connection: &Connection, label: &str) {
    connection.send(&json!({"sample": {
        "label": label, "length": 10, "path": "/api/training/data", "hmacKey": "0", "interval": 10, "sensor": "Camera (640x480)",
    }}));
}

/// A component that collects, with a Studio that answers hellos like this.
fn collecting(on_hello: OnHello) -> (Served, RemoteManagement, [HttpServer; 2]) {
    let (remote, http) = (RemoteManagement::start(on_hello), HttpServer::start(answer));
    let secrets = stand_in::secrets(&good_secret());
    let arguments = ["--model", "builtin:ball", "--gst", BALL, "--set", "collect=yes"];
    let served = Served::start_with(Site::new(), free_port(), NO_BROKER, &arguments, |command| {
        stand_in::surround(command, &secrets.url(), &http.url());
        command
            .env("EI_REMOTE_MGMT_URL", remote.url())
            .env("EI_INGESTION_URL", http.url());
    });
    (served, remote, [http, secrets])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_channel_the_project_and_what_came_of_the_last_uploads() {
    let (served, remote, [http, _secrets]) = collecting(OnHello::Accept);
    let (connection, _) = remote.hello(0);
    ask_for_picture(&connection, EVIL);
    connection.wait_for(&json!({"sampleFinished": true}));
    for (nth, label) in ["dark", "later"].into_iter().enumerate() {
        ask_for_picture(&connection, label);
        connection.wait_for_nth(&json!({"sample": false}), nth);
    }
    let status = served
        .wait_for_status("the project", |status| !status["studio"]["project"].is_null())
        .await;
    let studio = &status["studio"];
    assert_eq!((&studio["state"], &studio["waiting"]), (&json!("online"), &json!(1)));
    let link = format!("{}/studio/42/acquisition/training", http.url());
    assert_eq!(
        studio["project"],
        json!({"name": "Tutorial", "device": "Gate camera", "link": link})
    );
    let shown: Vec<_> = ["name", "label", "category", "state", "reason"]
        .iter()
        .map(|member| studio["uploads"][1][member].clone())
        .collect();
    let refused = ["dark.jpg", "dark", "training", "refused", "the picture is too dark"];
    assert_eq!(shown, refused.map(Value::from));
    let states: Vec<_> = (0..3).map(|nth| studio["uploads"][nth]["state"].clone()).collect();
    assert_eq!(states, ["waiting", "refused", "uploaded"]);
    assert!(
        studio["uploads"][0]["reason"].as_str().unwrap().contains("503"),
        "{studio}"
    );
    assert!(!status.to_string().contains(API_KEY));

    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.wait_for_text("pill-studio", "connected").await;
    page.wait_for_text("studio-project", "Tutorial").await;
    page.wait_for_text("studio-device", "Gate camera").await;
    let href = "document.querySelector('#studio-project a').href";
    assert_eq!(page.eval(href).await, link);
    page.wait_for_text("studio-samples", "1 uploaded, 1 waiting, 1 refused, 0 lost")
        .await;
    let uploads = page.wait_for_text("uploads", EVIL).await;
    for part in [
        "later.jpg",
        "training",
        "the picture is too dark",
        "refused",
        "waiting",
        "uploaded",
        "kB",
    ] {
        assert!(uploads.contains(part), "{part}: {uploads}");
    }
    assert_eq!(page.eval("document.querySelectorAll('#uploads img').length").await, 0);
    assert_ne!(page.eval("document.title").await, "owned");
    page.wait_until_it_fits(&["studio-state", "uploads"]).await;
    page.eval("document.getElementById('studio').scrollIntoView()").await;
    page.screenshot("studio").await;
    page.look(View::PHONE).await;
    page.wait_until_it_fits(&["studio-state", "studio-samples", "uploads"])
        .await;
    page.eval("document.getElementById('studio').scrollIntoView()").await;
    page.screenshot("studio-phone").await;
    page.look(View {
        dark: true,
        ..View::PHONE
    })
    .await;
    page.screenshot("studio-phone-dark").await;
    served.daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_the_data_collection_shows_studio_and_no_model() {
    let (remote, http) = (RemoteManagement::start(OnHello::Accept), HttpServer::start(answer));
    let secrets = stand_in::secrets(&good_secret());
    let eiparams = "eiparams=--greengrass --disable-microphone";
    let arguments = ["--gst", BALL, "--set", "launch=linux", "--set", eiparams];
    let served = Served::start_with(Site::new(), free_port(), NO_BROKER, &arguments, |command| {
        stand_in::surround(command, &secrets.url(), &http.url());
        command
            .env("EI_REMOTE_MGMT_URL", remote.url())
            .env("EI_INGESTION_URL", http.url());
    });
    let (connection, _) = remote.hello(0);
    ask_for_picture(&connection, "cat");
    connection.wait_for(&json!({"sampleFinished": true}));
    let mut page = Chromium::open(&served.url("/"), View::PHONE).await;
    page.wait_for_text("pill-studio", "connected").await;
    page.wait_for_text("pill-model", "off").await;
    page.wait_for_text("pill-source", "running").await;
    page.wait_for_text("model-name", "Collects data for Edge Impulse Studio")
        .await;
    page.wait_for_text("notice", "Without a model there is no live picture")
        .await;
    page.wait_for_text("uploads", "cat.jpg").await;
    page.wait_until_it_fits(&["notice", "uploads"]).await;
    let empty = "[...document.querySelectorAll('.of-model')].some(part => part.getBoundingClientRect().height > 0)";
    assert_eq!(page.eval(empty).await, false);
    page.screenshot("collection-phone").await;
    served.daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_frames_that_are_uploaded_without_a_connection() {
    let (http, secrets) = (HttpServer::start(answer), stand_in::secrets(&good_secret()));
    let site = Site::new();
    let model = site.scripted_model(&script(&[boxed(0.5)]));
    let arguments = [
        "--model",
        model.to_str().unwrap(),
        "--gst",
        BALL,
        "--set",
        "collect_uncertain=0.4-0.6",
    ];
    let served = Served::start_with(site, free_port(), NO_BROKER, &arguments, |command| {
        stand_in::surround(command, &secrets.url(), &http.url());
        command.env("EI_INGESTION_URL", http.url());
    });
    let mut page = Chromium::open(&served.url("/"), View::PHONE).await;
    page.wait_for_text("uploads", "thing").await;
    page.wait_for_text("uploads", "uploaded").await;
    page.wait_for_text("studio-state", "none; frames are uploaded without it")
        .await;
    assert_eq!(page.eval("document.getElementById('pill-studio').hidden").await, true);
    page.wait_until_it_fits(&["studio-state", "uploads"]).await;
    page.eval("document.getElementById('studio').scrollIntoView()").await;
    page.screenshot("frames-phone").await;
    served.daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_why_studio_refuses_the_device_and_nothing_of_studio_when_it_is_off() {
    let (served, _remote, _servers) = collecting(OnHello::Refuse("Invalid API key"));
    let mut page = Chromium::open(&served.url("/"), View::PHONE).await;
    page.wait_for_text("pill-studio", "refused").await;
    page.wait_for_text("studio-state", "Invalid API key").await;
    page.wait_for_text("studio-project", "not known yet").await;
    page.wait_until_it_fits(&["studio-state", "banner"]).await;
    served.daemon.stop();

    let served = Served::ball(NO_BROKER, &[]);
    let mut page = Chromium::open(&served.url("/"), View::DESK).await;
    page.wait_for_text("pill-source", "running").await;
    let hidden = "['studio', 'pill-studio', 'versions'].every(id => document.getElementById(id).hidden)";
    assert_eq!(page.eval(hidden).await, true);
    served.daemon.stop();
}
