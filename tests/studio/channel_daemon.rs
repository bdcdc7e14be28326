//! The channel in the whole component.

use std::process::Command;

use serde_json::json;

use super::{assert_no_secret, assert_none_of};
use crate::support::daemon::{Daemon, LIMIT, Site};
use crate::support::http::{HttpServer, Reply};
use crate::support::remote_management::{OnHello, RemoteManagement};
use crate::support::studio::{self as stand_in, API_KEY, good_secret};

const BALL: &str = "videotestsrc pattern=ball is-live=true ! video/x-raw,width=640,height=480,framerate=30/1";
/// Nobody listens there.
const NO_BROKER: &str = "mqtt://127.0.0.1:9";

/// A component with the ball finder, whose Studio is the stand-in.
struct Bench {
    site: Site,
    remote: RemoteManagement,
    secrets: HttpServer,
    studio: HttpServer,
}

impl Bench {
    fn new(on_hello: OnHello) -> Self {
        Self {
            site: Site::new(),
            remote: RemoteManagement::start(on_hello),
            secrets: stand_in::secrets(&good_secret()),
            studio: stand_in::studio(&stand_in::state(Vec::new())),
        }
    }

    fn run(&self, change: impl FnOnce(&mut Command)) -> Daemon {
        let mut command = self.site.command("run");
        command.args(["--mqtt", NO_BROKER, "--model", "builtin:ball", "--gst", BALL]);
        stand_in::surround(&mut command, &self.secrets.url(), &self.studio.url());
        command
            .env("EI_REMOTE_MGMT_URL", self.remote.url())
            .env("RUST_LOG", "trace");
        change(&mut command);
        Daemon::start(command)
    }
}

#[test]
fn collecting_connects_with_the_key_of_the_secret_and_nobody_sees_it() {
    let bench = Bench::new(OnHello::Accept);
    let daemon = bench.run(|c| {
        c.args(["--set", "collect=yes"]);
    });
    let (_, hello) = bench.remote.hello(0);
    assert_eq!(hello["hello"]["apiKey"], API_KEY);
    assert_eq!(hello["hello"]["mode"], "ingestion");
    daemon.wait_for_line("Connected to Edge Impulse Studio");
    assert_no_secret(&daemon.stop());
}

#[test]
fn a_refused_key_is_told_once_and_does_not_stop_the_inference() {
    let bench = Bench::new(OnHello::Refuse("Invalid API key"));
    let port = crate::support::ports::free_port();
    let daemon = bench.run(|c| {
        let page = format!("preview_port={port}");
        c.args(["--set", "collect=yes", "--set", "preview=on", "--set", &page]);
    });
    let line = daemon.wait_for_line("Edge Impulse Studio refuses this device");
    assert!(
        line.contains("Invalid API key") && line.contains("retry_in=300s"),
        "{line}"
    );
    let text = daemon.wait_for_line("Capture started");
    assert!(text.contains("videotestsrc"), "{text}");
    daemon.wait_for_line("Listening server=\"live page\"");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let status: serde_json::Value = runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://127.0.0.1:{port}/api/status");
        client.get(url).send().await.unwrap().json().await.unwrap()
    });
    assert_eq!(status["health"]["studio"], "refused");
    assert_eq!(status["studio"]["state"], "refused");
    let problems = status["problems"].to_string();
    assert!(
        problems.contains("studio: Edge Impulse Studio refuses this device: Invalid API key"),
        "{problems}"
    );
    assert_eq!(bench.remote.connections.with(<[_]>::len), 1);
    let log = daemon.stop();
    assert_eq!(
        log.matches("ERROR Edge Impulse Studio refuses this device").count(),
        1,
        "{log}"
    );
    assert_no_secret(&log);
}

#[test]
fn nothing_connects_to_studio_unless_the_configuration_asks_for_it() {
    let bench = Bench::new(OnHello::Accept);
    let daemon = bench.run(|_| {});
    daemon.wait_for_line("Capture started");
    daemon.stop();
    assert_eq!(bench.remote.connections.with(<[_]>::len), 0);
    assert_eq!(bench.secrets.count("/"), 0);
}

#[test]
fn the_channel_goes_through_the_proxy_of_the_environment() {
    let bench = Bench::new(OnHello::Accept);
    let proxy = HttpServer::start(|_| Reply::bytes("text/plain", "no").status(403));
    let with_password = proxy.url().replace("http://", "http://me:hunter2@");
    let daemon = bench.run(|c| {
        c.args(["--set", "collect=yes"])
            .env("HTTPS_PROXY", &with_password)
            .env("EI_REMOTE_MGMT_URL", "wss://remote-mgmt.example.org");
    });
    let request = proxy.requests.wait_for("CONNECT", LIMIT, |all| {
        all.iter().find(|request| request.method == "CONNECT").cloned()
    });
    assert!(request.headers.contains_key("proxy-authorization"));
    let line = daemon.wait_for_line("No connection to Edge Impulse Studio");
    assert!(
        line.contains("remote-mgmt.example.org") && line.contains("HTTPS_PROXY"),
        "{line}"
    );
    assert_none_of(&["hunter2"], &daemon.stop());
}

#[test]
fn check_online_tries_the_channel_without_a_hello_and_ingestion_without_a_sample() {
    let bench = Bench::new(OnHello::Accept);
    let check = |url: &str, ingestion: &str| {
        let mut command = bench.site.command("check");
        command.args([
            "--online",
            "--mqtt",
            NO_BROKER,
            "--model",
            "builtin:ball",
            "--gst",
            BALL,
        ]);
        command.args(["--set", "collect=yes"]);
        stand_in::surround(&mut command, &bench.secrets.url(), &bench.studio.url());
        command
            .env("EI_REMOTE_MGMT_URL", url)
            .env("EI_INGESTION_URL", ingestion);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let ingestion = HttpServer::start(|request| {
        let (status, error) = match request.headers.get("x-api-key").map(String::as_str) {
            Some(API_KEY) => (400, "no file in the request"),
            _ => (401, "Invalid API key"),
        };
        Reply::json(&json!({"success": false, "error": error})).status(status)
    });
    let text = check(&bench.remote.url(), &ingestion.url());
    assert!(text.contains("  studio_channel: ok ("), "{text}");
    assert!(text.contains("  studio: ok ("), "{text}");
    assert_eq!(bench.remote.connection(0).count(&json!({"hello": "*"})), 0);
    assert!(
        text.contains("  studio_ingestion: ok (") && text.contains("no file in the request"),
        "{text}"
    );
    let request = ingestion.requests.with(|all| all[0].clone());
    assert_eq!((&*request.method, &*request.path), ("POST", "/api/training/files"));
    assert!(!String::from_utf8_lossy(&request.body).contains("name="), "no part");

    let refusing =
        HttpServer::start(|_| Reply::json(&json!({"success": false, "error": "Invalid API key"})).status(401));
    let text = check(&bench.studio.url().replace("http", "ws"), &refusing.url());
    assert!(
        text.contains("  studio_ingestion: FAILS (") && text.contains("create a key in Studio"),
        "{text}"
    );
    assert!(
        text.contains("  studio_channel: FAILS (") && text.contains("instead of a WebSocket"),
        "{text}"
    );
}
