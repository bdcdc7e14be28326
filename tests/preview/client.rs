//! Starts a daemon with its page, and speaks to it as applications do.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::daemon::{Daemon, LIMIT, Site};
use crate::support::ports::free_port;

/// A white ball that bounces on black.
pub const BALL: &str = "videotestsrc pattern=ball is-live=true ! video/x-raw,width=640,height=480,framerate=30/1";
/// Nobody listens there.
pub const NO_BROKER: &str = "mqtt://127.0.0.1:9";

/// A daemon whose page is served on this port.
pub struct Served {
    pub daemon: Daemon,
    pub port: u16,
    pub site: Site,
}

impl Served {
    /// The ball finder with the ball, and `more` arguments.
    pub fn ball(broker: &str, more: &[&str]) -> Self {
        let mut arguments = vec!["--model", "builtin:ball", "--gst", BALL];
        arguments.extend(more);
        Self::start(broker, &arguments)
    }

    pub fn start(broker: &str, arguments: &[&str]) -> Self {
        Self::start_at(Site::new(), free_port(), broker, arguments)
    }

    pub fn start_at(site: Site, port: u16, broker: &str, arguments: &[&str]) -> Self {
        Self::start_with(site, port, broker, arguments, |_| {})
    }

    /// The same with another environment, for example.
    pub fn start_with(
        site: Site,
        port: u16,
        broker: &str,
        arguments: &[&str],
        change: impl FnOnce(&mut std::process::Command),
    ) -> Self {
        let port_key = format!("preview_port={port}");
        let mut all = vec![
            "--set",
            "preview=on",
            "--set",
            "preview_host=127.0.0.1",
            "--set",
            &port_key,
        ];
        all.extend(arguments);
        let mut command = site.command("run");
        command.args(["--mqtt", broker]).args(all);
        change(&mut command);
        let daemon = Daemon::start(command);
        daemon.wait_for_line("Listening server=\"live page\"");
        Self { daemon, port, site }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// GET; the status code and the body.
    pub async fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client
            .get(self.url(path))
            .timeout(LIMIT)
            .send()
            .await
            .expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.bytes().await.expect("a body").to_vec())
    }

    /// `/api/status`.
    pub async fn status(&self) -> Value {
        let (code, body) = self.get("/api/status").await;
        assert_eq!(code, 200);
        serde_json::from_slice(&body).expect("JSON")
    }

    /// Asks for the status until it is as wanted.
    pub async fn wait_for_status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let asked = async {
            loop {
                let status = self.status().await;
                if wanted(&status) {
                    return status;
                }
                // There is no event to wait for over this path.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match tokio::time::timeout(LIMIT, asked).await {
            Ok(status) => status,
            Err(_) => panic!("the status never showed: {what}; it is {}", self.status().await),
        }
    }

    pub async fn connect(&self, path: &str) -> Client {
        self.try_connect(path, &[]).await.expect("a WebSocket")
    }

    /// Opens a WebSocket with further headers; the HTTP status when it is refused.
    pub async fn try_connect(&self, path: &str, headers: &[(&'static str, &str)]) -> Result<Client, u16> {
        let mut request = format!("ws://127.0.0.1:{}{path}", self.port)
            .into_client_request()
            .unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(Client(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(e) => panic!("no WebSocket: {e}"),
        }
    }
}

/// One WebSocket.
pub struct Client(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    /// The next text message, as JSON.
    pub async fn next(&mut self) -> Value {
        loop {
            let message = tokio::time::timeout(LIMIT, self.0.next())
                .await
                .expect("a message in time");
            match message.expect("the connection stands").expect("a message") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Close(_) => panic!("closed"),
                _ => {}
            }
        }
    }

    /// The next message for which `wanted` holds.
    pub async fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let message = self.next().await;
                if wanted(&message) {
                    return message;
                }
            }
        };
        tokio::time::timeout(LIMIT, found)
            .await
            .unwrap_or_else(|_| panic!("no message: {what}"))
    }

    pub async fn wait_for_type(&mut self, kind: &str) -> Value {
        self.wait_for(kind, |message| message["type"] == kind).await
    }

    pub async fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).await.expect("sent");
    }

    /// Sends a message and waits for what is said about it.
    pub async fn ask(&mut self, message: &Value) -> Value {
        self.send(message).await;
        self.wait_for("an acknowledgement", |answer| {
            answer["type"]
                .as_str()
                .is_some_and(|kind| kind.starts_with("handling-message-"))
                && answer["message"] == json!(message.to_string())
        })
        .await
    }
}
