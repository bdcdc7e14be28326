//! A small HTTP proxy: CONNECT, and GET with a whole URL.

use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use super::http::read_head;
use crate::support::events::Events;

/// Listens until the test ends.
pub struct ConnectProxy {
    pub port: u16,
    /// Method and target of each request, then its Proxy-Authorization.
    pub requests: Arc<Events<(String, Option<String>)>>,
}

impl ConnectProxy {
    /// Starts the proxy; with `refuse` it answers every CONNECT with this status.
    pub fn start(refuse: Option<u16>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let requests = Arc::new(Events::default());
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || serve(stream, &seen, refuse));
            }
        });
        Self { port, requests }
    }

    pub fn targets(&self) -> Vec<String> {
        self.requests
            .with(|list| list.iter().map(|(request, _)| request.clone()).collect())
    }
}

fn serve(mut client: TcpStream, seen: &Events<(String, Option<String>)>, refuse: Option<u16>) -> Option<()> {
    let (first, headers) = read_head(&mut BufReader::with_capacity(1, &client))?;
    let (request, _) = first.rsplit_once(' ')?;
    seen.push((request.to_owned(), headers.get("proxy-authorization").cloned()));
    if let Some(status) = refuse {
        client
            .write_all(format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n").as_bytes())
            .ok()?;
        return None;
    }
    let server = match request.split_once(' ')? {
        ("CONNECT", target) => {
            let server = TcpStream::connect(target).ok()?;
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
            server
        }
        (_, url) => {
            let authority = url.strip_prefix("http://")?.split('/').next()?;
            let mut server = TcpStream::connect(authority).ok()?;
            let headers: String = headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}\r\n"))
                .collect();
            server.write_all(format!("{first}\r\n{headers}\r\n").as_bytes()).ok()?;
            server
        }
    };
    let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let (mut from_server, mut to_client) = (server, client);
    let _ = std::io::copy(&mut from_server, &mut to_client);
    let _ = to_client.shutdown(Shutdown::Both);
    Some(())
}
