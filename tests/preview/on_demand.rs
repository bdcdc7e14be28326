//! `--run-http-server`: the model behind HTTP, without camera and broker.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::daemon::{Daemon, Site};
use crate::support::ports::free_port;

pub struct Server {
    pub daemon: Daemon,
    pub port: u16,
    client: reqwest::Client,
    _site: Site,
}

impl Server {
    pub fn start(model: &str) -> Self {
        let (site, port) = (Site::new(), free_port());
        let params = format!("eiparams=--greengrass --run-http-server {port}");
        let mut command = site.command("run");
        command.args(["--model", model, "--set", &params, "--set", "preview_host=127.0.0.1"]);
        let daemon = Daemon::start(command);
        daemon.wait_for_line("Listening server=\"inference server\"");
        daemon.wait_for_line("is loaded");
        Self {
            daemon,
            port,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            _site: site,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn post_picture(&self, field: &str, file: Vec<u8>) -> (u16, String) {
        let head = format!(
            "--edge\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"a\"\r\nContent-Type: image/jpeg\r\n\r\n"
        );
        let body = [head.as_bytes(), &file, b"\r\n--edge--\r\n"].concat();
        let request = self.client.post(self.url("/api/image")).body(body);
        let request = request.header("content-type", "multipart/form-data; boundary=edge");
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn post_features(&self, body: &Value) -> (u16, String) {
        let answer = self
            .client
            .post(self.url("/api/features"))
            .json(body)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

/// A white disc on black.
fn disc(width: u32, height: u32, centre: (f64, f64), radius: f64, format: ImageFormat) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| {
        let inside = (f64::from(x) + 0.5 - centre.0).hypot(f64::from(y) + 0.5 - centre.1) <= radius;
        Rgb([if inside { 255 } else { 0 }; 3])
    });
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[tokio::test]
async fn the_boxes_of_a_posted_picture_are_in_its_own_pixels() {
    let server = Server::start("builtin:ball");
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        let (code, text) = server
            .post_picture("file", disc(1280, 720, (900.0, 200.0), 60.0, format))
            .await;
        assert_eq!(code, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        let found = &answer["result"]["bounding_boxes"][0];
        let middle = |at: &str, size: &str| found[at].as_f64().unwrap() + found[size].as_f64().unwrap() / 2.0;
        assert!(
            (middle("x", "width") - 900.0).abs() < 8.0 && (middle("y", "height") - 200.0).abs() < 8.0,
            "{found}"
        );
        let resized = &answer["result"]["resized"];
        assert_eq!(
            *resized,
            json!({"originalWidth": 1280, "originalHeight": 720, "newWidth": 320, "newHeight": 320})
        );
        assert!(
            answer["result"]["resizeMode"].is_string() && answer["timing"]["classification"].is_number(),
            "{text}"
        );
        assert!(text.starts_with("{\n    \"result\"") && text.ends_with("}\n"));
    }
    for (field, file, said) in [
        ("file", b"no picture".to_vec(), "cannot be read as a picture"),
        (
            "photo",
            disc(8, 8, (4.0, 4.0), 2.0, ImageFormat::Png),
            "Missing \"file\"",
        ),
    ] {
        let (code, text) = server.post_picture(field, file).await;
        assert_eq!((code, text.contains(said)), (400, true), "{text}");
    }
    let bare = server.client.post(server.url("/api/image")).send().await.unwrap();
    assert_eq!(bare.status(), 400);
    assert!(bare.text().await.unwrap().contains("multipart/form-data"));
    server.daemon.stop();
}

#[tokio::test]
async fn posted_features_are_classified_and_the_model_is_described() {
    let server = Server::start("builtin:nop=8x4");
    let (code, text) = server.post_features(&json!({"features": vec![0; 32]})).await;
    assert_eq!(code, 200, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert!(
        answer["result"]["bounding_boxes"].is_array() && answer["timing"].is_object(),
        "{text}"
    );
    let (code, text) = server.post_features(&json!({"features": [1]})).await;
    assert_eq!((code, text.as_str()), (400, "Expected 32 features, but received 1\n"));

    let info = server.client.get(server.url("/api/info")).send().await.unwrap();
    let header = |name: &str| info.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(
        (header("x-ei-owner").as_str(), header("x-ei-project-version").as_str()),
        ("ei-greengrass", "1")
    );
    let info: Value = info.json().await.unwrap();
    assert_eq!(info["modelParameters"]["input_features_count"], 32);
    assert_eq!(info["modelParameters"]["has_visual_anomaly_detection"], false);
    let page = server.client.get(server.url("/")).send().await.unwrap();
    assert!(page.headers().contains_key("content-security-policy"));
    server.daemon.stop();
}

#[tokio::test]
async fn a_failed_model_gives_an_error_response_and_is_restarted() {
    let server = Server::start("builtin:crash=1");
    let features = json!({"features": vec![0; 320 * 320]});
    assert_eq!(server.post_features(&features).await.0, 200);
    let (code, text) = server.post_features(&features).await;
    assert_eq!(code, 503, "{text}");
    server.daemon.wait_for_lines("is loaded", 2);
    assert_eq!(server.post_features(&features).await.0, 200);
    server.daemon.stop();
}

#[tokio::test]
async fn a_client_that_sends_no_body_does_not_block_other_clients_for_long() {
    let server = Server::start("builtin:nop=8x4");
    let mut silent = Vec::new();
    for _ in 0..4 {
        let mut client = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
        let head =
            "POST /api/features HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        // The server sends this when it begins to read the body.
        let mut continue_line = [0; 25];
        client.read_exact(&mut continue_line).await.unwrap();
        assert_eq!(&continue_line, b"HTTP/1.1 100 Continue\r\n\r\n");
        silent.push(client);
    }
    let (code, text) = server.post_features(&json!({"features": vec![0; 32]})).await;
    assert_eq!(code, 200, "{text}");
    for mut client in silent {
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.contains("no part of the body arrived for 10 s"), "{answer}");
    }
    server.daemon.stop();
}

/// Peak memory of a process in MB.
fn peak_megabytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn a_small_file_with_a_huge_picture_is_refused_without_using_memory() {
    let server = Server::start("builtin:ball");
    let mut file = Cursor::new(Vec::new());
    image::GrayImage::new(8000, 8000)
        .write_to(&mut file, ImageFormat::Png)
        .unwrap();
    let (code, text) = server.post_picture("file", file.into_inner()).await;
    assert_eq!(code, 400);
    assert!(
        text.contains("the picture has 8000 x 8000 pixels; accepted: at most 50 million in total"),
        "{text}"
    );
    let zeros = vec![0; 3_000_000];
    let (code, text) = server.post_features(&json!({"features": zeros})).await;
    assert_eq!(code, 400);
    assert!(text.contains("but received 3000000"), "{text}");
    let peak = peak_megabytes(server.daemon.pid());
    assert!(peak < 100, "{peak} MB");
    server.daemon.stop();
}

#[tokio::test]
async fn web_pages_of_other_sites_cannot_use_the_inference_server() {
    let server = Server::start("builtin:nop=8x4");
    let features = json!({"features": vec![0; 32]}).to_string();
    let own = format!("http://127.0.0.1:{}", server.port);
    let json = ("content-type", "application/json");
    let evil = ("origin", "http://evil.example");
    let rebound = [("host", "evil.example:1337"), ("origin", "http://evil.example:1337")];
    for (path, headers, status) in [
        ("/api/features", vec![json], 200),
        (
            "/api/features",
            vec![("content-type", "application/json; charset=utf-8")],
            200,
        ),
        ("/api/features", vec![json, ("origin", own.as_str())], 200),
        ("/api/features", vec![json, ("host", "localhost")], 200),
        ("/api/features", vec![json, ("host", "192.0.2.7:1337")], 200),
        ("/api/features", vec![json, evil], 403),
        ("/api/features", vec![("content-type", "text/plain"), evil], 403),
        ("/api/features", vec![json, ("origin", "null")], 403),
        ("/api/features", vec![json, rebound[0], rebound[1]], 403),
        ("/api/features", vec![json, rebound[0]], 403),
        ("/api/features", vec![("content-type", "text/plain")], 415),
        (
            "/api/features",
            vec![("content-type", "application/x-www-form-urlencoded")],
            415,
        ),
        (
            "/api/features",
            vec![("content-type", "multipart/form-data; boundary=a")],
            415,
        ),
        ("/api/image", vec![json], 400),
        (
            "/api/image",
            vec![("content-type", "multipart/form-data; boundary=a"), evil],
            403,
        ),
        ("/nothing", vec![], 404),
        ("/api/info", vec![], 405),
    ] {
        let mut request = server.client.post(server.url(path)).body(features.clone());
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let case = format!("{path} {headers:?}");
        assert_eq!(answer.status(), status, "{case}");
        check_headers(answer.headers(), &case);
    }
    for (path, header) in [("/", rebound[0]), ("/api/info", rebound[0]), ("/api/info", evil)] {
        let request = server.client.get(server.url(path)).header(header.0, header.1);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 403, "{path} {header:?}");
        check_headers(answer.headers(), path);
        assert!(!answer.headers().contains_key("x-ei-owner"));
    }
    let asked = server
        .client
        .request(reqwest::Method::OPTIONS, server.url("/api/features"));
    let asked = asked
        .header(evil.0, evil.1)
        .header("access-control-request-method", "POST");
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 403);
    check_headers(answer.headers(), "preflight");
    server.daemon.stop();
}

/// What every answer of both servers has.
pub fn check_headers(headers: &reqwest::header::HeaderMap, case: &str) {
    assert_eq!(headers["x-content-type-options"], "nosniff", "{case}");
    assert_eq!(headers["cross-origin-resource-policy"], "same-origin", "{case}");
    assert!(!headers.contains_key("access-control-allow-origin"), "{case}");
}
