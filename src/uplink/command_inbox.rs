//! Holds commands from their arrival until they may be executed.
//!
//! Clients of the old component send commands with the retain flag. The broker would deliver a retained `restart` again after
//! the restart. So an empty retained message is published first, called the clearing, which removes the command from the
//! broker. A command is passed on when the broker has acknowledged the clearing.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::Publish;

use super::outbox::Token;

/// Most bytes of a command. Larger ones are refused.
pub const MAX_COMMAND_BYTES: usize = 64 * 1024;

/// Most commands that wait for their clearing. As many can wait for their execution.
pub(super) const MAX_PENDING: usize = 64;

/// A command that may be executed: the broker no longer retains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedCommand {
    /// The payload as received, at most 64 KiB.
    pub payload: Bytes,
}

/// Why a command is not passed on. The text is sent to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefusal {
    /// The command has this many bytes, which is too large.
    #[error("the command has {0} bytes; at most {MAX_COMMAND_BYTES} are accepted")]
    TooLarge(usize),
    /// The queue of commands is full.
    #[error("too many commands are waiting; send this one again later")]
    Busy,
    /// The component is stopping.
    #[error("the component is stopping and accepts no more commands")]
    Stopping,
}

/// Result of [`CommandInbox::accept`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AcceptOutcome {
    /// The message is empty: a clearing, usually our own.
    Empty,
    /// A repeated delivery of a known command. It is cleared again and not executed again.
    Duplicate,
    /// The command waits for its clearing.
    Queued,
    /// The command was refused. It is cleared as well.
    Refused(CommandRefusal),
}

#[derive(Debug)]
struct Pending {
    payload: Bytes,
    clearing: Token,
    cleared: bool,
}

/// One delivery of a command. Its acknowledgement can be lost with the connection, and the broker sends the command again when
/// there is one, which may take hours.
#[derive(Debug)]
struct Delivery {
    hash: u64,
    packet_id: u16,
    /// This clearing is sent after the acknowledgement: when the broker has acknowledged it on the same connection, it has both.
    /// `None`: that connection has ended before.
    clearing: Option<Token>,
}

/// Commands that wait for their clearing, and recent ones.
#[derive(Debug)]
pub(super) struct CommandInbox {
    duplicate_window: Duration,
    pending: VecDeque<Pending>,
    /// Hashes of the commands that were received or passed on last, with the time.
    recent: VecDeque<(u64, Instant)>,
    /// The last deliveries that the broker may send again.
    deliveries: VecDeque<Delivery>,
    hasher: RandomState,
    /// The clearing that was pushed and not sent yet. It also clears commands that arrive before it is sent.
    waiting_clearing: Option<Token>,
}

impl CommandInbox {
    /// `duplicate_window`: a message with the same payload and the DUP or RETAIN flag is the same command within this time. With the DUP
    /// flag and the packet identifier of a delivery whose acknowledgement may be lost, or with both flags, it is the same command at any
    /// time.
    pub fn new(duplicate_window: Duration) -> Self {
        Self {
            duplicate_window,
            pending: VecDeque::new(),
            recent: VecDeque::new(),
            deliveries: VecDeque::new(),
            hasher: RandomState::new(),
            waiting_clearing: None,
        }
    }

    /// Adds a message on `command/input`. `push_clearing` puts an empty retained message into the outbox.
    pub fn accept(&mut self, publish: &Publish, now: Instant, push_clearing: impl FnOnce() -> Token) -> AcceptOutcome {
        let payload = &publish.payload[..];
        if payload.is_empty() {
            return AcceptOutcome::Empty;
        }
        let clearing = *self.waiting_clearing.get_or_insert_with(push_clearing);
        if payload.len() > MAX_COMMAND_BYTES {
            return AcceptOutcome::Refused(CommandRefusal::TooLarge(payload.len()));
        }
        let hash = self.hasher.hash_one(payload);
        let is_duplicate = self.is_duplicate(publish, hash, now);
        if self.pending.len() >= MAX_PENDING && !is_duplicate {
            return AcceptOutcome::Refused(CommandRefusal::Busy);
        }
        let delivery = Delivery {
            hash,
            packet_id: publish.pkid,
            clearing: Some(clearing),
        };
        keep_newest(&mut self.deliveries, delivery);
        if is_duplicate {
            return AcceptOutcome::Duplicate;
        }
        // A copy: a slice would keep the whole read buffer of the connection in memory.
        let payload = Bytes::copy_from_slice(payload);
        self.remember(hash, now);
        self.pending.push_back(Pending {
            payload,
            clearing,
            cleared: false,
        });
        AcceptOutcome::Queued
    }

    /// The message `token` was sent. Commands that arrive later need another clearing.
    pub fn sent(&mut self, token: Token) {
        if self.waiting_clearing == Some(token) {
            self.waiting_clearing = None;
        }
    }

    /// The connection has ended: of what it delivered, the broker may not have the acknowledgement.
    pub fn connection_lost(&mut self) {
        for delivery in &mut self.deliveries {
            delivery.clearing = None;
        }
    }

    /// The broker acknowledged `token`. Returns the commands that may be executed, in the order of their arrival.
    pub fn acknowledged(&mut self, token: Token, now: Instant) -> Vec<ReceivedCommand> {
        self.deliveries.retain(|delivery| delivery.clearing != Some(token));
        for pending in self.pending.iter_mut().filter(|pending| pending.clearing == token) {
            pending.cleared = true;
        }
        let ready = self.pending.iter().take_while(|pending| pending.cleared).count();
        let commands: Vec<_> = self
            .pending
            .drain(..ready)
            .map(|Pending { payload, .. }| ReceivedCommand { payload })
            .collect();
        for command in &commands {
            self.remember(self.hasher.hash_one(&command.payload[..]), now);
        }
        commands
    }

    /// Commands that wait for their clearing.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    fn is_duplicate(&self, publish: &Publish, hash: u64, now: Instant) -> bool {
        // With both flags it was retained when an earlier connection subscribed. The session has sent or will send the message itself,
        // without RETAIN: no new command is missed.
        let is_copy = publish.dup && publish.retain;
        let fresh = |seen: Instant| is_copy || now.saturating_duration_since(seen) < self.duplicate_window;
        // Both flags say that it may have come before, DUP also that it did under the same packet identifier.
        let is_recent = (publish.dup || publish.retain)
            && (self.pending.iter().any(|pending| pending.payload == publish.payload)
                || self.recent.iter().any(|(known, seen)| *known == hash && fresh(*seen)));
        let is_this = |delivery: &Delivery| (delivery.hash, delivery.packet_id) == (hash, publish.pkid);
        is_recent || (publish.dup && self.deliveries.iter().any(is_this))
    }

    fn remember(&mut self, hash: u64, now: Instant) {
        self.recent.retain(|(known, _)| *known != hash);
        keep_newest(&mut self.recent, (hash, now));
    }
}

fn keep_newest<T>(queue: &mut VecDeque<T>, newest: T) {
    if queue.len() >= MAX_PENDING {
        queue.pop_front();
    }
    queue.push_back(newest);
}

#[cfg(test)]
mod tests;
