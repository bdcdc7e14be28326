//! A network that a test cuts and mends: TCP connections to servers on loopback go through it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;

/// The network. Its threads end with the test program.
#[derive(Default)]
pub struct Network(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    is_cut: bool,
    connections: Vec<TcpStream>,
}

impl Network {
    /// The port on which the server on `port` is reached through this network.
    pub fn route_to(&self, port: u16) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let state = self.0.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // While the network is cut the connection ends at once.
                let _ = connect(client, port, &state);
            }
        });
        own
    }

    /// Ends all connections, and every new one until [`Self::mend`].
    pub fn cut(&self) {
        let mut state = self.0.lock();
        state.is_cut = true;
        for connection in state.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        self.0.lock().is_cut = false;
    }
}

fn connect(client: TcpStream, port: u16, state: &Mutex<State>) -> std::io::Result<()> {
    let mut state = state.lock();
    if state.is_cut {
        return Ok(());
    }
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        state.connections.push(stream.try_clone()?);
    }
    let back = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || copy(client, server));
    std::thread::spawn(move || copy(back.0, back.1));
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
