//! Accepts connections and bounds what each may take: their number, the time for a request's head, the time a client may
//! stop reading, and the memory that waits for it in the kernel.

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

/// Bytes that may wait in the kernel for one client: a slow one gets fewer pictures, not older ones.
const SEND_BUFFER: usize = 128 * 1024;
/// After a failure to accept (no file descriptors left).
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// Headers of one request.
const MAX_HEADERS: usize = 64;
/// Bytes of a request's head, and of what is read ahead.
const MAX_HEAD: usize = 32 * 1024;

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections at a time. More are closed at once.
    pub connections: usize,
    /// For the head of a request, and between two requests.
    pub head: Duration,
    /// A client that takes nothing for so long is cut off.
    pub stalled: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(15),
            stalled: Duration::from_secs(10),
        }
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub SocketAddr);

/// Serves until dropped.
pub(crate) async fn serve(listener: TcpListener, router: Router, bounds: Bounds) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::debug!("a client could not be accepted: {e}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        // What ended is let go of.
        while connections.try_join_next().is_some() {}
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::debug!(
                "{peer} is turned away: there are {} connections already",
                bounds.connections
            );
            continue;
        };
        connections.spawn(connection(stream, Peer(peer), router.clone(), bounds, place));
    }
}

async fn connection(stream: TcpStream, peer: Peer, router: Router, bounds: Bounds, place: OwnedSemaphorePermit) {
    // Both only make it faster.
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(bounds.stalled));
    let place = Arc::new(place);
    let service = TowerToHyperService::new(router.layer(Extension(peer)).layer(Extension(Held(place.clone()))));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
        .with_upgrades()
        .await;
    if let Err(e) = served {
        tracing::trace!("connection of {}: {e}", peer.0);
    }
}

/// The place of a connection, for a WebSocket that outlives the request that opened it.
#[derive(Debug, Clone)]
pub(crate) struct Held(#[allow(dead_code)] Arc<OwnedSemaphorePermit>);
