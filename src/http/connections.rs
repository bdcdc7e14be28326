//! Accepts connections with limits: number of connections, time for the head of a request, time in which a client reads no
//! data, and size of the send buffer in the kernel.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::{Extension, Router};
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;

use super::connection_table::{ConnectionPlace, ConnectionTable, OpenRequest};
use super::places::{ClientKey, PlaceLimits};

/// Send buffer of a connection, in bytes. It is small, so that a slow client receives fewer pictures instead of older ones. The
/// kernel reports space in it only when much of it is free: a client that reads a few bytes at a time counts as one that reads
/// nothing.
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
    /// Open connections. Further ones are closed at once.
    pub connections: PlaceLimits,
    /// Time limit for the head of a request, and between two requests.
    pub header_timeout: Duration,
    /// A client that reads nothing for this long is disconnected.
    pub write_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: PlaceLimits {
                total: 96,
                per_client: 16,
                device: 64,
                reserved: 16,
            },
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
    let table = ConnectionTable::new(limits.connections);
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
        match table.admit(ClientKey::of(peer.ip())) {
            Ok(place) => {
                connections.spawn(connection(stream, Peer(peer), router.clone(), limits, place));
            }
            Err(shortage) => tracing::debug!(%peer, ?shortage, "Refused a connection: there are too many"),
        }
    }
}

async fn connection(stream: TcpStream, peer: Peer, router: Router, limits: ServerLimits, place: Arc<ConnectionPlace>) {
    // The connection also works without these options.
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_timeout));
    let router = router
        .layer(Extension(peer))
        .layer(middleware::from_fn_with_state(place.clone(), mark_busy));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router))
        .with_upgrades();
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        // A request that arrives at this moment is lost, as with every server that closes idle connections: clients send it again.
        () = place.evicted() => {
            tracing::trace!(peer = %peer.0, "An idle connection gives way to a new one");
            return;
        }
    };
    if let Err(e) = ended {
        tracing::trace!(peer = %peer.0, error = %e, "The connection ended");
    }
}

/// Marks the connection as busy until the response is sent.
async fn mark_busy(State(place): State<Arc<ConnectionPlace>>, mut request: Request, next: Next) -> Response {
    let open = place.begin_request();
    request.extensions_mut().insert(open.clone());
    let response = next.run(request).await;
    response.map(|body| Body::new(OpenBody { body, _open: open }))
}

/// A body that holds its request.
struct OpenBody {
    body: Body,
    _open: OpenRequest,
}

impl hyper::body::Body for OpenBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
