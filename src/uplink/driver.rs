//! The task that keeps a connection: connects, subscribes, sends what waits, hands commands on, and connects again.

mod session;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout, timeout_at};

use super::command_inbox::{CommandInbox, CommandRefusal, ReceivedCommand};
use super::connection::{Connection, LinkEvent, MAX_INCOMING_BYTES};
use super::connection_error::ConnectionError;
use super::message::{Message, Status};
use super::outage::{Outage, log_failure};
use super::outbox::{Outbox, Token};
use super::rate_limiter::RateLimiter;
use super::{LinkState, Settings, StopOrder};
use crate::status::stats::Stats;
use crate::util::backoff::Backoff;
use session::Link;

/// So many connections in a row that end right after they began are no accident.
const THROWN_OUT_TIMES: u32 = 3;

/// At an orderly end the broker gets so much time before what it did not take is written to disk.
const SPOOLED_AFTER: Duration = Duration::from_millis(500);

type StopSignal = oneshot::Receiver<StopOrder>;

/// See the module.
pub(super) struct Driver {
    settings: Settings,
    outbox: Arc<Outbox>,
    stats: Arc<Stats>,
    commands: mpsc::Sender<ReceivedCommand>,
    state: watch::Sender<LinkState>,
    desk: CommandInbox,
    backoff: Backoff,
    outage: Outage,
    pacer: RateLimiter,
    /// Connections in a row that the broker closed right after accepting them.
    thrown_out: u32,
    was_online: bool,
    /// The `online` notice that is not acknowledged yet: a second one would say nothing more.
    online_notice: Option<Token>,
    /// The next connection drops what the broker keeps for this client; see [`Driver::purge`].
    purge_next: bool,
    /// The last connection ended because the broker broke the protocol. A broker that acknowledges twice ends each
    /// connection with its first acknowledgement: that one must not always go to the `online` notice.
    wary: bool,
    stopping: Option<Stopping>,
}

/// The orderly end under way.
struct Stopping {
    /// Not yet in the outbox.
    notice: Option<Message>,
    /// The notice in the outbox, until it is acknowledged.
    awaited: Option<Token>,
    /// From here on the notice no longer waits for the messages before it.
    notice_at: Instant,
    /// From here on nothing is waited for.
    leave_at: Instant,
}

