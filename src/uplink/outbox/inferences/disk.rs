//! Which inferences are written to disk, deleted there, or read from there, and when.
//!
//! Nothing here touches the disk: [`Inferences::take_job`] returns the next job, and [`Inferences::finish`] takes its result.
//! Memory keeps a message until the job that writes it is finished.

use std::time::Instant;

use super::{Disk, Inferences, Queued};
use crate::uplink::message::Message;
use crate::uplink::outbox::bounds::OutboxBounds;
use crate::uplink::outbox::spool_job::{LoadRequest, SpoolJob, SpoolPolicy, SpoolResult};
use crate::uplink::outbox::token::Token;
use crate::util::clock::monotonic_now;

/// More messages are read from the disk when fewer than this many are loaded.
const FEW_LOADED: usize = 64;
/// Most messages that are read at once.
const LOAD_MESSAGES: usize = 128;
/// Reading stops after this many payload bytes.
const LOAD_BYTES: usize = 512 << 10;
/// This many deletions are committed before the interval has passed.
const MANY_DELETIONS: usize = 1000;

/// Effects of a finished job, for the counters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::uplink) struct SpoolCounts {
    /// Messages written.
    pub written: u64,
    /// Messages lost because the spool was full.
    pub dropped: u64,
    /// The disk was full, and could be written now.
    pub has_room_again: bool,
}

impl Inferences {
    /// Attaches a spool. Nothing is sent before [`Inferences::opened`], because the spool may hold older messages.
    pub fn attach(&mut self, policy: SpoolPolicy) {
        self.policy = policy;
        self.unloaded_from = Some(Token::MIN);
    }

    /// The spool can be used and holds `held` messages.
    pub fn opened(&mut self, held: u64) {
        self.disk = Disk::Ready;
        self.on_disk = held;
        self.unloaded_from = (held > 0).then_some(Token::MIN);
        if held == 0 {
            self.mark_all_unstored();
        }
    }

    /// The disk holds nothing: all messages are in memory only.
    fn mark_all_unstored(&mut self) {
        let now = monotonic_now();
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

    /// The spool cannot be used. Messages on disk wait until it can; others are sent from memory.
    pub fn failed(&mut self, now: Instant) {
        self.disk = Disk::Unusable;
        self.undo_changes(now);
        self.loading = false;
        self.unloaded_from = None;
        self.full_until = None;
    }

    /// The disk is full: what the last job was to write and to delete is tried again after the pause between retries. Call
    /// [`Inferences::finish`] afterwards.
    pub fn not_written(&mut self, now: Instant) {
        self.undo_changes(now);
        self.full_until = Some(now + self.policy.retry);
    }

    /// What the last job was to write and to delete waits again.
    fn undo_changes(&mut self, now: Instant) {
        self.writing.clear();
        self.deletions.append(&mut self.deleting);
        if !self.deletions.is_empty() {
            self.deletable_since.get_or_insert(now);
        }
    }

    /// All messages are to be written to disk from `at` on, or at once while there is no connection.
    pub fn flush_from(&mut self, at: Instant) {
        self.flush_at = Some(self.flush_at.map_or(at, |before| before.min(at)));
        self.forget_loaded();
    }

    pub fn is_flushing(&self) -> bool {
        self.flush_at.is_some()
    }

    /// Time of the next job for the spool; a time in the past means now.
    pub fn due(&self, bounds: &OutboxBounds, now: Instant) -> Option<Instant> {
        if self.disk != Disk::Ready {
            return None;
        }
        [
            self.unless_full(self.write_due(bounds)),
            self.unless_full(self.deletion_due()),
            self.load_due().then_some(now),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Not before a full disk is tried again, except at the stop.
    fn unless_full(&self, due: Option<Instant>) -> Option<Instant> {
        let full_until = self.full_until.filter(|_| self.flush_at.is_none());
        due.map(|due| full_until.map_or(due, |until| due.max(until)))
    }

    fn write_due(&self, bounds: &OutboxBounds) -> Option<Instant> {
        let oldest = self.waiting.values().next()?.pushed;
        if self.memory_is_high(bounds) {
            return Some(oldest);
        }
        // After the stop began, messages that are newer than those on disk are not sent any more.
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

    /// Three quarters of the memory are used. The rest is for messages that are pushed while the disk writes.
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

    /// The work that is due now. Call [`Inferences::finish`] or [`Inferences::failed`] before the next job.
    pub fn take_job(&mut self, bounds: &OutboxBounds, now: Instant) -> SpoolJob {
        let mut job = SpoolJob::default();
        if self.disk != Disk::Ready {
            return job;
        }
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.unless_full(self.write_due(bounds))) {
            job.write = self.messages_to_write(bounds);
            self.writing = job.write.iter().map(|(token, _)| *token).collect();
        }
        if !job.write.is_empty() || due(self.unless_full(self.deletion_due())) {
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

    /// The oldest waiting messages: without a connection all, with one as many as make the memory half empty.
    fn messages_to_write(&self, bounds: &OutboxBounds) -> Vec<(Token, Message)> {
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

    /// Applies the result of the last job.
    pub fn finish(&mut self, done: SpoolResult) -> SpoolCounts {
        let has_changed = !self.writing.is_empty() || !self.deleting.is_empty();
        let mut counts = SpoolCounts {
            written: self.writing.len() as u64,
            dropped: 0,
            has_room_again: has_changed && self.full_until.take().is_some(),
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
            counts.dropped += u64::from(self.dropped_from_disk(token));
        }
        if self.on_disk == 0 {
            self.unloaded_from = None;
        }
        self.forget_loaded_behind_unloaded();
        counts
    }

    /// A message that was in flight when the connection was lost can be written after newer ones were read. It is read before they
    /// are sent, and they are read again: else they would wait for it, and it for their place in memory.
    fn forget_loaded_behind_unloaded(&mut self) {
        let Some(from) = self.unloaded_from else {
            return;
        };
        for message in self.loaded.split_off(&from).into_values() {
            self.bytes -= message.payload.len();
            self.loaded_bytes -= message.payload.len();
        }
    }

    fn put_loaded(&mut self, token: Token, message: Message) {
        let known =
            self.sent.contains_key(&token) || self.deletions.contains(&token) || self.loaded.contains_key(&token);
        if known {
            return;
        }
        // This job wrote and read it: it waits in memory and is now on disk as well.
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

    /// Returns whether the message is lost. It is not if it was sent or delivered meanwhile.
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
