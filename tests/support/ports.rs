//! TCP ports for servers that cannot choose a free port.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;

/// Ports below the range that Linux uses for outgoing connections and for port 0 (32768 to 60999). Another connection could
/// take a port of that range before the server starts.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Held until the process ends.
static HELD: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A free TCP port. No other test gets it while this process runs.
pub fn free_port() -> u16 {
    let start = rand::random_range(RANGE);
    let ports = (start..RANGE.end).chain(RANGE.start..start);
    for port in ports {
        // An abstract socket is used as a lock, because it leaves no file behind.
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
