//! A subscriber that sees every message the broker acknowledged, also when the broker is killed in the next moment.
//!
//! Mosquitto writes a QoS 0 message to its subscribers before it writes the acknowledgement to the publisher. So this client
//! subscribes with QoS 0, writes nothing while it listens, and reads its socket to the end: no message is lost here that
//! counts as delivered there. (A client library stops reading when one of its own writes fails.)

use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
/// Larger than any message of the component.
const MAX_PACKET: usize = 1 << 20;

/// Connected whenever the broker is there.
pub struct Subscriber {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Set while the subscription stands.
    stream: Mutex<Option<TcpStream>>,
    over: AtomicBool,
}

impl Subscriber {
    /// Calls `seen` with topic and payload of each message below `filter`.
    pub fn start(port: u16, filter: &'static str, mut seen: impl FnMut(&str, &[u8]) + Send + 'static) -> Self {
        let shared = Arc::<Shared>::default();
        let ours = shared.clone();
        std::thread::spawn(move || {
            while !ours.over.load(Ordering::Relaxed) {
                // An error is the end of this connection: the broker went, or is not there yet.
                let _ = listen(port, filter, &ours, &mut seen);
                *ours.stream.lock() = None;
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self { shared }
    }

    /// Whether the subscription stands.
    pub fn is_subscribed(&self) -> bool {
        self.shared.stream.lock().is_some()
    }

    /// Publishes with QoS 0; false without a connection.
    pub fn publish(&self, topic: &str, payload: &[u8]) -> bool {
        let mut body = text(topic);
        body.extend_from_slice(payload);
        let mut stream = self.shared.stream.lock();
        stream
            .as_mut()
            .is_some_and(|stream| stream.write_all(&packet(PUBLISH, &body)).is_ok())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(stream) = &*self.shared.stream.lock() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn listen(port: u16, filter: &str, shared: &Shared, seen: &mut impl FnMut(&str, &[u8])) -> std::io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let mut reader = BufReader::with_capacity(64 << 10, stream.try_clone()?);
    let mut body = Vec::new();
    // Protocol level 4, clean session, no keep-alive.
    let mut connect = text("MQTT");
    connect.extend_from_slice(&[4, 2, 0, 0]);
    connect.extend(text("soak-observer"));
    stream.write_all(&packet(CONNECT, &connect))?;
    expect(&mut reader, &mut body, CONNACK)?;
    let mut subscribe = vec![0, 1];
    subscribe.extend(text(filter));
    subscribe.push(0);
    stream.write_all(&packet(SUBSCRIBE, &subscribe))?;
    expect(&mut reader, &mut body, SUBACK)?;
    *shared.stream.lock() = Some(stream);
    loop {
        let kind = read(&mut reader, &mut body)?;
        if kind & 0xf0 == PUBLISH {
            let (topic, payload) = split(&body).ok_or(std::io::ErrorKind::InvalidData)?;
            seen(topic, payload);
        }
    }
}

fn expect(reader: &mut impl Read, body: &mut Vec<u8>, kind: u8) -> std::io::Result<()> {
    match read(reader, body)? {
        read if read == kind => Ok(()),
        _ => Err(std::io::ErrorKind::InvalidData.into()),
    }
}

/// Reads one packet: gives its first byte, and the rest in `body`.
fn read(reader: &mut impl Read, body: &mut Vec<u8>) -> std::io::Result<u8> {
    let mut byte = [0];
    reader.read_exact(&mut byte)?;
    let kind = byte[0];
    let mut length = 0;
    for shift in [0, 7, 14, 21] {
        reader.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    if length > MAX_PACKET {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    body.resize(length, 0);
    reader.read_exact(body)?;
    Ok(kind)
}

/// Topic and payload of a QoS 0 publish.
fn split(body: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = body.split_first_chunk()?;
    let (topic, payload) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(topic).ok()?, payload))
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    let mut length = body.len();
    loop {
        let more = if length > 0x7f { 0x80 } else { 0 };
        bytes.push((length & 0x7f) as u8 | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}
