//! Plays an exchange of `tests/data/studio/exchanges.jsonl` with a device, as Studio.

use std::sync::Arc;

use serde_json::{Value, json};

use super::daemon::LIMIT;
use super::http::{HttpServer, Reply, Request};
use super::remote_management::{Connection, OnHello, RemoteManagement, matches};

const EXCHANGES: &str = include_str!("../data/studio/exchanges.jsonl");

/// The steps of one exchange.
fn steps(case: &str) -> Vec<Value> {
    let lines = EXCHANGES
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut lines = lines.skip_while(|line| line["case"] != case);
    lines.next().expect("the exchange exists");
    lines.take_while(|line| line.get("case").is_none()).collect()
}

/// A Studio of project 1 that plays an exchange: remote management, API and ingestion.
pub struct ExchangeStudio {
    pub remote: RemoteManagement,
    /// API and ingestion.
    pub http: HttpServer,
    steps: Vec<Value>,
}

impl ExchangeStudio {
    /// Serves `case`.
    pub fn new(case: &str) -> Self {
        let steps = steps(case);
        let refusal = steps.iter().find(|step| step["s"]["hello"] == false);
        let on_hello = match refusal {
            Some(_) => OnHello::Refuse("Invalid API key"),
            None => OnHello::Accept,
        };
        let answers = steps.clone();
        let http = HttpServer::start(move |request| {
            if request.path == "/v1/api/projects" {
                let project = json!({"id": 1, "name": "Tutorial", "owner": "tests"});
                return Reply::json(&json!({"success": true, "projects": [project]}));
            }
            match answers.iter().find(|step| is_request(&step["http"], request)) {
                Some(step) => Reply::json(&step["answer"]),
                None => Reply::json(&json!({"success": true, "device": {"name": "Given in Studio"}})),
            }
        });
        Self {
            remote: RemoteManagement::start(on_hello),
            http,
            steps,
        }
    }

    /// Plays the exchange on the newest connection and checks each message and request. A message of the device may come
    /// earlier or later than others that have nothing to do with it.
    #[track_caller]
    pub fn play(&self) {
        self.play_with(|_| {});
    }

    /// Like [`Self::play`]; `before` is called before each step.
    #[track_caller]
    pub fn play_with(&self, mut before: impl FnMut(&Value)) {
        let (mut connection, _) = self.remote.hello(0);
        let mut number = 0;
        let mut used: Vec<Value> = Vec::new();
        for step in &self.steps {
            before(step);
            if step["s"] == "close" {
                connection.close();
                number += 1;
                connection = self.remote.hello(number).0;
                used.clear();
            } else if let Some(message) = step.get("s").filter(|message| message.get("hello").is_none()) {
                connection.send(message);
            } else if let Some(pattern) = step.get("d") {
                take(&connection, pattern, &mut used);
            } else if step.get("http").is_some() {
                self.wait_for_request(&step["http"]);
            }
        }
    }

    #[track_caller]
    fn wait_for_request(&self, pattern: &Value) {
        let request = self.http.requests.wait_for(&pattern.to_string(), LIMIT, |all| {
            all.iter().find(|request| is_request(pattern, request)).cloned()
        });
        if let Some(body) = pattern.get("body") {
            let sent: Value = serde_json::from_slice(&request.body).expect("JSON");
            assert!(matches(body, &sent), "{sent} is not {body}");
        }
        if let Some(headers) = pattern["headers"].as_object() {
            for (name, value) in headers.iter().filter(|(name, _)| *name != "x-api-key") {
                let sent = request.headers.get(name).map(String::as_str);
                assert_eq!(sent, value.as_str(), "{name}");
            }
        }
        if pattern.get("part").is_some() {
            let part = Part::of(&request);
            for (name, sent) in [
                ("name", &part.name),
                ("filename", &part.file_name),
                ("type", &part.kind),
            ] {
                assert_eq!(pattern["part"][name], **sent);
            }
        }
    }
}

/// Waits for a message like this that no earlier step has used.
#[track_caller]
fn take(connection: &Arc<Connection>, pattern: &Value, used: &mut Vec<Value>) {
    let nth = used.iter().filter(|earlier| *earlier == pattern).count();
    connection.wait_for_nth(pattern, nth);
    used.push(pattern.clone());
}

fn is_request(pattern: &Value, request: &Request) -> bool {
    pattern[&request.method] == *request.path
}

/// A part of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub file_name: String,
    pub kind: String,
    pub data: Vec<u8>,
}

impl Part {
    /// The only part.
    #[track_caller]
    pub fn of(request: &Request) -> Self {
        let mut parts = Self::all(request);
        assert_eq!(parts.len(), 1, "one part");
        parts.remove(0)
    }

    /// All parts, in their order.
    #[track_caller]
    pub fn all(request: &Request) -> Vec<Self> {
        let kind = &request.headers["content-type"];
        let (_, boundary) = kind.split_once("boundary=").expect("multipart");
        let boundary = format!("--{}", boundary.trim_matches('"'));
        let mut rest = &request.body[..];
        let mut parts = Vec::new();
        while !rest.starts_with(format!("{boundary}--").as_bytes()) {
            let head_end = find(rest, b"\r\n\r\n").expect("the headers of the part");
            let head = String::from_utf8_lossy(&rest[..head_end]).into_owned();
            assert!(head.starts_with(&boundary), "{head}");
            let content = &rest[head_end + 4..];
            let end = find(content, format!("\r\n{boundary}").as_bytes()).expect("the end of the part");
            let between = |start: &str, end: &str| {
                let rest = head.split_once(start).map_or("", |(_, rest)| rest);
                rest.split(end).next().unwrap_or_default().to_owned()
            };
            parts.push(Self {
                name: between("; name=\"", "\""),
                file_name: between("filename=\"", "\""),
                kind: between("Content-Type: ", "\r\n"),
                data: content[..end].to_vec(),
            });
            rest = &content[end + 2..];
        }
        parts
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
