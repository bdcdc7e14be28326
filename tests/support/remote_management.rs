//! A stand-in for the remote management of Studio: a WebSocket server on loopback that a test steers.

use std::net::Ipv4Addr;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::daemon::LIMIT;
use super::events::Events;

/// What the server does with a hello.
#[derive(Debug, Clone, PartialEq)]
pub enum OnHello {
    Accept,
    Refuse(&'static str),
    /// No answer.
    Silence,
    /// Closes the connection instead of an answer.
    Close,
    /// Ends the TCP connection instead of an answer.
    Cut,
    /// Ends the TCP connection before a hello.
    CutBeforeHello,
    /// Ends the TCP connection before the handshake of the WebSocket.
    CutBeforeHandshake,
    /// Accepts and closes at once, as for a device that another one replaces.
    AcceptAndClose,
    /// Accepts and reads nothing more, so pings are not answered.
    AcceptAndFreeze,
}

/// A connection of a device.
pub struct Connection {
    /// What the device has sent.
    pub messages: Events<Value>,
    /// Pings of the device.
    pub pings: Events<()>,
    steps: mpsc::UnboundedSender<Step>,
}

enum Step {
    Send(Message),
    Close,
    Cut,
    Freeze,
}

impl Connection {
    pub fn send(&self, message: &Value) {
        self.send_raw(Message::text(message.to_string()));
    }

    pub fn send_raw(&self, message: Message) {
        let _ = self.steps.send(Step::Send(message));
    }

    /// Closes the connection in order.
    pub fn close(&self) {
        let _ = self.steps.send(Step::Close);
    }

    /// Ends the TCP connection without a word.
    pub fn cut(&self) {
        let _ = self.steps.send(Step::Cut);
    }

    /// Reads nothing more, and keeps the connection.
    pub fn freeze(&self) {
        let _ = self.steps.send(Step::Freeze);
    }

    /// Waits for the nth message, counted from 0, that matches the pattern.
    #[track_caller]
    pub fn wait_for_nth(&self, pattern: &Value, nth: usize) -> Value {
        self.messages.wait_for(&format!("message {pattern}"), LIMIT, |all| {
            all.iter().filter(|message| matches(pattern, message)).nth(nth).cloned()
        })
    }

    #[track_caller]
    pub fn wait_for(&self, pattern: &Value) -> Value {
        self.wait_for_nth(pattern, 0)
    }

    pub fn count(&self, pattern: &Value) -> usize {
        self.messages
            .with(|all| all.iter().filter(|message| matches(pattern, message)).count())
    }
}

/// Whether a message has all members of the pattern; `"*"` matches anything.
pub fn matches(pattern: &Value, message: &Value) -> bool {
    match (pattern, message) {
        (Value::String(any), _) if any == "*" => true,
        (Value::Object(pattern), Value::Object(message)) => pattern
            .iter()
            .all(|(key, pattern)| message.get(key).is_some_and(|value| matches(pattern, value))),
        _ => pattern == message,
    }
}

/// The server. It ends when it is dropped.
pub struct RemoteManagement {
    pub port: u16,
    pub connections: Arc<Events<Arc<Connection>>>,
    on_hello: Arc<Mutex<OnHello>>,
    /// Dropped with the server: ends its thread.
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl RemoteManagement {
    pub fn start(on_hello: OnHello) -> Self {
        Self::start_at(0, on_hello)
    }

    /// Starts the server on this port; 0: any free port.
    pub fn start_at(port: u16, on_hello: OnHello) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let connections = Arc::new(Events::default());
        let on_hello = Arc::new(Mutex::new(on_hello));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (accepted, behaviour) = (connections.clone(), on_hello.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, accepted, behaviour) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            port,
            connections,
            on_hello,
            _stop: stop,
        }
    }

    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// What the server does with hellos from now on.
    pub fn set(&self, on_hello: OnHello) {
        *self.on_hello.lock() = on_hello;
    }

    /// Waits for the nth connection, counted from 0.
    #[track_caller]
    pub fn connection(&self, nth: usize) -> Arc<Connection> {
        self.connections
            .wait_for(&format!("connection {nth}"), LIMIT, |all| all.get(nth).cloned())
    }

    /// Waits for the nth connection and its hello.
    #[track_caller]
    pub fn hello(&self, nth: usize) -> (Arc<Connection>, Value) {
        let connection = self.connection(nth);
        let hello = connection.wait_for(&json!({"hello": "*"}));
        (connection, hello)
    }
}

async fn accept(listener: TcpListener, connections: Arc<Events<Arc<Connection>>>, on_hello: Arc<Mutex<OnHello>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (steps, next) = mpsc::unbounded_channel();
        let connection = Arc::new(Connection {
            messages: Events::default(),
            pings: Events::default(),
            steps,
        });
        tokio::spawn(serve(stream, connection, connections.clone(), next, on_hello.clone()));
    }
}

async fn serve(
    stream: TcpStream,
    connection: Arc<Connection>,
    connections: Arc<Events<Arc<Connection>>>,
    mut steps: mpsc::UnboundedReceiver<Step>,
    on_hello: Arc<Mutex<OnHello>>,
) {
    if *on_hello.lock() == OnHello::CutBeforeHandshake {
        return;
    }
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else {
        return;
    };
    connections.push(connection.clone());
    if *on_hello.lock() == OnHello::CutBeforeHello {
        return;
    }
    let accepted = Message::text(json!({"hello": true, "serverTimestamp": 1_736_016_142_920_u64}).to_string());
    loop {
        tokio::select! {
            message = socket.next() => {
                let text = match message {
                    Some(Ok(Message::Text(text))) => text,
                    Some(Ok(Message::Ping(_))) => {
                        connection.pings.push(());
                        continue;
                    }
                    Some(Ok(_)) => continue,
                    _ => return,
                };
                let value: Value = serde_json::from_str(text.as_str()).expect("JSON");
                let is_hello = value.get("hello").is_some();
                connection.messages.push(value);
                if !is_hello {
                    continue;
                }
                let on_hello = on_hello.lock().clone();
                match on_hello {
                    OnHello::Accept => drop(socket.send(accepted.clone()).await),
                    OnHello::Refuse(text) => {
                        let refusal = json!({"hello": false, "err": text}).to_string();
                        drop(socket.send(Message::text(refusal)).await);
                    }
                    OnHello::Silence => {}
                    OnHello::Close => return drop(socket.close(None).await),
                    OnHello::Cut | OnHello::CutBeforeHello | OnHello::CutBeforeHandshake => return,
                    OnHello::AcceptAndClose => {
                        let _ = socket.send(accepted.clone()).await;
                        return drop(socket.close(None).await);
                    }
                    OnHello::AcceptAndFreeze => {
                        let _ = socket.send(accepted.clone()).await;
                        let _ = steps.recv().await;
                        return;
                    }
                }
            }
            step = steps.recv() => match step {
                Some(Step::Send(message)) => drop(socket.send(message).await),
                Some(Step::Close) => return drop(socket.close(None).await),
                Some(Step::Freeze) => drop(steps.recv().await),
                Some(Step::Cut) | None => return,
            }
        }
    }
}
