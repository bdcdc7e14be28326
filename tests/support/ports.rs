//! TCP ports for servers that cannot choose a free port.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;

use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

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
        if can_be_bound(port).is_ok() {
            return port;
        }
    }
    panic!("no free port in {RANGE:?}");
}

/// Binds the port without listening. Every process that another thread starts at this moment has a copy of the socket until its
/// exec; the copy of a listening socket would accept connections and keep the port from the server that it is meant for.
fn can_be_bound(port: u16) -> rustix::io::Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}
