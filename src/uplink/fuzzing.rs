//! What `tests/fuzz` calls here.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::Publish;

use super::command_inbox::{AcceptOutcome, CommandInbox};
use super::outbox::Token;
use super::spool;

pub use super::command_inbox::MAX_COMMAND_BYTES;

/// Commands as the uplink receives them.
#[derive(Debug)]
pub struct Inbox {
    inbox: CommandInbox,
    now: Instant,
    last_token: i64,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            inbox: CommandInbox::new(Duration::from_secs(60)),
            now: Instant::now(),
            last_token: 0,
        }
    }
}

impl Inbox {
    /// A message arrives. Returns whether it is a command that waits now.
    pub fn receive(&mut self, publish: &Publish) -> bool {
        let next = &mut self.last_token;
        let accepted = self.inbox.accept(publish, self.now, || {
            *next += 1;
            Token(*next)
        });
        matches!(accepted, AcceptOutcome::Queued)
    }

    /// The number of waiting commands.
    pub fn waiting(&self) -> usize {
        self.inbox.pending()
    }

    /// Time passes, the last clearing is sent, and the broker acknowledges the one with this number. Returns the payloads of the
    /// commands to be executed.
    pub fn acknowledged(&mut self, number: u8, passed: Duration) -> Vec<Bytes> {
        self.now += passed;
        self.inbox.sent(Token(self.last_token));
        let ready = self.inbox.acknowledged(Token(number.into()), self.now);
        ready.into_iter().map(|command| command.payload).collect()
    }
}

/// Opens a spool, delivers all messages that it can read, and writes one. Returns their number; `None`: the file cannot be used.
pub fn spool_file(path: &Path, max_bytes: u64) -> Option<usize> {
    spool::fuzzing::use_file(path, max_bytes)
}
