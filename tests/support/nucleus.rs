//! A stand-in for the nucleus of Greengrass: its interprocess communication (IPC) as the components see it.
//!
//! Speaks AWS event stream RPC over a Unix socket: the handshake with a token, `GetConfiguration`,
//! `SubscribeToConfigurationUpdate`, `UpdateState`, `PublishToTopic` and `SubscribeToTopic`. Packets over 10,000 bytes close the
//! connection, as on Greengrass Lite.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder, write_message_to};
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use serde_json::{Map, Value, json};

use super::daemon::LIMIT;
use super::events::Events;

/// The largest packet of Greengrass Lite.
pub const MAX_PACKET: usize = 10_000;

const APPLICATION_MESSAGE: i32 = 0;
const APPLICATION_ERROR: i32 = 1;
const CONNECT: i32 = 4;
const CONNECT_ACK: i32 = 5;
const ACCEPTED: i32 = 1;
const TERMINATE_STREAM: i32 = 2;
/// Header that names the shape of the payload.
const MODEL_TYPE: &str = "service-model-type";

/// `command` as a process of the component's systemd unit on Greengrass Lite, which is how the IPC daemon knows it. `None`: this
/// user may not mount.
pub fn in_the_component_unit(command: &Command) -> Option<Command> {
    let directory = command.get_current_dir().expect("the command has a directory");
    let cgroup = directory.join("cgroup");
    std::fs::write(&cgroup, format!("0::/system.slice/ggl.{OWN}.service\n")).expect("write the cgroup");
    let in_unit = |program: &std::ffi::OsStr| {
        let mut wrapped = Command::new("unshare");
        let script = r#"mount --bind "$0" /proc/$$/cgroup && exec "$@""#;
        wrapped.args(["--map-root-user", "--mount", "sh", "-c", script]);
        wrapped.arg(&cgroup).arg(program);
        wrapped
    };
    let is_allowed = in_unit("true".as_ref())
        .output()
        .is_ok_and(|output| output.status.success());
    is_allowed.then(|| {
        let mut wrapped = in_unit(command.get_program());
        wrapped
            .args(command.get_args())
            .current_dir(directory)
            .stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        wrapped
    })
}

/// A request that the nucleus received.
#[derive(Debug, Clone)]
pub struct Request {
    /// Without `aws.greengrass#`.
    pub operation: String,
    pub payload: Value,
}

/// The running nucleus. Its socket is removed at the end of the test.
pub struct Nucleus {
    state: Arc<State>,
    directory: tempfile::TempDir,
}

struct State {
    token: Mutex<String>,
    /// The configuration of each component.
    configurations: Mutex<HashMap<String, Value>>,
    connections: Mutex<Vec<UnixStream>>,
    subscriptions: Mutex<Vec<Subscription>>,
    requests: Events<Request>,
    is_accepting: Mutex<bool>,
    is_hanging: AtomicBool,
    /// Operations that the `accessControl` of the component does not allow.
    refused: Mutex<Vec<&'static str>>,
}

struct Subscription {
    connection: UnixStream,
    stream_id: i32,
    /// `None`: the changes of the configuration.
    topic: Option<String>,
}

/// The component under test, in [`State::configurations`].
const OWN: &str = "EdgeImpulseLinuxRunnerServiceComponent";

