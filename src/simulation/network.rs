//! The simulated network: Unix sockets whose other end delays, holds and loses packets.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use bytes::{Buf, BytesMut};
use rumqttc::mqttbytes::Error;
use rumqttc::mqttbytes::v4::Packet;

use super::plan::Millis;

/// Number of a connection.
pub(super) type LinkId = u64;

const MAX_PACKET: usize = 1 << 20;

/// All connections, in the order of their numbers.
#[derive(Debug)]
pub(super) struct Network {
    listener: UnixListener,
    pub links: BTreeMap<LinkId, Link>,
    last_id: LinkId,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    socket: UnixStream,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// Packets that the client has written and that are not on their way yet.
    pub written: Vec<Packet>,
    /// The client has closed the connection; `Some(true)`: the other side was told.
    pub closed_by_client: Option<bool>,
    /// Nothing passes any more, in either direction.
    pub is_dead: bool,
    /// When the last packet arrives at the broker, and at the client.
    pub last_up: Millis,
    pub last_down: Millis,
}

impl Network {
    pub fn listen(path: &Path) -> std::io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            links: BTreeMap::new(),
            last_id: 0,
        })
    }

    /// Accepts connections, and reads and writes what the sockets take. Returns whether anything happened.
    ///
    /// # Errors
    /// The client writes something that is not MQTT.
    pub fn poll(&mut self) -> Result<bool, String> {
        let mut active = false;
        while let Ok((socket, _)) = self.listener.accept() {
            socket.set_nonblocking(true).map_err(|error| error.to_string())?;
            self.last_id += 1;
            self.links.insert(self.last_id, Link::new(socket));
            active = true;
        }
        for link in self.links.values_mut() {
            active |= link.poll()?;
        }
        Ok(active)
    }

    /// Writes a packet to the client.
    pub fn deliver(&mut self, id: LinkId, packet: &Packet) {
        if let Some(link) = self.links.get_mut(&id)
            && !link.is_dead
        {
            // Only a packet beyond the limit cannot be written.
            let _ = packet.write(&mut link.outgoing, usize::MAX);
        }
    }

    /// Closes the connection at the client's end.
    pub fn close(&mut self, id: LinkId) {
        self.links.remove(&id);
    }
}

impl Link {
    fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            written: Vec::new(),
            closed_by_client: None,
            is_dead: false,
            last_up: 0,
            last_down: 0,
        }
    }

    fn poll(&mut self) -> Result<bool, String> {
        let mut active = false;
        let mut buffer = [0; 16 << 10];
        while self.closed_by_client.is_none() {
            match self.socket.read(&mut buffer) {
                Ok(0) => self.closed_by_client = Some(false),
                Ok(length) => self.incoming.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.closed_by_client = Some(false),
            }
            active = true;
        }
        loop {
            match Packet::read(&mut self.incoming, MAX_PACKET) {
                Ok(packet) => self.written.push(packet),
                Err(Error::InsufficientBytes(_)) => break,
                Err(error) => return Err(format!("the client wrote what is not MQTT: {error}")),
            }
        }
        while !self.outgoing.is_empty() {
            match self.socket.write(&self.outgoing) {
                Ok(length) => self.outgoing.advance(length),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The client has closed the connection.
                Err(_) => self.outgoing.clear(),
            }
            active = true;
        }
        Ok(active)
    }
}
