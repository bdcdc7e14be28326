//! What clients of the two servers send.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ei_greengrass::config::PreviewConfig;
use ei_greengrass::device::Topics;
use ei_greengrass::events::{EventRecorder, EventSettings};
use ei_greengrass::fuzzing::http::{check_access, picture as prepare, read_features, read_upload};
use ei_greengrass::fuzzing::model::parse_hello;
use ei_greengrass::http::live_page;
use ei_greengrass::inference::LiveTap;
use ei_greengrass::model::{BoundingBox, InferenceResult, ModelInfo};
use ei_greengrass::status::stats::Stats;
use ei_greengrass::status::{ComponentInfo, LinkStatus, StatusRegistry};
use ei_greengrass::uplink::Outbox;
use ei_greengrass::uplink::outbox::OutboxBounds;
use ei_greengrass::util::secret::Secret;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use crate::input::{Input, SECRET, assert_hidden, runtime, scratch};

const HEADERS: [&str; 10] = [
    "host",
    "origin",
    "authorization",
    "sec-fetch-site",
    "sec-fetch-mode",
    "x-forwarded-for",
    "forwarded",
    "via",
    "content-type",
    "cf-connecting-ip",
];

/// Access rules: without the token nobody but this machine may change settings, and no other web site may read.
pub fn request(data: &[u8]) {
    let mut input = Input(data);
    let is_local = input.byte() % 2 == 1;
    let Ok(uri) = input.part_text().parse::<Uri>() else {
        return;
    };
    let mut headers = HeaderMap::new();
    while !input.is_empty() && headers.len() < 20 {
        let name = HEADERS[usize::from(input.byte()) % HEADERS.len()];
        if let Ok(value) = HeaderValue::from_bytes(input.part()) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let (may_read, may_change, refusal) = check_access(SECRET, &headers, &uri, is_local);
    assert!(
        !may_change || is_local,
        "a client of another machine has guessed the token"
    );
    assert!(refusal.len() < 1000, "a refusal is bounded");
    assert_hidden([refusal]);
    let origin = headers.get("origin").and_then(|origin| origin.to_str().ok());
    if let (true, Some(origin), Some(host)) = (may_read, origin, headers.get("host")) {
        let host = host.to_str().unwrap_or_default().to_ascii_lowercase();
        let host = host.split(':').next().unwrap_or_default();
        assert!(origin.to_ascii_lowercase().contains(host), "{origin} reads {host}");
    }
}

/// The live page of this process.
struct Page {
    port: u16,
    /// The page runs on it.
    _runtime: Runtime,
}

impl Page {
    fn start() -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        let config = PreviewConfig {
            enabled: true,
            host: "127.0.0.1".to_owned(),
            port,
            token: Some(Secret::new(SECRET)),
        };
        let (stats, tap) = (Arc::new(Stats::default()), Arc::new(LiveTap::new(false)));
        let outbox = Arc::new(Outbox::new(OutboxBounds::default(), stats.clone()));
        let component = ComponentInfo {
            device: "device".to_owned(),
            live_page: true,
            local_topics: false,
        };
        let registry = StatusRegistry::new(
            component,
            Arc::new(LinkStatus::Off),
            tap.clone(),
            outbox.clone(),
            stats.clone(),
        );
        // Events are not written, because they are off until a client sets them; then they are in memory while it is there.
        let directory = scratch();
        let events = EventRecorder::start(
            directory.path(),
            Arc::new(Topics::new("device")),
            outbox,
            stats,
            EventSettings::default(),
        );
        let entered = runtime.enter();
        let page = live_page::start(
            &config,
            directory.path().to_owned(),
            tap,
            Arc::new(registry),
            Some(events),
        );
        // It serves as long as the process.
        std::mem::forget(page);
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the page is served");
            std::thread::yield_now();
        }
        drop(entered);
        Self {
            port,
            _runtime: runtime,
        }
    }
}

fn page() -> &'static Page {
    static PAGE: OnceLock<Page> = OnceLock::new();
    PAGE.get_or_init(Page::start)
}

