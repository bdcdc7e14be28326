//! One connection in use, from the first packet to the last.

use std::time::{Duration, Instant};

use rumqttc::Publish;
use tokio::select;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::sleep_until;

use super::super::command_inbox::{Arrival, CommandRefusal, ReceivedCommand, Verdict};
use super::super::connection::{Connection, LinkEvent};
use super::super::in_flight::InFlight;
use super::{ConnectionError, Driver, End, LinkState, Message, Status, StopSignal, Token, client_failed};

/// The driver looks around at least this often, to report what was dropped.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// How much of a stop's limit belongs to DISCONNECT and the broker's closing of the connection.
pub(super) fn farewell(limit: Duration) -> Duration {
    (limit / 4).min(Duration::from_millis(300))
}

/// How far a connection is. Each phase knows when it began, if that has an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Subscribing(Instant),
    Online,
    Leaving(Instant),
}

/// A connection and what is known of it.
pub(super) struct Link {
    connection: Connection,
    window: InFlight,
    phase: Phase,
    /// When CONNACK came.
    pub connected: Option<Instant>,
    /// Whether the log has been told that this connection is a good one.
    settled: bool,
    /// The `online` notice is to follow the first acknowledgement.
    notice_due: bool,
}

impl Link {
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            window: InFlight::default(),
            phase: Phase::Connecting,
            connected: None,
            settled: false,
            notice_due: false,
        }
    }

    async fn leave(&mut self) {
        self.connection.disconnect().await;
        self.phase = Phase::Leaving(Instant::now());
    }
}

