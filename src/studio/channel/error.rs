//! Why there is no channel.

use std::time::Duration;

use crate::aws::secret::SecretError;
use crate::studio::error::StudioError;
use crate::studio::host::HostError;
use crate::util::backoff::Retry;

/// Why there is no connection to the remote management of Studio.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// There is no API key.
    #[error("Edge Impulse Studio cannot be connected without the API key: {0}")]
    Secret(#[from] SecretError),
    /// `EI_HOST` or an address of a service is wrong.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The HTTP client cannot be created.
    #[error(transparent)]
    Client(#[from] StudioError),
    /// No connection.
    #[error(
        "the remote management of Edge Impulse Studio ({host}) cannot be reached: {reason}; check the network, DNS and proxy (HTTPS_PROXY) of this device"
    )]
    Unreachable {
        /// Host of the request.
        host: String,
        /// Why.
        reason: String,
    },
    /// Another answer than a WebSocket.
    #[error(
        "{host} answers with HTTP {status} instead of a WebSocket: check that EI_HOST is Edge Impulse Studio, and that no proxy or login page answers"
    )]
    NoWebSocket {
        /// Host of the request.
        host: String,
        /// HTTP status.
        status: u16,
    },
    /// No answer to the hello.
    #[error("the remote management of Edge Impulse Studio did not answer the hello within {} s", .0.as_secs_f32())]
    NoAnswer(Duration),
    /// The hello was refused.
    #[error("Edge Impulse Studio refuses this device: {0}")]
    Refused(String),
    /// Studio closed the connection.
    #[error("Edge Impulse Studio closed the connection{}", closing(.0))]
    Closed(String),
    /// No pong.
    #[error("Edge Impulse Studio did not answer a ping within {} s", .0.as_secs_f32())]
    NoPong(Duration),
    /// A message could not be written.
    #[error("a message to Edge Impulse Studio could not be written within {} s", .0.as_secs_f32())]
    WriteTimeout(Duration),
    /// A violation of the protocol, or a message that is too large.
    #[error("the connection to Edge Impulse Studio failed: {0}")]
    Protocol(String),
}

impl ChannelError {
    /// When the next attempt can be made.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Secret(error) => error.retry(),
            Self::Client(error) => error.retry(),
            Self::Host(_) | Self::Refused(_) => Retry::Later,
            Self::NoWebSocket { status: 401 | 403, .. } => Retry::Later,
            _ => Retry::Soon,
        }
    }

    /// Whether the other side ended a connection that worked.
    pub(super) fn is_end_by_studio(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

fn closing(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}
