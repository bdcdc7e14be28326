//! Inferences between their push and their acknowledgement, in memory and on disk.
//!
//! Each is in exactly one place: `waiting` (in memory only), `loaded` (waiting in memory, and on disk), `sent` (in memory,
//! perhaps also on disk), or on disk only. Tokens give the order of all of them. `unloaded_from` is the lowest token that
//! may be on disk only: the message with this token and all later ones are not sent before the disk was read.
//!
//! This file is the part that the connection uses; `disk` is the part that the spool uses. Neither touches the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::spool_job::SpoolPolicy;
use super::token::Token;
use crate::uplink::message::Message;

mod disk;

/// Messages that have waited this long in memory are a backlog.
const BACKLOG_AFTER: Duration = Duration::from_secs(1);

/// The inferences that the broker has not acknowledged.
#[derive(Debug)]
pub(super) struct Inferences {
    waiting: BTreeMap<Token, Queued>,
    loaded: BTreeMap<Token, Message>,
    sent: BTreeMap<Token, Sent>,
    /// Written by the current job. They also stay in `waiting` or `sent` until it is finished.
    writing: BTreeSet<Token>,
    /// Delivered messages that are still on disk; the oldest was delivered at `deletable_since`.
    deletions: BTreeSet<Token>,
    deletable_since: Option<Instant>,
    /// Deletions of the current job.
    deleting: BTreeSet<Token>,
    /// This token and later ones may be on disk only.
    unloaded_from: Option<Token>,
    /// The current job reads messages, and they may be used when it is finished.
    loading: bool,
    /// Messages on disk after the last job.
    on_disk: u64,
    /// Payload bytes in memory.
    bytes: usize,
    loaded_bytes: usize,
    disk: Disk,
    policy: SpoolPolicy,
    link: LinkView,
    /// All messages are written to disk from this time on, or at once while there is no connection.
    flush_at: Option<Instant>,
    /// The disk is full: nothing is written and deleted before.
    full_until: Option<Instant>,
}

#[derive(Debug)]
struct Queued {
    message: Message,
    pushed: Instant,
}

#[derive(Debug)]
struct Sent {
    message: Message,
    pushed: Instant,
    stored: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    /// There is no spool, or it cannot be used at the moment.
    Unusable,
    Ready,
}

/// What is known of the connection.
#[derive(Debug, Clone, Copy)]
struct LinkView {
    online: bool,
    /// Time of the first failure since the last acknowledgement.
    trouble_since: Option<Instant>,
}

impl Inferences {
    pub fn new(now: Instant) -> Self {
        Self {
            waiting: BTreeMap::new(),
            loaded: BTreeMap::new(),
            sent: BTreeMap::new(),
            writing: BTreeSet::new(),
            deletions: BTreeSet::new(),
            deletable_since: None,
            deleting: BTreeSet::new(),
            unloaded_from: None,
            loading: false,
            on_disk: 0,
            bytes: 0,
            loaded_bytes: 0,
            disk: Disk::Unusable,
            policy: SpoolPolicy::default(),
            link: LinkView {
                online: false,
                trouble_since: Some(now),
            },
            flush_at: None,
            full_until: None,
        }
    }

    pub fn put(&mut self, token: Token, message: Message, pushed: Instant) {
        self.bytes += message.payload.len();
        self.waiting.insert(token, Queued { message, pushed });
    }

    /// The message that [`Inferences::send`] would return, and whether it is part of a backlog.
    pub fn next(&self, window: usize, now: Instant) -> Option<(&Message, bool)> {
        if self.sent.len() >= window {
            return None;
        }
        let loaded = self.loaded.first_key_value();
        let waiting = self.waiting.first_key_value();
        let (token, message, backlog) = match (loaded, waiting) {
            (Some((token, message)), waiting) if waiting.is_none_or(|(other, _)| token < other) => {
                (token, message, true)
            }
            (_, Some((token, queued))) => {
                let waited = now.saturating_duration_since(queued.pushed);
                (token, &queued.message, waited >= BACKLOG_AFTER)
            }
            (_, None) => return None,
        };
        self.unloaded_from
            .is_none_or(|from| *token < from)
            .then_some((message, backlog))
    }

