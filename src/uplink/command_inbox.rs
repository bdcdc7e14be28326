//! Holds commands from their arrival until they may be executed.
//!
//! Clients of the old component send commands with the retain flag. The broker would deliver a retained `restart` again after
//! the restart. So an empty retained message is published first, called the clearing, which removes the command from the
//! broker. A command is passed on when the broker has acknowledged the clearing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

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

/// One message on `command/input`.
#[derive(Debug, Clone, Copy)]
pub(super) struct IncomingCommand<'a> {
    pub payload: &'a [u8],
    /// The message has the DUP or the RETAIN flag, so it may have been received before.
    pub repeated: bool,
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

/// Commands that wait for their clearing, and recent ones.
#[derive(Debug)]
pub(super) struct CommandInbox {
    duplicate_window: Duration,
    pending: VecDeque<Pending>,
    recent: VecDeque<(Bytes, Instant)>,
    /// The clearing that was pushed and not sent yet. It also clears commands that arrive before it is sent.
    waiting_clearing: Option<Token>,
}

impl CommandInbox {
    /// `duplicate_window`: a message with the same payload and the DUP or RETAIN flag is the same command within this time.
    pub fn new(duplicate_window: Duration) -> Self {
        Self {
            duplicate_window,
            pending: VecDeque::new(),
            recent: VecDeque::new(),
            waiting_clearing: None,
        }
    }

    /// Adds a message. `push_clearing` puts an empty retained message into the outbox.
    pub fn accept(
        &mut self,
        arrival: IncomingCommand<'_>,
        now: Instant,
        push_clearing: impl FnOnce() -> Token,
    ) -> AcceptOutcome {
        let IncomingCommand { payload, repeated } = arrival;
        if payload.is_empty() {
            return AcceptOutcome::Empty;
        }
        let clearing = *self.waiting_clearing.get_or_insert_with(push_clearing);
        if payload.len() > MAX_COMMAND_BYTES {
            return AcceptOutcome::Refused(CommandRefusal::TooLarge(payload.len()));
        }
        if repeated && self.is_duplicate(payload, now) {
            return AcceptOutcome::Duplicate;
        }
        if self.pending.len() >= MAX_PENDING {
            return AcceptOutcome::Refused(CommandRefusal::Busy);
        }
        // A copy: a slice would keep the whole read buffer of the connection in memory.
        let payload = Bytes::copy_from_slice(payload);
        self.remember(payload.clone(), now);
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

    /// The broker acknowledged `token`. Returns the commands that may be executed, in the order of their arrival.
    pub fn acknowledged(&mut self, token: Token, now: Instant) -> Vec<ReceivedCommand> {
        self.forget_old(now);
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

    fn is_duplicate(&self, payload: &[u8], now: Instant) -> bool {
        let fresh = |seen: Instant| now.saturating_duration_since(seen) < self.duplicate_window;
        self.pending.iter().any(|pending| pending.payload == payload)
            || self.recent.iter().any(|(known, seen)| known == payload && fresh(*seen))
    }

    /// Frees the commands that can no longer be duplicates: each may have 64 KiB.
    fn forget_old(&mut self, now: Instant) {
        let is_old = |seen: Instant| now.saturating_duration_since(seen) >= self.duplicate_window;
        let old = self.recent.iter().take_while(|(_, seen)| is_old(*seen)).count();
        self.recent.drain(..old);
        if self.recent.is_empty() && old > 0 {
            self.recent.shrink_to_fit();
        }
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
