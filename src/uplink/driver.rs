//! The task that keeps a connection: connects, subscribes, sends messages, passes commands on, and reconnects.

mod session;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout, timeout_at};
use tracing::Instrument;

use super::command_inbox::{CommandInbox, CommandRefusal, ReceivedCommand};
use super::connection::{BrokerConnection, LinkEvent, MAX_INCOMING_BYTES};
use super::connection_error::ConnectionError;
use super::link_state::LinkState;
use super::message::{Message, Status};
use super::outage::Outage;
use super::outbox::{Outbox, Token};
use super::rate_limiter::RateLimiter;
use super::settings::Settings;
use crate::status::stats::Stats;
use crate::util::backoff::Backoff;
use crate::util::clock::{monotonic_now, rounded};
use session::Link;

/// After this many connections in a row that end right after they began, the error names likely causes.
const SUSPICIOUS_EARLY_CLOSES: u32 = 3;

/// Time for the broker at a stop, before undelivered messages are written to disk.
const SPOOL_DELAY: Duration = Duration::from_millis(500);

/// A request to stop.
#[derive(Debug)]
pub(super) struct StopOrder {
    pub notice: Option<Message>,
    pub limit: Duration,
}

type StopSignal = oneshot::Receiver<StopOrder>;

/// Keeps one connection to the broker.
pub(super) struct Driver {
    settings: Settings,
    outbox: Arc<Outbox>,
    stats: Arc<Stats>,
    commands: mpsc::Sender<ReceivedCommand>,
    state: watch::Sender<LinkState>,
    inbox: CommandInbox,
    backoff: Backoff,
    outage: Outage,
    rate_limiter: RateLimiter,
    /// Connections in a row that the broker closed right after accepting them.
    early_closes: u32,
    was_online: bool,
    /// The `online` notice that is not acknowledged yet. No second one is sent until then.
    online_notice: Option<Token>,
    /// The next connection removes the commands that the broker stores for this client; see [`Driver::purge`].
    purge_next: bool,
    /// Whether the last connection ended because the broker broke the protocol. With a broker that acknowledges twice, each
    /// connection delivers one message. That message must not always be the `online` notice.
    after_protocol_error: bool,
    stopping: Option<Stopping>,
}

/// State of a stop.
struct Stopping {
    /// The final notice, until it is pushed into the outbox.
    notice: Option<Message>,
    /// The final notice in the outbox, until it is acknowledged.
    notice_token: Option<Token>,
    /// At this time the notice is sent even if messages before it still wait.
    notice_at: Instant,
    /// At this time the driver ends without waiting any longer.
    give_up_at: Instant,
}

/// How one connection ended.
enum End {
    /// The uplink stops.
    Stopped,
    /// Connect again without a delay.
    Reconnect,
    /// The connection failed or was lost.
    Lost(ConnectionError),
}

impl Driver {
    pub fn new(
        settings: Settings,
        outbox: Arc<Outbox>,
        stats: Arc<Stats>,
        commands: mpsc::Sender<ReceivedCommand>,
        state: watch::Sender<LinkState>,
    ) -> Self {
        Self {
            inbox: CommandInbox::new(settings.limits.same_command),
            backoff: Backoff::with_jitter(settings.limits.backoff, Box::new(settings.limits.jitter)),
            rate_limiter: RateLimiter::new(settings.rate_limits, monotonic_now()),
            settings,
            outbox,
            stats,
            commands,
            state,
            outage: Outage::default(),
            early_closes: 0,
            was_online: false,
            online_notice: None,
            purge_next: false,
            after_protocol_error: false,
            stopping: None,
        }
    }

    /// Runs until `stop` receives an order, or until its sender is dropped.
    pub async fn run(mut self, stop: &mut StopSignal) {
        loop {
            let attempt = self.backoff.failures().saturating_add(1);
            self.state.send_replace(LinkState::Connecting { attempt });
            let span = tracing::info_span!("connection", broker = %self.settings.address, attempt);
            let reason = match self.attempt(stop).instrument(span).await {
                End::Stopped => break,
                End::Reconnect => continue,
                End::Lost(reason) => reason,
            };
            if self.stopping.is_some() {
                tracing::warn!(broker = %self.settings.address, error = %reason, "The connection ended while the component stops");
                break;
            }
            let wait = self.on_connection_lost(reason);
            select! {
                () = sleep(wait) => {}
                order = &mut *stop => {
                    self.begin_stop(order.ok());
                    break;
                }
            }
        }
        self.close();
    }

    async fn attempt(&mut self, stop: &mut StopSignal) -> End {
        let last_will = Message::notice(&self.settings.topics, Status::Offline, self.settings.qos);
        let settings = self.settings.clone();
        let mut opening = pin!(BrokerConnection::open(&settings, Some(last_will), self.purge_next));
        let opened = select! {
            opened = &mut opening => Some(opened),
            order = &mut *stop => {
                // Waiting messages can still be delivered if the broker answers soon.
                let deadline = self.begin_stop(order.ok());
                timeout_at(deadline.into(), opening).await.ok()
            }
        };
        let connection = match opened {
            Some(Ok(connection)) => connection,
            Some(Err(reason)) => return End::Lost(reason),
            None => return End::Stopped,
        };
        if self.stopping.is_some() && self.purge_next {
            return End::Stopped;
        }
        if self.purge_next {
            return self.purge(connection, stop).await;
        }
        let mut link = Link::new(connection);
        let end = self.serve(&mut link, stop).await;
        self.outbox.connection_lost();
        self.inbox.connection_lost();
        match end {
            End::Lost(reason) => {
                self.after_protocol_error = matches!(reason, ConnectionError::Protocol(_));
                End::Lost(self.count_early_close(reason, &link))
            }
            end => end,
        }
    }

