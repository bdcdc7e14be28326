//! Commands between their arrival and their execution.
//!
//! Clients of the old component send commands with the retain flag. A retained `restart` would come back after the restart
//! it caused, so no command is passed on before the broker has acknowledged the empty retained message that removes it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::outbox::Token;

/// A larger command is refused unread.
pub const MAX_COMMAND_BYTES: usize = 64 * 1024;

/// Most commands that wait for their clearing, and as many again that wait for the component.
pub(super) const MAX_PENDING: usize = 64;

/// A command that can be executed: it is no longer retained at the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedCommand {
    /// The payload as received, at most 64 KiB.
    pub payload: Bytes,
}

/// Why a command is not passed on. The text is meant for its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefusal {
    /// Number of bytes of a command that is too large.
    #[error("the command has {0} bytes; at most {MAX_COMMAND_BYTES} are read")]
    TooLarge(usize),
    /// The queue of commands is full.
    #[error("too many commands wait to be carried out; send this one again later")]
    Busy,
    /// The component is stopping.
    #[error("the component is stopping and takes no more commands")]
    Stopping,
}

/// One message on `command/input`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub payload: &'a [u8],
    /// Flagged as possibly sent before (DUP) or as stored by the broker (RETAIN).
    pub repeated: bool,
}

/// What the inbox did with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CommandReceipt {
    /// An empty message: a clearing, usually our own.
    Empty,
    /// A repeated delivery of a known command; cleared again.
    Same,
    /// Waits for its clearing.
    Taken,
    /// Refused, and cleared as well.
    Refused(CommandRefusal),
}

#[derive(Debug)]
struct Pending {
    payload: Bytes,
    clearing: Token,
    cleared: bool,
}

/// The inbox.
#[derive(Debug)]
pub(super) struct CommandInbox {
    same_within: Duration,
    pending: VecDeque<Pending>,
    recent: VecDeque<(Bytes, Instant)>,
    /// A clearing that was pushed and not sent yet; it also covers commands that arrive before it is sent.
    waiting_clearing: Option<Token>,
}

impl CommandInbox {
    /// `same_within`: the same payload again within this time, flagged as repeated, is the same command.
    pub fn new(same_within: Duration) -> Self {
        Self {
            same_within,
            pending: VecDeque::new(),
            recent: VecDeque::new(),
            waiting_clearing: None,
        }
    }

    /// Adds a message. `push_clearing` puts an empty retained message into the outbox.
    pub fn arrived(
        &mut self,
        arrival: Arrival<'_>,
        now: Instant,
        push_clearing: impl FnOnce() -> Token,
    ) -> CommandReceipt {
        let Arrival { payload, repeated } = arrival;
        if payload.is_empty() {
            return CommandReceipt::Empty;
        }
        let clearing = *self.waiting_clearing.get_or_insert_with(push_clearing);
        if payload.len() > MAX_COMMAND_BYTES {
            return CommandReceipt::Refused(CommandRefusal::TooLarge(payload.len()));
        }
        if repeated && self.knows(payload, now) {
            return CommandReceipt::Same;
        }
        if self.pending.len() >= MAX_PENDING {
            return CommandReceipt::Refused(CommandRefusal::Busy);
        }
        // A copy: a slice would keep the whole read buffer of the connection in memory.
        let payload = Bytes::copy_from_slice(payload);
        self.remember(payload.clone(), now);
        self.pending.push_back(Pending {
            payload,
            clearing,
            cleared: false,
        });
        CommandReceipt::Taken
    }

    /// The message `token` was sent: commands that arrive from now on need another clearing.
    pub fn left(&mut self, token: Token) {
        if self.waiting_clearing == Some(token) {
            self.waiting_clearing = None;
        }
    }

    /// The broker acknowledged `token`. Returns the commands that can be passed on, in the order of their arrival.
    pub fn acknowledged(&mut self, token: Token, now: Instant) -> Vec<ReceivedCommand> {
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
            self.remember(command.payload.clone(), now);
        }
        commands
    }

    /// Commands that wait for their clearing.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    fn knows(&self, payload: &[u8], now: Instant) -> bool {
        let fresh = |seen: Instant| now.saturating_duration_since(seen) < self.same_within;
        self.pending.iter().any(|pending| pending.payload == payload)
            || self.recent.iter().any(|(known, seen)| known == payload && fresh(*seen))
    }

    fn remember(&mut self, payload: Bytes, now: Instant) {
        self.recent.retain(|(known, _)| *known != payload);
        self.recent.push_back((payload, now));
        if self.recent.len() > MAX_PENDING {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
