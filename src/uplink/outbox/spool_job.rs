//! Types that outbox and spool exchange: the policy, jobs and their results.

use std::time::Duration;

use super::token::Token;
use crate::uplink::message::Message;

/// When messages are written to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolPolicy {
    /// Undelivered messages are written after this time without a connection. A shorter outage costs no write. Default 2 s.
    pub grace: Duration,
    /// After that, messages are committed together at this interval. Default 200 ms.
    pub group_interval: Duration,
    /// This many waiting messages are committed before the interval ends. Default 100.
    pub group_messages: usize,
    /// Wait after a failure before the file is opened again. Default 5 s.
    pub retry: Duration,
}

impl Default for SpoolPolicy {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(2),
            group_interval: Duration::from_millis(200),
            group_messages: 100,
            retry: Duration::from_secs(5),
        }
    }
}

/// Work for the disk. The fields are done in this order.
#[derive(Debug, Default)]
pub(in crate::uplink) struct SpoolJob {
    /// Delivered messages.
    pub delete: Vec<Token>,
    /// Undelivered messages.
    pub write: Vec<(Token, Message)>,
    /// Request to read.
    pub load: Option<LoadRequest>,
}

/// A request to read the oldest messages from `from` on.
#[derive(Debug, Clone, Copy)]
pub(in crate::uplink) struct LoadRequest {
    pub from: Token,
    /// At most this many messages.
    pub messages: usize,
    /// Stop after this many payload bytes.
    pub bytes: usize,
}

/// The result of a job.
#[derive(Debug, Default)]
pub(in crate::uplink) struct SpoolResult {
    /// The oldest messages, dropped to make room.
    pub dropped: Vec<Token>,
    /// The messages read, if the job had a request to read.
    pub loaded: Option<LoadedMessages>,
    /// Messages on disk now.
    pub held: u64,
}

/// Messages read from disk.
#[derive(Debug)]
pub(in crate::uplink) struct LoadedMessages {
    /// In the order of their tokens.
    pub messages: Vec<(Token, Message)>,
    /// The first message that was not read; `None`: all were read.
    pub next: Option<Token>,
}
