//! Accepts connections within limits: their number, the time for the headers of a request, the time in which a client reads
//! nothing, and the size of the send buffer in the kernel.

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

/// Send buffer of a connection in bytes. Small, so that a slow client gets fewer pictures instead of older ones.
const SEND_BUFFER: usize = 128 * 1024;
/// Wait after a failed accept (no file descriptors left).
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
/// Number of headers of a request.
const MAX_HEADERS: usize = 64;
/// Bytes of the headers of a request, and of the read buffer.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// Limits of a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionLimits {
    /// Open connections. Further ones are closed at once.
    pub connections: usize,
    /// Time for the headers of a request, and between two requests.
    pub header_timeout: Duration,
    /// A client that reads nothing for this long is disconnected.
    pub write_timeout: Duration,
}

impl Default for ConnectionLimits {
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
pub(super) async fn serve(listener: TcpListener, router: Router, limits: ConnectionLimits) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::debug!(error = %e, "A connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        // Removes finished connections from the set.
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            tracing::debug!(%peer, limit = limits.connections, "A connection is refused: there are too many");
            continue;
        };
        connections.spawn(connection(stream, Peer(peer), router.clone(), limits, permit));
    }
}

async fn connection(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    limits: ConnectionLimits,
    permit: OwnedSemaphorePermit,
) {
    // The connection works without these options too.
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

/// Counts as a connection until all clones are dropped. A WebSocket keeps one, because it outlives the request that opened it.
#[derive(Debug, Clone)]
pub(super) struct ConnectionPermit(#[allow(dead_code)] Arc<OwnedSemaphorePermit>);
