//! A mock MQTT 3.1.1 broker on a free port. It handles sessions, retained messages and last wills like a real broker, records
//! every packet, and can simulate faults. It uses the packet types and the codec of rumqttc.
#![allow(dead_code)]

mod client;

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, LastWill, Packet, PubAck, Publish, SubAck, Subscribe, SubscribeReasonCode,
    UnsubAck,
};
use rumqttc::mqttbytes::{Error as PacketError, QoS, matches};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use client::Client;

const MAX_PACKET: usize = 16 << 20;

/// How PUBLISH is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    #[default]
    Normal,
    /// Sends no acknowledgements.
    Stall,
    /// Collects this many acknowledgements and sends them in reverse order. Remaining ones are sent after 100 ms without a packet.
    Reversed(usize),
    /// Sends each acknowledgement twice.
    Twice,
    /// Sends, after each acknowledgement, one for an id that was never used.
    Invented,
}

/// How CONNECT is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConnect {
    #[default]
    Accept,
    Refuse(ConnectReturnCode),
    /// Accepts the TCP connection and sends nothing.
    Silent,
    /// Sends CONNACK and closes the connection.
    AcceptAndClose,
}

/// Behaviour of the broker. [`MockBroker::behave`] changes it while it runs.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    pub on_connect: OnConnect,
    pub acks: Acks,
    /// Closes each connection after this number of received packets (including CONNECT), before answering the last one.
    pub drop_after: Option<usize>,
    /// Sends no SUBACK.
    pub stall_suback: bool,
    /// Refuses the subscription in SUBACK.
    pub refuse_subscription: bool,
    /// Stores no messages for disconnected clients, even if they have a persistent session.
    pub forget_sessions: bool,
    /// Reads nothing from the sockets.
    pub stop_reading: bool,
    /// Closes the connection instead of acknowledging a retained PUBLISH.
    pub drop_on_clear: bool,
}

/// Sender of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    FromClient,
    ToClient,
}

/// A recorded packet.
#[derive(Debug, Clone)]
pub struct Entry {
    pub at: Instant,
    /// Number of the connection, from 1.
    pub connection: usize,
    pub way: Way,
    pub packet: Packet,
}