    /// Counts connections that the broker closed right after accepting them.
    fn count_early_close(&mut self, reason: ConnectionError, link: &Link) -> ConnectionError {
        let short = link
            .connected
            .is_some_and(|at| at.elapsed() < self.settings.limits.short_lived);
        if !short || reason != ConnectionError::Closed {
            self.early_closes = 0;
            return reason;
        }
        self.early_closes += 1;
        if self.early_closes < SUSPICIOUS_EARLY_CLOSES {
            return reason;
        }
        ConnectionError::RepeatedlyClosed {
            times: self.early_closes,
            client_id: self.settings.client_id.clone(),
            command_topic: self.settings.topics.command_input.clone(),
            on_subscribe: link.is_subscribing(),
        }
    }

    /// Logs the failure, sets the state, and returns the delay before the next attempt.
    fn on_connection_lost(&mut self, reason: ConnectionError) -> Duration {
        let now = monotonic_now();
        let retry_in = self.backoff.failed(now);
        let (since, failures) = self.outage.failed(now);
        let suspicion_is_new = matches!(
            reason,
            ConnectionError::RepeatedlyClosed {
                times: SUSPICIOUS_EARLY_CLOSES,
                ..
            }
        );
        if let Some(failures) = failures.or(suspicion_is_new.then_some(SUSPICIOUS_EARLY_CLOSES)) {
            tracing::warn!(
                broker = %self.settings.address,
                error = %reason,
                attempts = failures,
                waiting = self.outbox.waiting(),
                retry_in = ?rounded(retry_in),
                "No connection to the broker"
            );
        }
        if let ConnectionError::TooLarge(bytes) = reason {
            self.refuse_oversized(bytes);
        }
        self.outbox.report_drops();
        self.state.send_replace(LinkState::Offline {
            reason,
            since,
            retry_in,
        });
        retry_in
    }

    /// Removes a message that is too large: otherwise the broker would deliver it on every connection.
    fn refuse_oversized(&mut self, bytes: usize) {
        let topic = &self.settings.topics.command_input;
        tracing::error!(
            bytes,
            topic,
            max_bytes = MAX_INCOMING_BYTES,
            "The broker holds a message that is too large; a new session removes it, and every other command that waits there"
        );
        self.answer(CommandRefusal::TooLarge(bytes));
        self.purge_next = true;
    }

    fn answer(&self, refusal: CommandRefusal) {
        let payload = (self.settings.refusal_answer)(refusal);
        self.outbox
            .push(Message::answer(&self.settings.topics, payload, self.settings.qos));
    }

    /// A connection that only removes stored commands: the clean session drops queued messages, and an empty retained message
    /// removes the retained one. It does not subscribe, so nothing is delivered.
    async fn purge(&mut self, mut connection: BrokerConnection, stop: &mut StopSignal) -> End {
        let limit = self.settings.limits.acknowledgement.max(self.settings.limits.connect);
        let mut cleared = false;
        loop {
            let event = select! {
                event = timeout(limit, connection.events.recv()) => event,
                order = &mut *stop => {
                    self.begin_stop(order.ok());
                    return End::Stopped;
                }
            };
            match event {
                Ok(Some(LinkEvent::Connected)) => {
                    self.purge_next = false;
                    self.stats.mqtt_connects.inc();
                    connection
                        .publish(Message::clear_retained_command(&self.settings.topics))
                        .await;
                }
                Ok(Some(LinkEvent::Acknowledged(_))) => {
                    cleared = true;
                    connection.disconnect().await;
                }
                Ok(Some(LinkEvent::Closed(_))) if cleared => return End::Reconnect,
                Ok(Some(LinkEvent::Closed(reason))) => return End::Lost(reason),
                Ok(Some(_)) => {}
                Ok(None) => return End::Lost(client_failed()),
                Err(_) if cleared => return End::Reconnect,
                Err(_) => return End::Lost(ConnectionError::NoAcknowledgement(limit)),
            }
        }
    }

    /// Begins the stop; `order` is `None` if the uplink was dropped. Returns the deadline of a connection attempt in progress.
    fn begin_stop(&mut self, order: Option<StopOrder>) -> Instant {
        let now = monotonic_now();
        let (notice, limit) = order.map_or((None, Duration::ZERO), |order| (order.notice, order.limit));
        self.outbox.flush_from(now + SPOOL_DELAY);
        self.stopping = Some(Stopping {
            notice,
            notice_token: None,
            notice_at: now + limit / 2,
            give_up_at: now + limit.saturating_sub(session::disconnect_time(limit)),
        });
        now + limit / 2
    }

    /// Ends the driver. Undelivered messages stay in the outbox.
    fn close(&mut self) {
        self.outbox.connection_lost();
        if let Some(notice) = self.stopping.as_mut().and_then(|stopping| stopping.notice.take()) {
            self.outbox.push(notice);
        }
        if self.inbox.pending() > 0 {
            tracing::warn!(
                commands = self.inbox.pending(),
                "Commands arrived too late to be executed before the stop"
            );
        }
    }
}

fn client_failed() -> ConnectionError {
    ConnectionError::Other("the MQTT client failed; see the log for a panic".into())
}

#[cfg(test)]
mod tests;
