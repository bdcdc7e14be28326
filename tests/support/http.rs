//! A small HTTP/1.1 server on loopback. A closure of the test answers the requests, which are recorded.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;

use super::events::Events;

/// One request.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    /// Host of an absolute URL, which a client sends to a proxy.
    pub proxied_for: Option<String>,
    pub path: String,
    pub query: BTreeMap<String, String>,
    /// Headers, with names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// `Content-Length`, if it differs from the length of the body.
    pub announced: Option<usize>,
    /// Sends no answer and keeps the connection open until the client closes it.
    pub hang: bool,
}

impl Reply {
    pub fn bytes(kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            headers: vec![("Content-Type".into(), kind.into())],
            body: body.into(),
            announced: None,
            hang: false,
        }
    }

    pub fn json(value: &Value) -> Self {
        Self::bytes("application/json", value.to_string())
    }

    pub fn hang() -> Self {
        Self {
            hang: true,
            ..Self::bytes("text/plain", "")
        }
    }

    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// The server. It stops listening when it is dropped.
pub struct HttpServer {
    pub port: u16,
    pub requests: Arc<Events<Request>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(0, answer)
    }

    /// Starts the server on this port; 0: any free port.
    pub fn start_at(port: u16, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let requests = Arc::new(Events::default());
        let over = Arc::new(AtomicBool::new(false));
        let (seen, ended, answer) = (requests.clone(), over.clone(), Arc::new(answer));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), seen, answer) = (stream, seen.clone(), answer.clone()) else {
                    return;
                };
                std::thread::spawn(move || serve(stream, &seen, &*answer));
            }
        });
        Self {
            port,
            requests,
            over,
            thread: Some(thread),
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Number of requests up to now whose path has this ending.
    pub fn count(&self, ending: &str) -> usize {
        self.requests
            .with(|all| all.iter().filter(|request| request.path.ends_with(ending)).count())
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, seen: &Events<Request>, answer: &dyn Fn(&Request) -> Reply) {
    let Some(request) = read(&stream) else { return };
    seen.push(request.clone());
    let reply = answer(&request);
    if reply.hang {
        let _ = stream.read_to_end(&mut Vec::new());
        return;
    }
    let mut head = format!(
        "HTTP/1.1 {} Answer\r\nConnection: close\r\nContent-Length: {}\r\n",
        reply.status,
        reply.announced.unwrap_or(reply.body.len())
    );
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    let _ = stream.write_all(&reply.body);
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let base = url::Url::parse("http://origin.form").ok()?;
    let url = base.join(target).ok()?;
    let mut request = Request {
        method,
        proxied_for: target
            .contains("://")
            .then(|| url.host_str().unwrap_or_default().to_owned()),
        path: url.path().to_owned(),
        query: url.query_pairs().into_owned().collect(),
        ..Request::default()
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        request
            .headers
            .insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = request.headers.get("content-length").and_then(|text| text.parse().ok());
    request.body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}