impl Nucleus {
    /// A nucleus that has these `Parameters` for the component.
    pub fn start(parameters: Value) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let own = (OWN.to_owned(), json!({"Parameters": parameters}));
        let nucleus = Self {
            state: Arc::new(State {
                token: Mutex::new(new_token()),
                configurations: Mutex::new(HashMap::from([own])),
                connections: Mutex::default(),
                subscriptions: Mutex::default(),
                requests: Events::default(),
                is_accepting: Mutex::new(true),
                is_hanging: AtomicBool::new(false),
                refused: Mutex::default(),
            }),
            directory,
        };
        nucleus.listen();
        nucleus
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("ipc.socket")
    }

    pub fn token(&self) -> String {
        self.state.token.lock().unwrap().clone()
    }

    /// Makes the nucleus forget the token, as a crash of Greengrass Lite's IPC daemon does, and closes all connections. A process
    /// gets the new token by the name of its component.
    pub fn forget_token(&self) {
        self.stop();
        *self.state.token.lock().unwrap() = new_token();
        self.resume();
    }

    /// Tells the port of the token exchange service as Greengrass Lite does.
    pub fn set_token_exchange_port(&self, port: u16) {
        self.configure("aws.greengrass.TokenExchangeService", json!({"port": port.to_string()}));
    }

    /// Sets the environment that a lifecycle step gets.
    pub fn environment(&self, command: &mut Command) {
        command
            .env("SVCUID", self.token())
            .env("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", self.socket());
    }

    /// Deploys other `Parameters`: one event for each changed key, as on Greengrass Lite.
    pub fn deploy(&self, parameters: Value) {
        let changed = {
            let mut configurations = self.state.configurations.lock().unwrap();
            let own = configurations.get_mut(OWN).unwrap();
            let changed: Vec<_> = parameters
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, value)| own["Parameters"].get(key) != Some(value))
                .map(|(key, _)| key.clone())
                .collect();
            own["Parameters"] = parameters;
            changed
        };
        for key in changed {
            let event = json!({"configurationUpdateEvent": {"componentName": OWN, "keyPath": ["Parameters", key]}});
            self.state.send_event(None, "ConfigurationUpdateEvents", &event);
        }
    }

    /// Sets the configuration of another component.
    pub fn configure(&self, component: &str, configuration: Value) {
        let mut configurations = self.state.configurations.lock().unwrap();
        configurations.insert(component.to_owned(), configuration);
    }

    /// Publishes a message on a local topic, as another component would.
    pub fn publish(&self, topic: &str, message: &Value) {
        let event = json!({"jsonMessage": {"message": message, "context": {"topic": topic}}});
        self.state
            .send_event(Some(topic), "SubscriptionResponseMessage", &event);
    }

    /// Publishes bytes on a local topic, as another component would.
    pub fn publish_bytes(&self, topic: &str, message: &[u8]) {
        let event = json!({"binaryMessage": {"message": STANDARD.encode(message), "context": {"topic": topic}}});
        self.state
            .send_event(Some(topic), "SubscriptionResponseMessage", &event);
    }

    /// Waits for a message on a local topic that ends with `ending`. Returns the topic and the message.
    #[track_caller]
    pub fn wait_for_local(&self, ending: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> (String, Value) {
        self.state.requests.wait_for(what, LIMIT, |requests| {
            let messages = requests.iter().filter_map(|request| published(request, ending));
            messages.into_iter().find(|(_, message)| wanted(message))
        })
    }

    /// The messages on local topics that end with `ending`.
    pub fn local_messages(&self, ending: &str) -> Vec<Value> {
        self.state.requests.with(|requests| {
            let messages = requests.iter().filter_map(|request| published(request, ending));
            messages.map(|(_, message)| message).collect()
        })
    }

    /// Answers nothing any more, until it is switched off.
    pub fn hang(&self, is_hanging: bool) {
        self.state.is_hanging.store(is_hanging, Ordering::SeqCst);
    }

    /// The operations that the `accessControl` of the component does not allow.
    pub fn refuse(&self, operations: &[&'static str]) {
        *self.state.refused.lock().unwrap() = operations.to_vec();
    }

    /// Every request since the start.
    pub fn requests(&self) -> &Events<Request> {
        &self.state.requests
    }

    /// Waits for the `number`th (from 1) answered request of this kind, and returns its payload.
    #[track_caller]
    pub fn wait_for(&self, operation: &str, number: usize) -> Value {
        let what = format!("request {operation} number {number}");
        self.state.requests.wait_for(&what, LIMIT, |requests| {
            let mut found = requests.iter().filter(|request| request.operation == operation);
            found.nth(number - 1).map(|request| request.payload.clone())
        })
    }

    /// Closes the socket and all connections; [`Self::resume`] opens the socket again.
    pub fn stop(&self) {
        *self.state.is_accepting.lock().unwrap() = false;
        // Wakes the thread that accepts connections.
        let _ = UnixStream::connect(self.socket());
        let _ = std::fs::remove_file(self.socket());
        self.state.subscriptions.lock().unwrap().clear();
        for connection in self.state.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Listens again after [`Self::stop`].
    pub fn resume(&self) {
        *self.state.is_accepting.lock().unwrap() = true;
        self.listen();
    }

    fn listen(&self) {
        let listener = UnixListener::bind(self.socket()).expect("listen on the socket of the nucleus");
        let state = self.state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if !*state.is_accepting.lock().unwrap() {
                    return;
                }
                state.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let state = state.clone();
                std::thread::spawn(move || state.serve(stream));
            }
        });
    }
}