impl Entry {
    /// The PUBLISH packet, if a client sent it.
    pub fn published(&self) -> Option<&Publish> {
        match (&self.packet, self.way) {
            (Packet::Publish(publish), Way::FromClient) => Some(publish),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Session {
    persistent: bool,
    filters: Vec<(String, QoS)>,
    queue: VecDeque<Publish>,
    unacked: Vec<Publish>,
    last_id: u16,
    live: Option<Live>,
    will: Option<LastWill>,
}

struct Live {
    connection: usize,
    out: mpsc::UnboundedSender<Out>,
}

enum Out {
    Packet(Packet),
    Close,
}

#[derive(Default)]
struct State {
    behaviour: Behaviour,
    log: Vec<Entry>,
    /// All routed messages in order, including last wills.
    routed: Vec<Publish>,
    connections: usize,
    sessions: HashMap<String, Session>,
    retained: HashMap<String, Publish>,
    /// All sockets, including those without a session.
    open: HashMap<usize, mpsc::UnboundedSender<Out>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

/// The running broker.
pub struct MockBroker {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

impl MockBroker {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start(behaviour: Behaviour) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                behaviour,
                ..State::default()
            }),
            changed: Notify::new(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            listener: Some(task),
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `mqtt://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    /// Changes the behaviour.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.state.lock().behaviour);
    }

    /// Closes the port and all connections. Sessions and retained messages stay.
    pub async fn down(&mut self) {
        if let Some(task) = self.listener.take() {
            task.abort();
            let _ = task.await;
        }
        self.kick();
        self.wait_for_state("all connections closed", Duration::from_secs(5), |state| {
            state.open.is_empty()
        })
        .await;
    }

    /// Listens again on the same port.
    pub async fn up(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the same port");
        self.listener = Some(tokio::spawn(accept(listener, Arc::clone(&self.shared))));
    }

    /// Closes all connections.
    pub fn kick(&self) {
        for out in self.shared.state.lock().open.values() {
            let _ = out.send(Out::Close);
        }
    }

    /// Publishes a message to the subscribers; `dup` sets the DUP flag.
    pub fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>, retain: bool, dup: bool, qos: QoS) {
        let mut publish = Publish::new(topic, qos, payload);
        publish.retain = retain;
        publish.dup = dup;
        self.shared.state.lock().route(publish);
        self.shared.changed.notify_waiters();
    }

    /// Sends any packet to all clients.
    pub fn send(&self, packet: &Packet) {
        for out in self.shared.state.lock().open.values() {
            let _ = out.send(Out::Packet(packet.clone()));
        }
    }

    /// The retained message of a topic.
    pub fn retained(&self, topic: &str) -> Option<Bytes> {
        self.shared
            .state
            .lock()
            .retained
            .get(topic)
            .map(|publish| publish.payload.clone())
    }

    /// All packets up to now.
    pub fn log(&self) -> Vec<Entry> {
        self.shared.state.lock().log.clone()
    }

    /// Payloads that clients published on `topic`, including repeats.
    pub fn published(&self, topic: &str) -> Vec<String> {
        payloads(&self.log(), topic)
    }

    /// Payloads routed on `topic`: published by clients, by [`Self::publish`], or as last wills.
    pub fn routed(&self, topic: &str) -> Vec<String> {
        let state = self.shared.state.lock();
        state
            .routed
            .iter()
            .filter(|publish| publish.topic == topic)
            .map(text)
            .collect()
    }

    /// All CONNECT packets up to now.
    pub fn connects(&self) -> Vec<Connect> {
        let connect = |entry: Entry| match entry.packet {
            Packet::Connect(connect) => Some(connect),
            _ => None,
        };
        self.log().into_iter().filter_map(connect).collect()
    }

    /// Waits until the log satisfies `condition`. Panics with the log if that takes longer than `limit`.
    pub async fn wait_for(&self, what: &str, limit: Duration, mut condition: impl FnMut(&[Entry]) -> bool) {
        self.wait_for_state(what, limit, |state| condition(&state.log)).await;
    }

    /// Waits until `count` messages were routed on `topic`.
    pub async fn wait_for_routed(&self, topic: &str, count: usize, limit: Duration) {
        let what = format!("{count} messages on {topic}");
        let seen = |state: &State| state.routed.iter().filter(|publish| publish.topic == topic).count();
        self.wait_for_state(&what, limit, |state| seen(state) >= count).await;
    }

    async fn wait_for_state(&self, what: &str, limit: Duration, mut condition: impl FnMut(&State) -> bool) {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if condition(&self.shared.state.lock()) {
                return;
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                let state = self.shared.state.lock();
                let lines: Vec<_> = state.log.iter().map(line).collect();
                panic!("not within {limit:?}: {what}. Packets:\n{}", lines.join("\n"));
            }
        }
    }
}

impl Drop for MockBroker {
    fn drop(&mut self) {
        if let Some(task) = self.listener.take() {
            task.abort();
        }
        self.kick();
    }
}

/// Payloads published by clients on `topic`.
pub fn payloads(log: &[Entry], topic: &str) -> Vec<String> {
    log.iter()
        .filter_map(Entry::published)
        .filter(|publish| publish.topic == topic)
        .map(text)
        .collect()
}

fn text(publish: &Publish) -> String {
    String::from_utf8_lossy(&publish.payload).into_owned()
}

fn line(entry: &Entry) -> String {
    let arrow = if entry.way == Way::FromClient { "-->" } else { "<--" };
    let payload = match &entry.packet {
        Packet::Publish(publish) => text(publish).chars().take(100).collect(),
        _ => String::new(),
    };
    format!("#{} {arrow} {:?} {payload}", entry.connection, entry.packet)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((socket, _)) = listener.accept().await {
        let _ = socket.set_nodelay(true);
        let (out, outgoing) = mpsc::unbounded_channel();
        let number = {
            let mut state = shared.state.lock();
            state.connections += 1;
            let number = state.connections;
            state.open.insert(number, out.clone());
            number
        };
        tokio::spawn(serve(socket, number, out, outgoing, Arc::clone(&shared)));
    }
}

async fn serve(
    mut socket: TcpStream,
    number: usize,
    out: mpsc::UnboundedSender<Out>,
    mut outgoing: mpsc::UnboundedReceiver<Out>,
    shared: Arc<Shared>,
) {
    let mut client = Client {
        number,
        out,
        id: None,
        received: 0,
        held: Vec::new(),
        orderly: false,
    };
    let mut buffer = BytesMut::new();
    'open: loop {
        let reading = !shared.state.lock().behaviour.stop_reading;
        let quiet = Duration::from_millis(100);
        tokio::select! {
            read = socket.read_buf(&mut buffer), if reading => {
                if read.unwrap_or(0) == 0 {
                    break;
                }
                loop {
                    match Packet::read(&mut buffer, MAX_PACKET) {
                        Ok(packet) => {
                            if !client.received(&shared, packet) {
                                // Answers to earlier packets are still written.
                                while let Ok(Out::Packet(packet)) = outgoing.try_recv() {
                                    write(&mut socket, &shared, number, packet).await;
                                }
                                break 'open;
                            }
                        }
                        Err(PacketError::InsufficientBytes(_)) => break,
                        Err(error) => panic!("the client sent something that is not MQTT: {error}"),
                    }
                }
            }
            message = outgoing.recv() => match message {
                Some(Out::Packet(packet)) => write(&mut socket, &shared, number, packet).await,
                Some(Out::Close) | None => break,
            },
            () = tokio::time::sleep(quiet) => client.release_held(),
        }
        shared.changed.notify_waiters();
    }
    drop(socket);
    client.gone(&shared);
    shared.changed.notify_waiters();
}

async fn write(socket: &mut TcpStream, shared: &Shared, connection: usize, packet: Packet) {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, MAX_PACKET).expect("a packet");
    let _ = socket.write_all(&bytes).await;
    let entry = Entry {
        at: Instant::now(),
        connection,
        way: Way::ToClient,
        packet,
    };
    shared.state.lock().log.push(entry);
}

impl Session {
    fn deliver(&mut self, mut publish: Publish) {
        let Some(live) = &self.live else {
            if publish.qos != QoS::AtMostOnce {
                self.queue.push_back(publish);
            }
            return;
        };
        if publish.qos != QoS::AtMostOnce {
            self.last_id = self.last_id % 60_000 + 1;
            publish.pkid = self.last_id;
            self.unacked.push(publish.clone());
        }
        let _ = live.out.send(Out::Packet(Packet::Publish(publish)));
    }
}

impl State {
    fn route_will(&mut self, will: LastWill) {
        let mut publish = Publish::new(will.topic, will.qos, will.message.to_vec());
        publish.retain = will.retain;
        self.route(publish);
    }

    fn route(&mut self, publish: Publish) {
        self.routed.push(publish.clone());
        if publish.retain && publish.payload.is_empty() {
            self.retained.remove(&publish.topic);
        } else if publish.retain {
            self.retained.insert(
                publish.topic.clone(),
                Publish {
                    dup: false,
                    ..publish.clone()
                },
            );
        }
        for session in self.sessions.values_mut() {
            let granted = session
                .filters
                .iter()
                .find(|(filter, _)| matches(&publish.topic, filter))
                .map(|(_, qos)| *qos);
            if let Some(granted) = granted {
                // Existing subscribers receive a retained message without the retain flag.
                session.deliver(Publish {
                    retain: false,
                    qos: publish.qos.min_of(granted),
                    ..publish.clone()
                });
            }
        }
    }
}

trait MinOf {
    fn min_of(self, other: Self) -> Self;
}

impl MinOf for QoS {
    fn min_of(self, other: Self) -> Self {
        if (self as u8) < (other as u8) { self } else { other }
    }
}