    /// Marks the oldest message as sent and returns it. Call it only after [`Inferences::next`] returned a message.
    pub fn send(&mut self, now: Instant) -> Option<(Token, Message)> {
        let first_waiting = self.waiting.first_key_value().map(|(token, _)| *token);
        let first_loaded = self.loaded.first_key_value().map(|(token, _)| *token);
        let stored = match (first_loaded, first_waiting) {
            (Some(loaded), Some(waiting)) => loaded < waiting,
            (loaded, _) => loaded.is_some(),
        };
        let (token, message, pushed) = if stored {
            let (token, message) = self.loaded.pop_first()?;
            self.loaded_bytes -= message.payload.len();
            (token, message, now)
        } else {
            let (token, Queued { message, pushed }) = self.waiting.pop_first()?;
            (token, message, pushed)
        };
        let sent = Sent {
            message: message.clone(),
            pushed,
            stored,
        };
        self.sent.insert(token, sent);
        Some((token, message))
    }

    /// The broker has the message, which is returned. `None`: it was not sent.
    pub fn acked(&mut self, token: Token, now: Instant) -> Option<Message> {
        let sent = self.sent.remove(&token)?;
        self.bytes -= sent.message.payload.len();
        if sent.stored || self.writing.contains(&token) {
            self.deletions.insert(token);
            self.deletable_since.get_or_insert(now);
        }
        Some(sent.message)
    }

    /// Whether the message is in memory and not on disk.
    pub fn is_only_in_memory(&self, token: Token) -> bool {
        self.waiting.contains_key(&token) || self.sent.get(&token).is_some_and(|sent| !sent.stored)
    }

    /// Sending begins.
    pub fn connected(&mut self) {
        self.link.online = true;
    }

    /// The broker acknowledged something.
    pub fn progress(&mut self) {
        self.link.trouble_since = None;
    }

    /// Unacknowledged messages wait again. Those on disk leave the memory and are read again later.
    pub fn connection_lost(&mut self, now: Instant) {
        self.link.online = false;
        self.link.trouble_since.get_or_insert(now);
        for (token, sent) in std::mem::take(&mut self.sent) {
            if !sent.stored {
                let Sent { message, pushed, .. } = sent;
                self.waiting.insert(token, Queued { message, pushed });
            } else {
                self.loaded_bytes += sent.message.payload.len();
                self.loaded.insert(token, sent.message);
            }
        }
        self.forget_loaded();
    }

    /// Frees the memory of loaded messages: they can be read from the disk again.
    fn forget_loaded(&mut self) {
        if self.disk != Disk::Ready {
            return;
        }
        self.loading = false;
        if !self.loaded.is_empty() {
            self.bytes -= self.loaded_bytes;
            self.loaded_bytes = 0;
            self.loaded.clear();
            self.unloaded_from = Some(Token::MIN);
        }
    }

    /// Drops the oldest messages in memory until the rest fits or only the newest is left, except those being written.
    pub fn drop_overflow(&mut self, max_bytes: usize) -> u64 {
        let mut dropped = 0;
        while self.bytes > max_bytes && self.waiting.len() > 1 {
            let newest = self.waiting.last_key_value().map(|(token, _)| *token);
            let oldest = self.waiting.keys().find(|token| !self.writing.contains(token));
            let Some(oldest) = oldest.copied().filter(|oldest| Some(*oldest) != newest) else {
                break;
            };
            if let Some(queued) = self.waiting.remove(&oldest) {
                self.bytes -= queued.message.payload.len();
                dropped += 1;
            }
        }
        dropped
    }

    /// A lower bound of the tokens that the broker has not acknowledged.
    pub fn oldest(&self) -> Option<Token> {
        let first_waiting = self.waiting.first_key_value().map(|(token, _)| *token);
        let first_loaded = self.loaded.first_key_value().map(|(token, _)| *token);
        let first_sent = self.sent.first_key_value().map(|(token, _)| *token);
        [first_waiting, first_loaded, first_sent, self.unloaded_from]
            .into_iter()
            .flatten()
            .min()
    }

    /// Messages in memory.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.loaded.len() + self.sent.len()
    }

    /// Messages in memory that are not on disk.
    pub fn unwritten(&self) -> usize {
        self.waiting.len() + self.sent.values().filter(|sent| !sent.stored).count()
    }

    /// Undelivered messages on disk, including those that are in memory too.
    pub fn on_disk(&self) -> u64 {
        let delivered = self.deletions.len() + self.deleting.len();
        self.on_disk.saturating_sub(delivered as u64)
    }

    /// Undelivered messages in memory and on disk.
    pub fn total(&self) -> u64 {
        self.on_disk() + self.unwritten() as u64
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
