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

/// Address of the broker and identity of the client.
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
    /// File with the only trusted CA certificates (PEM); `None`: the root certificates of the machine.
    pub ca: Option<PathBuf>,
    /// [`RateLimits::IOT_CORE`] for IoT Core, [`RateLimits::UNLIMITED`] for other brokers.
    pub rate_limits: RateLimits,
    /// Time limits. Only tests change them.
    pub limits: ConnectionTimes,
}

/// Time limits of the connection.
#[derive(Debug, Clone)]
pub struct ConnectionTimes {
    /// Interval of pings. Default 30 s, at least 1 s.
    pub keep_alive: Duration,
    /// Time limit from the start of the attempt to CONNACK. Default 10 s.
    pub connect: Duration,
    /// Without an acknowledgement for this long while a message waits for one, the connection counts as lost. Default 20 s.
    pub acknowledgement: Duration,
    /// A connection that the broker closes within this time after accepting it is an early close. Default 10 s.
    pub short_lived: Duration,
    /// A command with the DUP or RETAIN flag and a payload received within this time is a duplicate. Default 10 s.
    pub same_command: Duration,
    /// Delays between connection attempts. Default 1 s to 60 s.
    pub backoff: BackoffPolicy,
    /// Random fractions 0 <= x < 1 for these delays. Default: the random generator of the thread.
    pub jitter: fn() -> f64,
}

impl Default for ConnectionTimes {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(30),
            connect: Duration::from_secs(10),
            acknowledgement: Duration::from_secs(20),
            short_lived: Duration::from_secs(10),
            same_command: Duration::from_secs(10),
            backoff: BackoffPolicy::default(),
            jitter: rand::random::<f64>,
        }
    }
}
