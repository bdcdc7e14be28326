//! TCP ports for servers that have to be told their port.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;

/// Below the range from which Linux takes ports for outgoing connections and for port 0 (32768 to 60999): a port from
/// there can be taken by any other connection between the choice and the server's start.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Held until the process ends.
static HELD: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A TCP port that nobody listens on, and that no other test gets while this process lives.
pub fn free_port() -> u16 {
    let start = rand::random_range(RANGE);
    let ports = (start..RANGE.end).chain(RANGE.start..start);
    for port in ports {
        // An abstract socket is a lock that leaves nothing behind.
        let name = SocketAddr::from_abstract_name(format!("ei-greengrass-test-port-{port}")).expect("a name");
        let Ok(lock) = UnixListener::bind_addr(&name) else {
            continue;
        };
        HELD.lock().unwrap().push(lock);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {RANGE:?}");
}
