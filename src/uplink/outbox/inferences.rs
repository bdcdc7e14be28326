//! Inferences between their push and their acknowledgement, in memory and on disk.
//!
//! Each is in exactly one place: `waiting` (memory only), `loaded` (waiting, and on disk), `sent` (perhaps also on disk), or
//! on disk only. Tokens order them all, wherever they are. What is on disk only and might be older than what waits in
//! memory is known by one bound, `unloaded_from`: nothing at or behind it is sent before the disk was asked.
//!
//! Nothing here touches the disk: [`Inferences::take_job`] says what is to be done, [`Inferences::finish`] takes what came of
//! it. Memory keeps a message until a job that wrote it is finished.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::bounds::OutboxBounds;
use super::spool_job::{LoadRequest, SpoolJob, SpoolPolicy, SpoolResult};
use super::token::Token;
use crate::uplink::message::Message;

/// Read ahead from the disk when fewer than this many messages are loaded ...
const FEW_LOADED: usize = 64;
/// ... so many at once ...
const LOAD_MESSAGES: usize = 128;
/// ... and no more after so many payload bytes.
const LOAD_BYTES: usize = 512 << 10;
/// Deletions of delivered messages that wait for their commit; more are committed before the interval has passed.
const MANY_DELETIONS: usize = 1000;
/// What has waited this long in memory is a backlog.
const BACKLOG_AFTER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Inferences {
    waiting: BTreeMap<Token, Queued>,
    loaded: BTreeMap<Token, Message>,
    sent: BTreeMap<Token, Sent>,
    /// Part of the job under way; they stay where they are until it is finished.
    writing: BTreeSet<Token>,
    /// On disk, and delivered since `deletable_since`.
    deletions: BTreeSet<Token>,
    deletable_since: Option<Instant>,
    /// Deletions of the job under way.
    deleting: BTreeSet<Token>,
    /// From here on there may be messages that are on disk only.
    unloaded_from: Option<Token>,
    /// The job under way loads, and what it loads may be taken.
    loading: bool,
    /// Messages on disk after the last job.
    on_disk: u64,
    /// Payload bytes in memory.
    bytes: usize,
    loaded_bytes: usize,
    disk: Disk,
    policy: SpoolPolicy,
    link: LinkView,
    /// Everything goes to disk from this time on; at once while there is no connection.
    flush_at: Option<Instant>,
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
    /// Since when nothing could be delivered, connections on which nothing was acknowledged included.
    trouble_since: Option<Instant>,
}

