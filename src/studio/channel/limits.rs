//! Time and size limits of the channel.

use std::time::Duration;

use crate::util::backoff::{BackoffPolicy, Retry};

/// Time and size limits. Only tests change the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelLimits {
    /// Time for the connection, and then for the answer to the hello. Default 10 s.
    pub answer: Duration,
    /// Time between two pings. Default 30 s.
    pub ping: Duration,
    /// Time for the answer to a ping. Default 6 s.
    pub pong: Duration,
    /// Time to write one message. Default 30 s.
    pub write: Duration,
    /// Most bytes of an incoming message: a list of a million indices is refused without the end of the connection. Default
    /// 16 MiB.
    pub message_bytes: usize,
    /// Delays after a failure.
    pub backoff: BackoffPolicy,
    /// Delay after a refusal. Default [`Retry::LATER`].
    pub refused: Duration,
    /// A connection that Studio ends sooner than this after the hello may have been replaced by another device with the same
    /// id. Default 60 s.
    pub short_connection: Duration,
    /// The first hello waits this long for the services to know what they offer. Default 15 s.
    pub first_offer: Duration,
}

impl Default for ChannelLimits {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(10),
            ping: Duration::from_secs(30),
            pong: Duration::from_secs(6),
            write: Duration::from_secs(30),
            message_bytes: 16 << 20,
            backoff: BackoffPolicy::default(),
            refused: Retry::LATER,
            short_connection: Duration::from_secs(60),
            first_offer: Duration::from_secs(15),
        }
    }
}
