//! One connection, from the first packet to the last.

use std::time::{Duration, Instant};

use rumqttc::Publish;
use tokio::select;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::sleep_until;

use super::super::command_inbox::{AcceptOutcome, CommandRefusal, ReceivedCommand};
use super::super::connection::{BrokerConnection, LinkEvent};
use super::super::connection_error::ConnectionError;
use super::super::in_flight::InFlight;
use super::super::link_state::LinkState;
use super::super::message::{Message, Status};
use super::super::outbox::Token;
use super::{Driver, End, StopSignal, client_failed};
use crate::util::clock::{monotonic_now, rounded};

/// The driver wakes up at least this often, to log dropped messages.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// The part of a stop's time limit that is reserved for DISCONNECT.
pub(super) fn disconnect_time(limit: Duration) -> Duration {
    (limit / 4).min(Duration::from_millis(300))
}

/// Phase of a connection. A phase with a time limit has its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Subscribing(Instant),
    Online,
    Disconnecting(Instant),
}

/// A connection and its state.
pub(super) struct Link {
    connection: BrokerConnection,
    in_flight: InFlight,
    phase: Phase,
    /// Time of CONNACK.
    pub connected: Option<Instant>,
    /// Whether this connection was logged.
    confirmed: bool,
    /// Whether the `online` notice is still to be sent.
    notice_due: bool,
}

impl Link {
    pub fn new(connection: BrokerConnection) -> Self {
        Self {
            connection,
            in_flight: InFlight::default(),
            phase: Phase::Connecting,
            connected: None,
            confirmed: false,
            notice_due: false,
        }
    }

    /// Whether SUBSCRIBE was sent and is not acknowledged.
    pub fn is_subscribing(&self) -> bool {
        matches!(self.phase, Phase::Subscribing(_))
    }

    async fn disconnect(&mut self) {
        self.connection.disconnect().await;
        self.phase = Phase::Disconnecting(monotonic_now());
    }
}

impl Driver {
    /// Uses the connection until it ends. Unacknowledged messages are still marked as sent in the outbox afterwards.
    pub(super) async fn serve(&mut self, link: &mut Link, stop: &mut StopSignal) -> End {
        loop {
            if link.phase == Phase::Online {
                self.fill(link).await;
            }
            if let Some(end) = self.progress_stop(link).await {
                return end;
            }
            let now = monotonic_now();
            if let Some(end) = self.check_deadlines(link, now) {
                return end;
            }
            let wake = self.next_deadline(link, now);
            select! {
                event = link.connection.events.recv() => {
                    if let Some(end) = self.on_event(link, event.unwrap_or(LinkEvent::Closed(client_failed()))).await {
                        return end;
                    }
                }
                () = self.outbox.pushed(), if link.phase == Phase::Online => {}
                order = &mut *stop, if self.stopping.is_none() => {
                    self.begin_stop(order.ok());
                }
                () = sleep_until(wake.into()) => self.outbox.report_drops(),
            }
        }
    }

    async fn fill(&mut self, link: &mut Link) {
        let now = monotonic_now();
        let Self {
            outbox,
            rate_limiter,
            inbox,
            ..
        } = self;
        rate_limiter.begin();
        while let Some((token, message)) =
            outbox.next_to_send_if(|message, backlog| rate_limiter.admits(message, backlog, now))
        {
            inbox.sent(token);
            link.in_flight.queued(token, now);
            link.connection.publish(message).await;
        }
    }

    async fn on_event(&mut self, link: &mut Link, event: LinkEvent) -> Option<End> {
        let now = monotonic_now();
        match event {
            LinkEvent::Connected => {
                self.stats.mqtt_connects.inc();
                link.connected = Some(now);
                link.phase = Phase::Subscribing(now);
                link.connection.subscribe(&self.settings.topics.command_input).await;
            }
            // An unexpected SUBACK.
            LinkEvent::Subscribed { .. } if !matches!(link.phase, Phase::Subscribing(_)) => {}
            LinkEvent::Subscribed { granted: false } => {
                return Some(End::Lost(ConnectionError::SubscriptionRefused(
                    self.settings.topics.command_input.clone(),
                )));
            }
            LinkEvent::Subscribed { granted: true } => self.subscribed(link, now),
            LinkEvent::Written(id) => {
                if let Some(token) = link.in_flight.written(id, now) {
                    self.on_delivered(token, now);
                    self.push_online_notice(link);
                }
            }
            LinkEvent::Acknowledged(id) => {
                if let Some(token) = link.in_flight.acknowledged(id, now) {
                    self.on_delivered(token, now);
                    self.push_online_notice(link);
                }
            }
            LinkEvent::Received(publish) => self.received(&publish, now),
            LinkEvent::DisconnectWritten => {}
            LinkEvent::Closed(_) if matches!(link.phase, Phase::Disconnecting(_)) => return Some(End::Stopped),
            LinkEvent::Closed(reason) => return Some(End::Lost(reason)),
        }
        None
    }

    fn subscribed(&mut self, link: &mut Link, now: Instant) {
        link.phase = Phase::Online;
        self.outbox.connected();
        self.backoff.succeeded(now);
        link.notice_due = self.was_online && self.online_notice.is_none();
        if !self.after_protocol_error {
            self.push_online_notice(link);
        }
        self.was_online = true;
        // After early closes a connection is logged only when it has lasted: two clients with the same id would fill the log.
        if self.early_closes == 0 {
            self.confirm(link, now);
        }
        self.state.send_replace(LinkState::Online { since: now });
    }

