//! Settings of the uplink.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use super::command_inbox::CommandRefusal;
use super::destination::Destination;
use super::rate_limiter::RateLimits;
use crate::config::Qos;
use crate::device::Topics;
use crate::util::backoff::BackoffPolicy;

/// How to reach the broker, and with which identity.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The broker.
    pub address: Destination,
    /// MQTT client id: the device's name.
    pub client_id: String,
    /// The device's topics.
    pub topics: Topics,
    /// Quality of service of the last will and of the notices and answers that the uplink itself publishes.
    pub qos: Qos,
    /// Makes the answer to a command that the uplink refuses.
    pub refusal_answer: fn(CommandRefusal) -> Bytes,
    /// Certificates (PEM) that must have signed the broker's; `None`: the machine's own roots.
    pub ca: Option<PathBuf>,
    /// How fast messages are sent: [`RateLimits::IOT_CORE`] there, [`RateLimits::UNLIMITED`] elsewhere.
    pub rate_limits: RateLimits,
    /// Times; the default is right outside tests.
    pub limits: ConnectionLimits,
}

/// Times of the connection.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Interval of pings. Default 30 s, at least 1 s.
    pub keep_alive: Duration,
    /// From the first packet to CONNACK. Default 10 s.
    pub connect: Duration,
    /// A broker that acknowledges nothing for this long while something waits for it is gone. Default 20 s.
    pub acknowledgement: Duration,
    /// A connection that the broker closed sooner than this after accepting it was closed "right after". Default 10 s.
    pub short_lived: Duration,
    /// The same command again within this time, flagged DUP or RETAIN, is the same one. Default 10 s.
    pub same_command: Duration,
    /// Waits between connections. Default 1 s to 60 s.
    pub backoff: BackoffPolicy,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(30),
            connect: Duration::from_secs(10),
            acknowledgement: Duration::from_secs(20),
            short_lived: Duration::from_secs(10),
            same_command: Duration::from_secs(10),
            backoff: BackoffPolicy::default(),
        }
    }
}