/// A connection to the live page: requests, bodies, frames of WebSockets.
pub fn connection(data: &[u8]) {
    let page = page();
    let mut input = Input(data);
    let is_websocket = input.byte() % 4 == 0;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, page.port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
    let _ = stream.set_nodelay(true);
    if is_websocket {
        let path = if input.byte() % 2 == 0 { "/" } else { "/live" };
        let upgrade = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let _ = stream.write_all(upgrade.as_bytes());
    }
    // The server may close the connection before it has read everything.
    let _ = stream.write_all(input.0);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while answer.len() < 1 << 20 {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(read) => answer.extend_from_slice(&chunk[..read]),
        }
    }
    assert!(answer.len() < 1 << 20, "an answer is bounded");
    assert_hidden([String::from_utf8_lossy(&answer)]);
}

/// The body of `/api/features`.
pub fn features(data: &[u8]) {
    let mut input = Input(data);
    let expected = usize::from(input.byte());
    match read_features(input.0, expected) {
        Ok(values) => {
            assert_eq!(values.len(), expected);
            assert!(values.iter().all(|value| value.is_finite()));
        }
        Err(error) => assert!(error.len() < 2000, "an error is bounded"),
    }
}

/// The form with a picture.
pub fn upload(data: &[u8]) {
    let mut input = Input(data);
    let content_type = match input.byte() % 4 {
        0 => input.part(),
        _ => b"multipart/form-data; boundary=x",
    };
    let body = input.0.to_vec();
    let length = body.len();
    let file = runtime().block_on(read_upload(content_type, body));
    assert!(file.is_none_or(|file| file.len() <= length));
}

/// A model that looks at pictures.
fn camera_model(resize: &str) -> ModelInfo {
    let hello = json!({
        "id": 1, "success": true,
        "project": {"id": 1, "name": "p", "owner": "o", "deploy_version": 1},
        "model_parameters": {
            "sensor": 3, "image_input_width": 32, "image_input_height": 24, "image_channel_count": 3, "image_input_frames": 1,
            "input_features_count": 768, "label_count": 1, "labels": ["a"], "model_type": "object_detection",
            "image_resize_mode": resize, "has_anomaly": 0, "axis_count": 1, "frequency": 0
        }
    });
    let answer = hello.as_object().cloned().unwrap_or_default();
    parse_hello(answer).expect("a model").info
}

/// JPEG, PNG, WebP, GIF and BMP.
pub fn picture(data: &[u8]) {
    static MODELS: OnceLock<[ModelInfo; 3]> = OnceLock::new();
    let models = MODELS.get_or_init(|| ["squash", "fit-shortest", "fit-longest"].map(camera_model));
    let mut input = Input(data);
    let model = &models[usize::from(input.byte()) % 3];
    match prepare(input.0, model) {
        Ok(prepared) => {
            assert_eq!(prepared.features.len(), 32 * 24);
            let colours = 0.0..=16_777_215.0;
            assert!(prepared.features.iter().all(|value| colours.contains(value)));
            let far = BoundingBox {
                label: "a".to_owned(),
                value: 0.5,
                x: i64::MIN,
                y: -5,
                width: i64::MAX,
                height: i64::MAX,
                object_id: None,
            };
            let mut result = InferenceResult {
                bounding_boxes: Some(vec![far]),
                ..InferenceResult::default()
            };
            let mut shown = json!({});
            prepared.map_back(&mut result, &mut shown);
            let found = &result.bounding_boxes.expect("boxes")[0];
            let size = |name: &str| shown["resized"][name].as_i64().expect("a size");
            assert!(
                found.x >= 0 && found.x + found.width <= size("originalWidth"),
                "{found:?}"
            );
            assert!(
                found.y >= 0 && found.y + found.height <= size("originalHeight"),
                "{found:?}"
            );
        }
        Err(error) => assert!(error.len() < 2000, "an error is bounded"),
    }
}