    fn push_online_notice(&mut self, link: &mut Link) {
        if std::mem::take(&mut link.notice_due) {
            let notice = Message::notice(&self.settings.topics, Status::Online, self.settings.qos);
            self.online_notice = Some(self.outbox.push(notice));
        }
    }

    fn confirm(&mut self, link: &mut Link, now: Instant) {
        link.confirmed = true;
        self.early_closes = 0;
        let broker = &self.settings.address;
        match self.outage.end(now) {
            None => tracing::info!(%broker, client_id = self.settings.client_id, "Connected to the broker"),
            Some(outage) => tracing::info!(
                %broker,
                client_id = self.settings.client_id,
                outage = ?rounded(outage),
                waiting = self.outbox.waiting(),
                "Connected to the broker again"
            ),
        }
    }

    /// The message was acknowledged or, with QoS 0, written.
    fn on_delivered(&mut self, token: Token, now: Instant) {
        self.outbox.acked(token);
        if self.online_notice == Some(token) {
            self.online_notice = None;
        }
        if let Some(stopping) = &mut self.stopping
            && stopping.notice_token == Some(token)
        {
            stopping.notice_token = None;
        }
        for command in self.inbox.acknowledged(token, now) {
            self.pass_on(command);
        }
    }

    fn pass_on(&self, command: ReceivedCommand) {
        let error = match self.commands.try_send(command) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => CommandRefusal::Busy,
            Err(TrySendError::Closed(_)) => CommandRefusal::Stopping,
        };
        tracing::warn!(%error, "A command was refused");
        self.answer(error);
    }

    fn received(&mut self, publish: &Publish, now: Instant) {
        let Self {
            inbox,
            outbox,
            settings,
            ..
        } = self;
        if publish.topic != settings.topics.command_input {
            tracing::debug!(
                topic = publish.topic,
                "Ignored a message on a topic without a subscription"
            );
            return;
        }
        match inbox.accept(publish, now, || {
            outbox.push(Message::clear_retained_command(&settings.topics))
        }) {
            AcceptOutcome::Empty => {}
            AcceptOutcome::Queued => tracing::debug!(bytes = publish.payload.len(), "A command arrived"),
            AcceptOutcome::Duplicate => tracing::info!("A command was delivered again and is not executed again"),
            AcceptOutcome::Refused(error) => {
                tracing::warn!(%error, "A command was refused");
                self.answer(error);
            }
        }
    }

    /// Does the next step of a stop, if one has begun.
    async fn progress_stop(&mut self, link: &mut Link) -> Option<End> {
        let now = monotonic_now();
        let stopping = self.stopping.as_mut()?;
        let out_of_time = now >= stopping.give_up_at;
        if link.phase != Phase::Online {
            return (out_of_time && !matches!(link.phase, Phase::Disconnecting(_))).then_some(End::Stopped);
        }
        if (self.outbox.depth() == 0 || now >= stopping.notice_at)
            && let Some(notice) = stopping.notice.take()
        {
            stopping.notice_token = Some(self.outbox.push(notice));
            self.fill(link).await;
            return None;
        }
        let notice_done = stopping.notice.is_none() && stopping.notice_token.is_none();
        if notice_done && (out_of_time || self.outbox.depth() == 0) {
            link.disconnect().await;
            return None;
        }
        // Without DISCONNECT the broker sends the last will, which replaces the notice that was not acknowledged.
        out_of_time.then_some(End::Stopped)
    }

    /// Ends a connection that exceeded a time limit, and confirms one that has lasted long enough.
    fn check_deadlines(&mut self, link: &mut Link, now: Instant) -> Option<End> {
        let limit = self.settings.limits.acknowledgement;
        if self.confirm_at(link).is_some_and(|at| now >= at) {
            if !link.confirmed {
                self.confirm(link, now);
            }
            self.push_online_notice(link);
        }
        if self.deadline(link).is_none_or(|at| now < at) {
            return None;
        }
        Some(match link.phase {
            Phase::Disconnecting(_) => End::Stopped,
            _ => End::Lost(ConnectionError::NoAcknowledgement(limit)),
        })
    }

    fn deadline(&self, link: &Link) -> Option<Instant> {
        let limit = self.settings.limits.acknowledgement;
        match link.phase {
            // `BrokerConnection` has its own time limit.
            Phase::Connecting => None,
            Phase::Subscribing(since) => Some(since + limit),
            Phase::Online => link.in_flight.deadline(limit),
            Phase::Disconnecting(since) => Some(since + disconnect_time(Duration::MAX)),
        }
    }

    fn confirm_at(&self, link: &Link) -> Option<Instant> {
        let connected = link
            .connected
            .filter(|_| link.phase == Phase::Online && (!link.confirmed || link.notice_due))?;
        Some(connected + self.settings.limits.short_lived)
    }

    fn next_deadline(&self, link: &Link, now: Instant) -> Instant {
        let stop = self
            .stopping
            .as_ref()
            .filter(|_| !matches!(link.phase, Phase::Disconnecting(_)));
        // Before the subscription nothing is sent: a time in the past would be waited for again and again.
        let notice = stop
            .filter(|stopping| stopping.notice.is_some() && link.phase == Phase::Online)
            .map(|stopping| stopping.notice_at);
        let resume = self.rate_limiter.resume_at().filter(|_| link.phase == Phase::Online);
        [
            resume,
            self.deadline(link),
            self.confirm_at(link),
            notice,
            stop.map(|stopping| stopping.give_up_at),
        ]
        .into_iter()
        .flatten()
        .fold(now + HOUSEKEEPING, Instant::min)
    }
}
