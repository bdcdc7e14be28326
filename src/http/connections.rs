//! Accepts connections with limits: number of connections, time for the headers of a request, time in which a client reads no
//! data, and size of the send buffer in the kernel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;

/// Send buffer of a connection, in bytes. It is small, so that a slow client receives fewer pictures instead of older ones.
const SEND_BUFFER: usize = 128 * 1024;
/// Delay after a failed accept, for example without free file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Most bytes of the headers of a request, and size of the read buffer.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// Limits of a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerLimits {
    /// Most open connections. Further ones are closed at once.
    pub connections: usize,
    /// Time limit for the headers of a request, and between two requests.
    pub header_timeout: Duration,
    /// A client that reads nothing for this long is disconnected.
    pub write_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            header_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(10),
        }
    }
}

/// The client's address, as an extension of each request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub SocketAddr);

/// Serves until dropped.
pub(super) async fn serve(listener: TcpListener, router: Router, limits: ServerLimits) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::debug!(error = %e, "Accepting a connection failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        // Removes finished connections from the set.
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            tracing::debug!(%peer, limit = limits.connections, "Refused a connection: there are too many");
            continue;
        };
        connections.spawn(connection(stream, Peer(peer), router.clone(), limits, permit));
    }
}

async fn connection(stream: TcpStream, peer: Peer, router: Router, limits: ServerLimits, permit: OwnedSemaphorePermit) {
    // The connection also works without these options.
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER);
    let permit = ConnectionPermit(Arc::new(permit));
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_timeout));
    let service = TowerToHyperService::new(router.layer(Extension(peer)).layer(Extension(permit.clone())));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
        .with_upgrades()
        .await;
    if let Err(e) = served {
        tracing::trace!(peer = %peer.0, error = %e, "The connection ended");
    }
}

/// Counts as one connection until all clones are dropped. A WebSocket holds a clone, because it outlives its request.
#[derive(Debug, Clone)]
pub(super) struct ConnectionPermit(#[allow(dead_code)] Arc<OwnedSemaphorePermit>);