impl Driver {
    /// Uses the connection until it ends. What was not acknowledged is still marked as sent in the outbox afterwards.
    pub(super) async fn serve(&mut self, link: &mut Link, stop: &mut StopSignal) -> End {
        loop {
            if link.phase == Phase::Online {
                self.fill(link).await;
            }
            if let Some(end) = self.progress_stop(link).await {
                return end;
            }
            let now = Instant::now();
            if let Some(end) = self.overdue(link, now) {
                return end;
            }
            let wake = self.next_deadline(link, now);
            select! {
                event = link.connection.events.recv() => {
                    if let Some(end) = self.happened(link, event.unwrap_or(LinkEvent::Closed(client_failed()))).await {
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
        let now = Instant::now();
        let Self {
            outbox, pacer, desk, ..
        } = self;
        pacer.begin();
        while let Some((token, message)) =
            outbox.next_to_send_if(|message, backlog| pacer.admits(message, backlog, now))
        {
            desk.left(token);
            link.window.handed_over(token, now);
            link.connection.publish(message).await;
        }
    }

    async fn happened(&mut self, link: &mut Link, event: LinkEvent) -> Option<End> {
        let now = Instant::now();
        match event {
            LinkEvent::Connected => {
                self.stats.mqtt_connects.inc();
                link.connected = Some(now);
                link.phase = Phase::Subscribing(now);
                link.connection.subscribe(&self.settings.topics.command_input).await;
            }
            // An acknowledgement of a subscription nobody asked for.
            LinkEvent::Subscribed { .. } if !matches!(link.phase, Phase::Subscribing(_)) => {}
            LinkEvent::Subscribed { granted: false } => {
                return Some(End::Lost(ConnectionError::SubscriptionRefused(
                    self.settings.topics.command_input.clone(),
                )));
            }
            LinkEvent::Subscribed { granted: true } => self.subscribed(link, now),
            LinkEvent::Written(id) => {
                if let Some(token) = link.window.written(id, now) {
                    self.done(token, now);
                    self.overdue_notice(link);
                }
            }
            LinkEvent::Acknowledged(id) => {
                if let Some(token) = link.window.acknowledged(id, now) {
                    self.done(token, now);
                    self.overdue_notice(link);
                }
            }
            LinkEvent::Received(publish) => self.received(&publish, now),
            LinkEvent::DisconnectWritten => {}
            LinkEvent::Closed(_) if matches!(link.phase, Phase::Leaving(_)) => return Some(End::Stopped),
            LinkEvent::Closed(reason) => return Some(End::Lost(reason)),
        }
        None
    }

    fn subscribed(&mut self, link: &mut Link, now: Instant) {
        link.phase = Phase::Online;
        self.outbox.connected();
        self.backoff.succeeded(now);
        link.notice_due = self.was_online && self.online_notice.is_none();
        if !self.wary {
            self.overdue_notice(link);
        }
        self.was_online = true;
        // After being thrown out a connection has to prove itself first, or each turn of the quarrel would fill the log.
        if self.thrown_out == 0 {
            self.settle(link, now);
        }
        self.state.send_replace(LinkState::Online { since: now });
    }

    fn overdue_notice(&mut self, link: &mut Link) {
        if std::mem::take(&mut link.notice_due) {
            let notice = Message::notice(&self.settings.topics, Status::Online, self.settings.qos);
            self.online_notice = Some(self.outbox.push(notice));
        }
    }

    fn settle(&mut self, link: &mut Link, now: Instant) {
        link.settled = true;
        self.thrown_out = 0;
        let broker = &self.settings.address;
        match self.outage.over(now) {
            None => tracing::info!("Connected to {broker} as {}", self.settings.client_id),
            Some(outage) => tracing::info!(
                "Connected to {broker} again after {:.0} s; {} messages wait to be sent",
                outage.as_secs_f32(),
                self.outbox.waiting()
            ),
        }
    }

    /// The broker has the message `token` (or, QoS 0, the socket has).
    fn done(&mut self, token: Token, now: Instant) {
        self.outbox.acked(token);
        if self.online_notice == Some(token) {
            self.online_notice = None;
        }
        if let Some(stopping) = &mut self.stopping
            && stopping.awaited == Some(token)
        {
            stopping.awaited = None;
        }
        for command in self.desk.acknowledged(token, now) {
            self.hand_on(command);
        }
    }

    fn hand_on(&self, command: ReceivedCommand) {
        let error = match self.commands.try_send(command) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => CommandRefusal::Busy,
            Err(TrySendError::Closed(_)) => CommandRefusal::Stopping,
        };
        tracing::warn!("A command was refused: {error}");
        self.answer(error);
    }

    fn received(&mut self, publish: &Publish, now: Instant) {
        let Self {
            desk, outbox, settings, ..
        } = self;
        if publish.topic != settings.topics.command_input {
            tracing::debug!("A message on {} is ignored: it was not subscribed to", publish.topic);
            return;
        }
        let arrival = Arrival {
            payload: &publish.payload,
            repeated: publish.dup || publish.retain,
        };
        match desk.arrived(arrival, now, || {
            outbox.push(Message::clear_retained_command(&settings.topics))
        }) {
            Verdict::Empty => {}
            Verdict::Taken => tracing::debug!("A command of {} bytes came", publish.payload.len()),
            Verdict::Same => tracing::info!("A command that came already was delivered again; it is carried out once"),
            Verdict::Refused(error) => {
                tracing::warn!("A command was refused: {error}");
                self.answer(error);
            }
        }
    }

    /// The next step of an orderly end, if one is under way.
    async fn progress_stop(&mut self, link: &mut Link) -> Option<End> {
        let now = Instant::now();
        let stopping = self.stopping.as_mut()?;
        let out_of_time = now >= stopping.leave_at;
        if link.phase != Phase::Online {
            return (out_of_time && !matches!(link.phase, Phase::Leaving(_))).then_some(End::Stopped);
        }
        if (self.outbox.depth() == 0 || now >= stopping.notice_at)
            && let Some(notice) = stopping.notice.take()
        {
            stopping.awaited = Some(self.outbox.push(notice));
            self.fill(link).await;
            return None;
        }
        let notice_done = stopping.notice.is_none() && stopping.awaited.is_none();
        if notice_done && (out_of_time || self.outbox.depth() == 0) {
            link.leave().await;
            return None;
        }
        // Without DISCONNECT: the broker sends the last will in place of the notice it did not acknowledge.
        out_of_time.then_some(End::Stopped)
    }

    /// Ends a connection that has used up its time, and settles one that has lasted.
    fn overdue(&mut self, link: &mut Link, now: Instant) -> Option<End> {
        let limit = self.settings.limits.acknowledgement;
        if self.settles_at(link).is_some_and(|at| now >= at) {
            if !link.settled {
                self.settle(link, now);
            }
            self.overdue_notice(link);
        }
        if self.gives_up_at(link).is_none_or(|at| now < at) {
            return None;
        }
        Some(match link.phase {
            Phase::Leaving(_) => End::Stopped,
            _ => End::Lost(ConnectionError::NoAcknowledgement(limit)),
        })
    }

    fn gives_up_at(&self, link: &Link) -> Option<Instant> {
        let limit = self.settings.limits.acknowledgement;
        match link.phase {
            // The connection watches its own limit.
            Phase::Connecting => None,
            Phase::Subscribing(since) => Some(since + limit),
            Phase::Online => link.window.deadline(limit),
            Phase::Leaving(since) => Some(since + farewell(Duration::MAX)),
        }
    }

    fn settles_at(&self, link: &Link) -> Option<Instant> {
        let connected = link
            .connected
            .filter(|_| link.phase == Phase::Online && (!link.settled || link.notice_due))?;
        Some(connected + self.settings.limits.short_lived)
    }

    fn next_deadline(&self, link: &Link, now: Instant) -> Instant {
        let stop = self
            .stopping
            .as_ref()
            .filter(|_| !matches!(link.phase, Phase::Leaving(_)));
        let notice = stop
            .filter(|stopping| stopping.notice.is_some())
            .map(|stopping| stopping.notice_at);
        let resume = self.pacer.resume_at().filter(|_| link.phase == Phase::Online);
        [
            resume,
            self.gives_up_at(link),
            self.settles_at(link),
            notice,
            stop.map(|stopping| stopping.leave_at),
        ]
        .into_iter()
        .flatten()
        .fold(now + HOUSEKEEPING, Instant::min)
    }
}