/// How one connection ended.
enum End {
    /// For good.
    Stopped,
    /// On purpose: connect again at once.
    Again,
    /// Unasked.
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
            desk: CommandInbox::new(settings.limits.same_command),
            backoff: Backoff::new(settings.limits.backoff),
            pacer: RateLimiter::new(settings.pacing, Instant::now()),
            settings,
            outbox,
            stats,
            commands,
            state,
            outage: Outage::default(),
            thrown_out: 0,
            was_online: false,
            online_notice: None,
            purge_next: false,
            wary: false,
            stopping: None,
        }
    }

    /// Runs until `stop` says so, or its sender is gone.
    pub async fn run(mut self, stop: &mut StopSignal) {
        loop {
            let attempt = self.backoff.failures().saturating_add(1);
            self.state.send_replace(LinkState::Connecting { attempt });
            let reason = match self.attempt(stop).await {
                End::Stopped => break,
                End::Again => continue,
                End::Lost(reason) => reason,
            };
            if self.stopping.is_some() {
                tracing::warn!(
                    "The connection to {} ended while stopping: {reason}",
                    self.settings.address
                );
                break;
            }
            let wait = self.lost(reason);
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
        let mut opening = pin!(Connection::open(&settings, Some(last_will), self.purge_next));
        let opened = select! {
            opened = &mut opening => Some(opened),
            order = &mut *stop => {
                // What waits may still be delivered, if the broker answers soon.
                let patience = self.begin_stop(order.ok());
                timeout_at(patience.into(), opening).await.ok()
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
        match end {
            End::Lost(reason) => {
                self.wary = matches!(reason, ConnectionError::Protocol(_));
                End::Lost(self.with_suspicion(reason, &link))
            }
            end => end,
        }
    }

    /// Counts connections that the broker closed right after accepting them.
    fn with_suspicion(&mut self, reason: ConnectionError, link: &Link) -> ConnectionError {
        let short = link
            .connected
            .is_some_and(|at| at.elapsed() < self.settings.limits.short_lived);
        if !short || reason != ConnectionError::Closed {
            self.thrown_out = 0;
            return reason;
        }
        self.thrown_out += 1;
        if self.thrown_out < THROWN_OUT_TIMES {
            return reason;
        }
        ConnectionError::ThrownOut {
            times: self.thrown_out,
            client_id: self.settings.client_id.clone(),
            command_topic: self.settings.topics.command_input.clone(),
        }
    }

    /// Logs, tells the state, and returns how long to wait.
    fn lost(&mut self, reason: ConnectionError) -> Duration {
        let now = Instant::now();
        let retry_in = self.backoff.failed(now);
        let (since, failures) = self.outage.failed(now);
        let suspicion_is_new = matches!(
            reason,
            ConnectionError::ThrownOut {
                times: THROWN_OUT_TIMES,
                ..
            }
        );
        if let Some(failures) = failures.or(suspicion_is_new.then_some(THROWN_OUT_TIMES)) {
            log_failure(
                &self.settings.address.to_string(),
                &reason,
                failures,
                self.outbox.waiting(),
                retry_in,
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

    /// A message that is too large to be read would be delivered again on every connection.
    fn refuse_oversized(&mut self, bytes: usize) {
        let topic = &self.settings.topics.command_input;
        tracing::error!(
            "The broker has a message of {bytes} bytes for {topic}; at most {MAX_INCOMING_BYTES} are read. It is removed by \
             beginning a new session, and with it any other command that waits at the broker"
        );
        self.answer(CommandRefusal::TooLarge(bytes));
        self.purge_next = true;
    }

    fn answer(&self, refusal: CommandRefusal) {
        let payload = (self.settings.refusal_answer)(refusal);
        self.outbox
            .push(Message::answer(&self.settings.topics, payload, self.settings.qos));
    }

    /// One connection that only makes the broker forget: a clean session drops what is queued, and an empty retained message
    /// what is retained. It does not subscribe, so neither is delivered.
    async fn purge(&mut self, mut connection: Connection, stop: &mut StopSignal) -> End {
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
                Ok(Some(LinkEvent::Closed(_))) if cleared => return End::Again,
                Ok(Some(LinkEvent::Closed(reason))) => return End::Lost(reason),
                Ok(Some(_)) => {}
                Ok(None) => return End::Lost(client_failed()),
                Err(_) if cleared => return End::Again,
                Err(_) => return End::Lost(ConnectionError::NoAcknowledgement(limit)),
            }
        }
    }

    /// `None`: nobody holds the uplink any more.
    /// Gives the time up to which a connection that is being made is worth waiting for.
    fn begin_stop(&mut self, order: Option<StopOrder>) -> Instant {
        let now = Instant::now();
        let (notice, limit) = order.map_or((None, Duration::ZERO), |order| (order.notice, order.limit));
        self.outbox.flush_from(now + SPOOLED_AFTER);
        self.stopping = Some(Stopping {
            notice,
            awaited: None,
            notice_at: now + limit / 2,
            leave_at: now + limit.saturating_sub(session::farewell(limit)),
        });
        now + limit / 2
    }

    /// What was not delivered stays in the outbox, where it is counted.
    fn close(&mut self) {
        self.outbox.connection_lost();
        if let Some(notice) = self.stopping.as_mut().and_then(|stopping| stopping.notice.take()) {
            self.outbox.push(notice);
        }
        if self.desk.pending() > 0 {
            tracing::warn!(
                "{} commands arrived too late to be carried out before the stop",
                self.desk.pending()
            );
        }
    }
}

fn client_failed() -> ConnectionError {
    ConnectionError::Other("the MQTT client failed; see the log for a panic".into())
}
