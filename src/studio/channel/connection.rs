//! One connection: hello, messages both ways, pings.

use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::error::ChannelError;
use super::handle::{ChannelEnds, Notified, Queued};
use super::incoming::{Incoming, IncomingKind, Recognised, recognise};
use super::limits::ChannelLimits;
use super::outgoing::Outgoing;
use super::socket::Socket;
use crate::util::log_limiter::LogLimiter;
use crate::util::text::excerpt;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum ConnectionEnd {
    /// A stop was requested.
    Stopped,
    /// The services offer something else than the hello said: connect again.
    OfferChanged,
    /// It failed, or Studio closed it.
    Failed(ChannelError),
}

/// Answers incoming messages. `None`: a service handles it, or it needs no answer.
pub(super) type Dispatch<'a> = &'a (dyn Fn(IncomingKind, Incoming) -> Option<Outgoing> + Sync);

/// A connection whose hello was accepted.
pub(super) struct Connection {
    socket: Socket,
    limits: ChannelLimits,
    number: u64,
    unknown_limiter: LogLimiter,
}

impl Connection {
    /// Says hello and waits for the answer. Messages of other kinds before it are not handled.
    ///
    /// # Errors
    /// The hello was refused or not answered, or the connection ended.
    pub(super) async fn greet(
        socket: Socket,
        hello: String,
        number: u64,
        limits: ChannelLimits,
    ) -> Result<Self, ChannelError> {
        let mut connection = Self {
            socket,
            limits,
            number,
            unknown_limiter: LogLimiter::default(),
        };
        let answered = async {
            connection.write(Message::text(hello)).await?;
            loop {
                let message = connection.socket.next().await;
                if let Some((_, Incoming::Hello(answer))) = connection.read(message)? {
                    return answer.map_err(ChannelError::Refused);
                }
            }
        };
        match tokio::time::timeout(limits.answer, answered).await {
            Ok(Ok(())) => Ok(connection),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ChannelError::NoAnswer(limits.answer)),
        }
    }

    /// Exchanges messages until the connection ends. `is_offer_new`: whether the services offer something else than the hello
    /// said.
    pub(super) async fn run(
        &mut self,
        ends: &mut ChannelEnds,
        dispatch: Dispatch<'_>,
        is_offer_new: impl Fn() -> bool,
        stop: &mut watch::Receiver<bool>,
    ) -> ConnectionEnd {
        let mut ping = interval_at(tokio::time::Instant::now() + self.limits.ping, self.limits.ping);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pong_due: Option<Instant> = None;
        let mut receipts = Receipts::default();
        loop {
            let step = tokio::select! {
                message = self.socket.next() => match message {
                    Some(Ok(Message::Pong(_))) => {
                        pong_due = None;
                        receipts.on_pong();
                        continue;
                    }
                    message => self.on_message(message, dispatch).await,
                },
                Some(queued) = ends.queue.recv() => self.on_queued(queued, &mut pong_due, &mut receipts).await,
                frame = ends.frames.next(self.number) => self.write_in_time(&frame, &mut pong_due).await,
                _ = ping.tick(), if pong_due.is_none() => self.ping(&mut pong_due, &mut receipts).await,
                () = std::future::ready(()), if pong_due.is_none() && receipts.is_waiting() => {
                    self.ping(&mut pong_due, &mut receipts).await
                }
                () = until(pong_due) => Err(ChannelError::NoPong(self.limits.pong)),
                () = ends.offer_changed.notified() => {
                    if !is_offer_new() {
                        continue;
                    }
                    self.close().await;
                    return ConnectionEnd::OfferChanged;
                }
                () = stopped(stop) => {
                    while let Ok(queued) = ends.queue.try_recv() {
                        if self.on_queued(queued, &mut None, &mut receipts).await.is_err() {
                            break;
                        }
                    }
                    self.close().await;
                    return ConnectionEnd::Stopped;
                }
            };
            if let Err(error) = step {
                return ConnectionEnd::Failed(error);
            }
        }
    }

    async fn on_message(
        &mut self,
        message: Option<Result<Message, Error>>,
        dispatch: Dispatch<'_>,
    ) -> Result<(), ChannelError> {
        if let Some((kind, incoming)) = self.read(message)?
            && let Some(answer) = dispatch(kind, incoming)
        {
            return self.write(Message::text(answer.to_text())).await;
        }
        Ok(())
    }

    /// `None`: a message that is not for the services.
    fn read(
        &mut self,
        message: Option<Result<Message, Error>>,
    ) -> Result<Option<(IncomingKind, Incoming)>, ChannelError> {
        let recognised = match message {
            Some(Ok(Message::Text(text))) => recognise(text.as_bytes()),
            Some(Ok(Message::Binary(bytes))) => recognise(&bytes),
            Some(Ok(Message::Close(frame))) => return Err(closed(frame)),
            // The library answers pings.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return Ok(None),
            Some(Err(error)) => return Err(failure(error)),
            None => return Err(ChannelError::Closed(String::new())),
        };
        match recognised {
            Recognised::Known(kind, incoming) => {
                tracing::debug!(?kind, "Message of Edge Impulse Studio");
                return Ok(Some((kind, incoming)));
            }
            Recognised::Unknown(members) => {
                if let Some(suppressed) = self.unknown_limiter.check(Instant::now(), "unknown") {
                    tracing::info!(
                        members,
                        suppressed = suppressed.count(),
                        "An unknown message of Edge Impulse Studio is ignored"
                    );
                }
            }
            Recognised::NotJson => tracing::debug!("A message of Edge Impulse Studio that is not JSON is ignored"),
        }
        Ok(None)
    }

    async fn ping(&mut self, pong_due: &mut Option<Instant>, receipts: &mut Receipts) -> Result<(), ChannelError> {
        *pong_due = Some(Instant::now() + self.limits.pong);
        receipts.on_ping();
        self.write(Message::Ping(Vec::new().into())).await
    }

    async fn on_queued(
        &mut self,
        queued: Queued,
        pong_due: &mut Option<Instant>,
        receipts: &mut Receipts,
    ) -> Result<(), ChannelError> {
        if queued.connection != self.number {
            return Ok(());
        }
        self.write_in_time(&queued.message, pong_due).await?;
        match queued.notify {
            Notified::None => {}
            // The service may have given up.
            Notified::Written(notify) => drop(notify.send(())),
            Notified::Received(notify) => receipts.waiting.push(notify),
        }
        Ok(())
    }

    /// Writes a message. A pong that arrives meanwhile is read later, so it gets as much more time.
    async fn write_in_time(&mut self, message: &Outgoing, pong_due: &mut Option<Instant>) -> Result<(), ChannelError> {
        let begun = Instant::now();
        self.write(Message::text(message.to_text())).await?;
        if let Some(due) = pong_due {
            *due += begun.elapsed();
        }
        Ok(())
    }

    async fn write(&mut self, message: Message) -> Result<(), ChannelError> {
        match tokio::time::timeout(self.limits.write, self.socket.send(message)).await {
            Ok(written) => written.map_err(failure),
            Err(_) => Err(ChannelError::WriteTimeout(self.limits.write)),
        }
    }

    /// Tells Studio that the connection ends, without waiting for its answer.
    async fn close(&mut self) {
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        let _ = tokio::time::timeout(self.limits.pong, self.socket.close(Some(frame))).await;
    }
}

