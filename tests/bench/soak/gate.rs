//! The network between the daemon and the broker: it can be closed, and connections can be cut.
//!
//! After each start of the broker the gate stays closed until the subscriber is back; otherwise messages would be delivered
//! that nobody counts.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::support::ports::free_port;

/// Forwards a port to the broker's.
pub struct Gate {
    /// Where the daemon connects.
    pub port: u16,
    broker: u16,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    listening: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Gate {
    /// Closed at first.
    pub fn new(broker: u16) -> Self {
        Self {
            port: free_port(),
            broker,
            connections: Arc::default(),
            listening: None,
        }
    }

    /// Connections are accepted from now on.
    pub fn open(&mut self) {
        if self.listening.is_some() {
            return;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).expect("the gate's port");
        let over = Arc::new(AtomicBool::new(false));
        let (ended, connections, broker) = (over.clone(), self.connections.clone(), self.broker);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                // Nobody behind the gate: the stream is closed by the drop.
                if let (Ok(near), Ok(far)) = (stream, TcpStream::connect((Ipv4Addr::LOCALHOST, broker))) {
                    let _ = join(near, far, &connections);
                }
            }
        });
        self.listening = Some((over, thread));
    }

    /// Connections are refused, and those that stand are cut.
    pub fn close(&mut self) {
        if let Some((over, thread)) = self.listening.take() {
            over.store(true, Ordering::SeqCst);
            let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
            let _ = thread.join();
        }
        self.cut();
    }

    /// Ends the connections that stand.
    pub fn cut(&self) {
        for stream in self.connections.lock().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.close();
    }
}

fn join(near: TcpStream, far: TcpStream, connections: &Mutex<Vec<TcpStream>>) -> std::io::Result<()> {
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    let mut standing = connections.lock();
    standing.retain(|stream| stream.peer_addr().is_ok());
    standing.extend([near.try_clone()?, far.try_clone()?]);
    drop(standing);
    let (near_again, far_again) = (near.try_clone()?, far.try_clone()?);
    std::thread::spawn(move || forward(near, far));
    std::thread::spawn(move || forward(far_again, near_again));
    Ok(())
}

fn forward(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