impl Drop for Nucleus {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The topic and the message of a request that publishes on a local topic with this ending.
fn published(request: &Request, ending: &str) -> Option<(String, Value)> {
    let topic = request.payload["topic"].as_str()?;
    if request.operation != "PublishToTopic" || !topic.ends_with(ending) {
        return None;
    }
    let bytes = STANDARD.decode(request.payload["publishMessage"]["binaryMessage"]["message"].as_str()?);
    Some((topic.to_owned(), serde_json::from_slice(&bytes.ok()?).ok()?))
}

/// Tokens have 16 characters of base64 on Greengrass Lite.
fn new_token() -> String {
    STANDARD.encode(&uuid::Uuid::new_v4().as_bytes()[..12])
}

impl State {
    /// Answers the requests of one connection until it ends.
    fn serve(&self, mut stream: UnixStream) {
        let (mut decoder, mut buffer) = (MessageFrameDecoder::new(), BytesMut::new());
        let mut is_connected = false;
        loop {
            let message = match decoder.decode_frame(&mut buffer) {
                Ok(DecodedFrame::Complete(message)) => message,
                Ok(DecodedFrame::Incomplete) => {
                    let mut bytes = [0; 4096];
                    match stream.read(&mut bytes) {
                        Ok(count) if count > 0 && buffer.len() + count <= MAX_PACKET => {
                            buffer.extend_from_slice(&bytes[..count]);
                        }
                        _ => break,
                    }
                    continue;
                }
                Err(_) => break,
            };
            if self.is_hanging.load(Ordering::SeqCst) {
                continue;
            }
            let payload: Value = serde_json::from_slice(message.payload()).unwrap_or(Value::Null);
            let stream_id = number(&message, ":stream-id");
            match (is_connected, number(&message, ":message-type")) {
                (false, CONNECT) if payload["authToken"] == *self.token.lock().unwrap() => {
                    is_connected = true;
                    let _ = send(&mut stream, CONNECT_ACK, ACCEPTED, 0, &[], None);
                }
                (false, CONNECT) if payload["componentName"] == OWN => {
                    is_connected = true;
                    let token = self.token.lock().unwrap().clone();
                    let _ = send(&mut stream, CONNECT_ACK, ACCEPTED, 0, &[("svcuid", &token)], None);
                }
                (true, APPLICATION_MESSAGE) => {
                    if number(&message, ":message-flags") & TERMINATE_STREAM == 0 {
                        self.answer(&mut stream, stream_id, &message, payload);
                    }
                }
                // Greengrass Lite closes the connection without an answer.
                _ => break,
            }
        }
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }

    fn answer(&self, stream: &mut UnixStream, stream_id: i32, message: &Message, payload: Value) {
        let operation = text(message, "operation");
        let operation = operation
            .strip_prefix("aws.greengrass#")
            .unwrap_or(&operation)
            .to_owned();
        let subscription = |topic| Subscription {
            connection: stream.try_clone().unwrap(),
            stream_id,
            topic,
        };
        if self.refused.lock().unwrap().contains(&operation.as_str()) {
            let refusal = json!({"message": "IPC Operation not authorized.", "_errorCode": "UnauthorizedError"});
            let headers = [(MODEL_TYPE, "aws.greengrass#UnauthorizedError")];
            let flags = TERMINATE_STREAM;
            let _ = send(stream, APPLICATION_ERROR, flags, stream_id, &headers, Some(&refusal));
            return;
        }
        let answer = match operation.as_str() {
            "GetConfiguration" => self.configuration(&payload),
            "SubscribeToConfigurationUpdate" => {
                let subscription = subscription(None);
                self.subscriptions.lock().unwrap().push(subscription);
                Some(json!({}))
            }
            "SubscribeToTopic" => {
                let subscription = subscription(payload["topic"].as_str().map(str::to_owned));
                self.subscriptions.lock().unwrap().push(subscription);
                Some(json!({}))
            }
            "UpdateState" | "PublishToTopic" => Some(json!({})),
            _ => None,
        };
        let flags = if operation.starts_with("Subscribe") {
            0
        } else {
            TERMINATE_STREAM
        };
        let shape = format!("aws.greengrass#{operation}Response");
        let sent = match &answer {
            Some(answer) => {
                let headers = [(MODEL_TYPE, &*shape)];
                send(stream, APPLICATION_MESSAGE, flags, stream_id, &headers, Some(answer))
            }
            None => {
                let refusal = json!({"_message": "Key not found.", "_errorCode": "ResourceNotFoundError"});
                let headers = [(MODEL_TYPE, "aws.greengrass#ResourceNotFoundError")];
                send(
                    stream,
                    APPLICATION_ERROR,
                    TERMINATE_STREAM,
                    stream_id,
                    &headers,
                    Some(&refusal),
                )
            }
        };
        // After the answer, so that a test that waits for the request finds the subscription answered too.
        if sent.is_ok() {
            self.requests.push(Request { operation, payload });
        }
    }

    /// The value of a configuration, as the nucleus wraps it.
    fn configuration(&self, request: &Value) -> Option<Value> {
        let component = request["componentName"].as_str().unwrap_or(OWN);
        let configurations = self.configurations.lock().unwrap();
        let mut value = configurations.get(component)?;
        let mut last = None;
        for key in request["keyPath"].as_array().into_iter().flatten() {
            last = key.as_str();
            value = value.get(last?)?;
        }
        let value = match last {
            Some(key) if !value.is_object() => Value::Object(Map::from_iter([(key.to_owned(), value.clone())])),
            _ => value.clone(),
        };
        Some(json!({"componentName": component, "value": value}))
    }

    fn send_event(&self, topic: Option<&str>, shape: &str, event: &Value) {
        let shape = format!("aws.greengrass#{shape}");
        for subscription in self.subscriptions.lock().unwrap().iter_mut() {
            if subscription.topic.as_deref() == topic {
                let id = subscription.stream_id;
                let headers = [(MODEL_TYPE, &*shape)];
                let connection = &mut subscription.connection;
                let _ = send(connection, APPLICATION_MESSAGE, 0, id, &headers, Some(event));
            }
        }
    }
}

fn send(
    stream: &mut UnixStream,
    kind: i32,
    flags: i32,
    stream_id: i32,
    headers: &[(&'static str, &str)],
    payload: Option<&Value>,
) -> std::io::Result<()> {
    let number = |name: &'static str, value| Header::new(name, HeaderValue::Int32(value));
    let mut message = Message::new(payload.map(Value::to_string).unwrap_or_default())
        .add_header(number(":message-type", kind))
        .add_header(number(":message-flags", flags))
        .add_header(number(":stream-id", stream_id));
    for (name, value) in headers {
        message = message.add_header(Header::new(*name, HeaderValue::String((*value).to_owned().into())));
    }
    let mut frame = Vec::new();
    write_message_to(&message, &mut frame).map_err(std::io::Error::other)?;
    stream.write_all(&frame)
}

fn number(message: &Message, name: &str) -> i32 {
    let header = message.headers().iter().find(|header| header.name().as_str() == name);
    header
        .and_then(|header| header.value().as_int32().ok())
        .unwrap_or_default()
}

fn text(message: &Message, name: &str) -> String {
    let header = message.headers().iter().find(|header| header.name().as_str() == name);
    let value = header.and_then(|header| header.value().as_string().ok());
    value.map(|value| value.as_str().to_owned()).unwrap_or_default()
}
