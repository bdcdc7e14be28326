//! The uplink: delivers messages to an MQTT broker and brings commands back.
//!
//! Producers push into the [`Outbox`] and never wait. One driver task keeps a connection, sends what waits, and hands
//! commands on. [`start`] starts it, [`Uplink::stop`] ends it in order.

pub mod address;
mod command_inbox;
mod connection;
mod destination;
mod driver;
mod iot_core;

mod ad_hoc_client;
mod connection_error;
mod in_flight;
pub mod message;
mod outage;
pub mod outbox;
mod proxy;
mod rate_limiter;
mod recent;
mod spool;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use ad_hoc_client::{AdHocClient, ReceivedMessage, ad_hoc_client_id};
pub use address::{Broker, BrokerAddress};
pub use command_inbox::{CommandRefusal, MAX_COMMAND_BYTES, ReceivedCommand};
pub use connection_error::ConnectionError;
pub use destination::{ClientCertificate, Destination};
pub use iot_core::{EndpointOrigin, IotCore, SignIn};
pub use message::{Class, Message, Status};
pub use outbox::Outbox;
pub use rate_limiter::{Rate, RateLimits};
pub use spool::{Policy, Spool, SpoolSettings};

use crate::config::Qos;
use crate::device::Topics;
use crate::status::stats::Stats;
use crate::status::{LinkStatus, StatusSource};
use crate::util::backoff::BackoffPolicy;
use crate::util::panics::PanicRestart;

/// How to reach the broker, and as whom.
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
    pub pacing: RateLimits,
    /// Times; the default is right outside tests.
    pub limits: Limits,
}

/// Times of the connection.
#[derive(Debug, Clone)]
pub struct Limits {
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

impl Default for Limits {
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

/// What the connection is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// An attempt is under way.
    Connecting {
        /// Attempts since the start or since the last good connection, this one included.
        attempt: u32,
    },
    /// The subscription stands.
    Online {
        /// Since when.
        since: Instant,
    },
    /// Waiting for the next attempt.
    Offline {
        /// Why.
        reason: ConnectionError,
        /// Since when there has been no connection.
        since: Instant,
        /// Length of the wait that began when this state was set.
        retry_in: Duration,
    },
}

impl StatusSource<LinkStatus> for watch::Receiver<LinkState> {
    fn status(&self) -> LinkStatus {
        match &*self.borrow() {
            LinkState::Connecting { attempt } => LinkStatus::Connecting { attempt: *attempt },
            LinkState::Online { since } => LinkStatus::Online {
                duration: since.elapsed(),
            },
            LinkState::Offline {
                reason,
                since,
                retry_in,
            } => LinkStatus::Offline {
                reason: reason.to_string(),
                duration: since.elapsed(),
                retry_in: *retry_in,
            },
        }
    }
}

/// How the uplink ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopReport {
    /// Messages the broker has not acknowledged; they are still in the outbox.
    pub undelivered: usize,
}

/// A request to stop.
#[derive(Debug)]
struct StopOrder {
    notice: Option<Message>,
    limit: Duration,
}

/// The running uplink. Dropping it ends the connection at once, with the last will.
#[derive(Debug)]
pub struct Uplink {
    state: watch::Receiver<LinkState>,
    stop: Option<oneshot::Sender<StopOrder>>,
    driver: JoinHandle<()>,
    outbox: Arc<Outbox>,
}

/// Starts the driver on the current tokio runtime. The first connection attempt begins at once.
///
/// Commands come out of the receiver cleared and in order; when it is full or dropped, their senders get an error answer.
pub fn start(settings: Settings, outbox: Arc<Outbox>, stats: Arc<Stats>) -> (Uplink, mpsc::Receiver<ReceivedCommand>) {
    let (commands, received) = mpsc::channel(command_inbox::MAX_PENDING);
    let (state_sender, state) = watch::channel(LinkState::Connecting { attempt: 1 });
    let (stop, stop_order) = oneshot::channel();
    let waits = settings.limits.backoff;
    let start = {
        let outbox = Arc::clone(&outbox);
        move || {
            let (settings, outbox, stats) = (settings.clone(), outbox.clone(), stats.clone());
            driver::Driver::new(settings, outbox, stats, commands.clone(), state_sender.clone())
        }
    };
    let uplink = Uplink {
        state,
        stop: Some(stop),
        driver: tokio::spawn(keep_driving(start, waits, Arc::clone(&outbox), stop_order)),
        outbox,
    };
    (uplink, received)
}

/// Runs a driver until the end, and another one when it panics.
async fn keep_driving(
    start: impl Fn() -> driver::Driver,
    waits: BackoffPolicy,
    outbox: Arc<Outbox>,
    mut stop_order: oneshot::Receiver<StopOrder>,
) {
    let mut relief = PanicRestart::with_policy("the connection to the broker", waits);
    while let Err(wait) = relief.attempt(start().run(&mut stop_order)).await {
        outbox.connection_lost();
        if stop_order.is_terminated() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // There is no connection to say goodbye on: the last will has been sent.
            _ = &mut stop_order => return,
        }
    }
}

impl Uplink {
    /// Follows the connection.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// Ends in order and returns within `limit`, whatever the broker does: delivers what waits, then `final_notice`, awaits
    /// its acknowledgement, and disconnects so that no last will follows. What waits gets half of the time; the rest is
    /// for the notice, beside which the flushing goes on. A notice that is not acknowledged in time is followed by no
    /// DISCONNECT: then the last will tells that the device is gone.
    pub async fn stop(mut self, final_notice: Option<Message>, limit: Duration) -> StopReport {
        if let Some(stop) = self.stop.take() {
            // The driver is gone only if it panicked; then there is nothing to wait for below either.
            let _ = stop.send(StopOrder {
                notice: final_notice,
                limit,
            });
        }
        if tokio::time::timeout(limit, &mut self.driver).await.is_err() {
            self.driver.abort();
        }
        StopReport {
            undelivered: self.outbox.depth(),
        }
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