/// Who waits for the answer to a ping after a message.
#[derive(Debug, Default)]
struct Receipts {
    /// No ping was sent since these messages.
    waiting: Vec<oneshot::Sender<()>>,
    /// A ping was sent.
    pinged: Vec<oneshot::Sender<()>>,
}

impl Receipts {
    fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn on_ping(&mut self) {
        self.pinged.append(&mut self.waiting);
    }

    fn on_pong(&mut self) {
        for notify in self.pinged.drain(..) {
            // The service may have given up.
            let _ = notify.send(());
        }
    }
}

/// Completes when a stop is requested, or when the task was dropped.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

fn closed(frame: Option<CloseFrame>) -> ChannelError {
    ChannelError::Closed(frame.map_or_else(String::new, |frame| {
        let reason = excerpt(frame.reason.as_str());
        format!("code {} {reason}", u16::from(frame.code)).trim_end().to_owned()
    }))
}

fn failure(error: Error) -> ChannelError {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => ChannelError::Closed(String::new()),
        Error::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            ChannelError::Closed("without a closing handshake".to_owned())
        }
        Error::Io(error) => ChannelError::Closed(excerpt(&error.to_string())),
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            ChannelError::Protocol(format!("a message of {size} bytes is larger than {max_size} bytes"))
        }
        error => ChannelError::Protocol(excerpt(&error.to_string())),
    }
}