/// What a finished job cost.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    /// Messages written.
    pub written: u64,
    /// Messages that are lost because the disk holds no more.
    pub dropped: u64,
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
        }
    }

    pub fn put(&mut self, token: Token, message: Message, pushed: Instant) {
        self.bytes += message.payload.len();
        self.waiting.insert(token, Queued { message, pushed });
    }

    /// The message that [`Inferences::send`] would give, and whether it is part of a backlog.
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

    /// Takes the oldest. Only after [`Inferences::next`] gave it.
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

    pub fn acked(&mut self, token: Token, now: Instant) -> bool {
        let Some(sent) = self.sent.remove(&token) else {
            return false;
        };
        self.bytes -= sent.message.payload.len();
        if sent.stored || self.writing.contains(&token) {
            self.deletions.insert(token);
            self.deletable_since.get_or_insert(now);
        }
        true
    }

    /// Sending begins.
    pub fn connected(&mut self) {
        self.link.online = true;
    }

    /// The broker acknowledged something.
    pub fn progress(&mut self) {
        self.link.trouble_since = None;
    }

    /// What was sent and not acknowledged waits again; what is on disk is read again from there.
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

    /// What is loaded is on disk too and can be read again from there.
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

    /// Drops the oldest in memory until the rest fits or only the newest is left; what is being written is spared.
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

    /// The oldest that the broker does not have, or what is not younger than it.
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

    /// Undelivered messages that are on disk, whether in memory too or not.
    pub fn on_disk(&self) -> u64 {
        let delivered = self.deletions.len() + self.deleting.len();
        self.on_disk.saturating_sub(delivered as u64)
    }

    /// Undelivered messages, wherever they are.
    pub fn total(&self) -> u64 {
        self.on_disk() + self.unwritten() as u64
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The side of the spool.
impl Inferences {
    /// From now on there is a spool. Until [`Inferences::opened`] it may hold anything, and nothing is sent.
    pub fn attach(&mut self, policy: SpoolPolicy) {
        self.policy = policy;
        self.unloaded_from = Some(Token::MIN);
    }

    /// The spool can be used (again) and holds so many messages.
    pub fn opened(&mut self, held: u64) {
        self.disk = Disk::Ready;
        self.on_disk = held;
        self.unloaded_from = (held > 0).then_some(Token::MIN);
        if held == 0 {
            self.nothing_is_stored();
        }
    }

    /// What is in memory is nowhere else.
    fn nothing_is_stored(&mut self) {
        let now = Instant::now();
        for (token, message) in std::mem::take(&mut self.loaded) {
            self.waiting.insert(token, Queued { message, pushed: now });
        }
        self.loaded_bytes = 0;
        for sent in self.sent.values_mut() {
            sent.stored = false;
        }
        self.deletions.clear();
        self.deletable_since = None;
    }

    /// The spool cannot be used; what it holds waits for better times, and memory goes on without it.
    pub fn failed(&mut self, now: Instant) {
        self.disk = Disk::Unusable;
        self.writing.clear();
        self.deletions.append(&mut self.deleting);
        if !self.deletions.is_empty() {
            self.deletable_since.get_or_insert(now);
        }
        self.loading = false;
        self.unloaded_from = None;
    }

    /// Everything is to be on disk soon: from `at` on, or at once without a connection.
    pub fn flush_from(&mut self, at: Instant) {
        self.flush_at = Some(self.flush_at.map_or(at, |before| before.min(at)));
        self.forget_loaded();
    }

    /// When there is something to do for the spool; not after `now`: at once.
    pub fn due(&self, bounds: &OutboxBounds, now: Instant) -> Option<Instant> {
        if self.disk != Disk::Ready {
            return None;
        }
        [
            self.write_due(bounds),
            self.deletion_due(),
            self.load_due().then_some(now),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn write_due(&self, bounds: &OutboxBounds) -> Option<Instant> {
        let oldest = self.waiting.values().next()?.pushed;
        if self.memory_is_high(bounds) {
            return Some(oldest);
        }
        // What waits behind the disk is not sent any more once the end has begun.
        let nothing_is_sent = !self.link.online || self.unloaded_from.is_some();
        let from = match self.flush_at {
            Some(_) if nothing_is_sent => return Some(oldest),
            Some(at) => return Some(at),
            None if self.link.online => return None,
            None => self.link.trouble_since? + self.policy.grace,
        };
        let group_is_complete = self.waiting.len() >= self.policy.group_messages;
        let ready = if group_is_complete {
            oldest
        } else {
            oldest + self.policy.group_interval
        };
        Some(from.max(ready))
    }

    /// Three quarters of memory are used: the rest is for what comes while the disk works.
    fn memory_is_high(&self, bounds: &OutboxBounds) -> bool {
        self.bytes > bounds.inference_bytes / 4 * 3
    }

    fn deletion_due(&self) -> Option<Instant> {
        let since = self.deletable_since?;
        let now = self.deletions.len() >= MANY_DELETIONS || self.flush_at.is_some();
        Some(if now { since } else { since + self.policy.group_interval })
    }

    fn load_due(&self) -> bool {
        self.link.online
            && self.flush_at.is_none()
            && self.unloaded_from.is_some()
            && self.loaded.len() < FEW_LOADED
            && self.loaded_bytes < LOAD_BYTES / 2
    }

    /// What is due now. Nobody else may take a job before [`Inferences::finish`] or [`Inferences::failed`].
    pub fn take_job(&mut self, bounds: &OutboxBounds, now: Instant) -> SpoolJob {
        let mut job = SpoolJob::default();
        if self.disk != Disk::Ready {
            return job;
        }
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.write_due(bounds)) {
            job.write = self.to_write(bounds);
            self.writing = job.write.iter().map(|(token, _)| *token).collect();
        }
        if !job.write.is_empty() || due(self.deletion_due()) {
            self.deleting = std::mem::take(&mut self.deletions);
            self.deletable_since = None;
            job.delete = self.deleting.iter().copied().collect();
        }
        if self.load_due() {
            self.loading = true;
            job.load = self.unloaded_from.map(|from| LoadRequest {
                from,
                messages: LOAD_MESSAGES,
                bytes: LOAD_BYTES,
            });
        }
        job
    }

    /// The oldest that wait: all without a connection; with one, as many as make memory half empty.
    fn to_write(&self, bounds: &OutboxBounds) -> Vec<(Token, Message)> {
        let all = !self.link.online || self.flush_at.is_some();
        let mut left = self.bytes;
        self.waiting
            .iter()
            .take_while(|(_, queued)| {
                let take = all || left > bounds.inference_bytes / 2;
                left -= queued.message.payload.len();
                take
            })
            .map(|(token, queued)| (*token, queued.message.clone()))
            .collect()
    }

    /// The job taken last is done.
    pub fn finish(&mut self, done: SpoolResult) -> Tally {
        let mut tally = Tally {
            written: self.writing.len() as u64,
            dropped: 0,
        };
        self.on_disk = done.held;
        self.deleting.clear();
        if std::mem::take(&mut self.loading)
            && let Some(loaded) = done.loaded
        {
            self.unloaded_from = loaded.next;
            for (token, message) in loaded.messages {
                self.put_loaded(token, message);
            }
        }
        for token in std::mem::take(&mut self.writing) {
            self.written(token);
        }
        for token in done.dropped {
            tally.dropped += u64::from(self.dropped_from_disk(token));
        }
        if self.on_disk == 0 {
            self.unloaded_from = None;
        }
        tally
    }

    fn put_loaded(&mut self, token: Token, message: Message) {
        let known =
            self.sent.contains_key(&token) || self.deletions.contains(&token) || self.loaded.contains_key(&token);
        if known {
            return;
        }
        // Written by this very job: it waits in memory and is now on disk as well.
        if let Some(queued) = self.waiting.remove(&token) {
            self.bytes -= queued.message.payload.len();
        }
        self.bytes += message.payload.len();
        self.loaded_bytes += message.payload.len();
        self.loaded.insert(token, message);
    }

    fn written(&mut self, token: Token) {
        if let Some(sent) = self.sent.get_mut(&token) {
            sent.stored = true;
        } else if let Some(queued) = self.waiting.remove(&token) {
            self.bytes -= queued.message.payload.len();
            self.unloaded_from = Some(self.unloaded_from.map_or(token, |from| from.min(token)));
        }
    }

    /// Whether it is lost by that: what was sent or delivered meanwhile is not.
    fn dropped_from_disk(&mut self, token: Token) -> bool {
        if let Some(sent) = self.sent.get_mut(&token) {
            sent.stored = false;
            return false;
        }
        if let Some(message) = self.loaded.remove(&token) {
            self.bytes -= message.payload.len();
            self.loaded_bytes -= message.payload.len();
        }
        let delivered = self.deletions.remove(&token);
        if self.deletions.is_empty() {
            self.deletable_since = None;
        }
        !delivered
    }
}
