//! A small HTTP server on a loopback port. A closure answers one GET per connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sigv4::Request;
use crate::support::events::Events;

/// An answer.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }
}

/// Listens until it is stopped or the test ends.
pub struct HttpServer {
    pub port: u16,
    pub requests: Arc<Events<Request>>,
    is_stopped: Arc<AtomicBool>,
}

impl HttpServer {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let requests = Arc::new(Events::default());
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&is_stopped);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &seen, &*answer));
            }
        });
        Self {
            port,
            requests,
            is_stopped,
        }
    }

    /// Connections are refused from now on.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts connections.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

fn serve(mut stream: TcpStream, seen: &Events<Request>, answer: &dyn Fn(&Request) -> Answer) {
    let Some((first, headers)) = read_head(&mut BufReader::new(&stream)) else {
        return;
    };
    let target = first.split(' ').nth(1).unwrap_or_default();
    // A request to a proxy contains the whole URL.
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    let request = Request {
        target: target.to_owned(),
        headers,
    };
    let answer = answer(&request);
    seen.push(request);
    let mut text = format!(
        "HTTP/1.1 {} Answer\r\ncontent-length: {}\r\nconnection: close\r\n",
        answer.status,
        answer.body.len()
    );
    for (name, value) in answer.headers {
        text += &format!("{name}: {value}\r\n");
    }
    let _ = stream.write_all(format!("{text}\r\n{}", answer.body).as_bytes());
}

/// The first line and the headers, names in lower case.
pub fn read_head(stream: &mut impl BufRead) -> Option<(String, BTreeMap<String, String>)> {
    let mut first = String::new();
    stream.read_line(&mut first).ok().filter(|read| *read > 0)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Some((first.trim_end().to_owned(), headers));
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
}
