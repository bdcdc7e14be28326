//! Holds every message from its publication until the broker has acknowledged it.
//!
//! Producers [`push`](Outbox::push) from any thread and never wait. One driver takes messages with
//! [`next_to_send`](Outbox::next_to_send), and reports the result with [`acked`](Outbox::acked) or
//! [`connection_lost`](Outbox::connection_lost). Tokens grow with each push, so a message that has to be sent again returns
//! to its old position.
//!
//! Inferences can also be on disk. The spool takes jobs from the outbox and performs them on its own thread. Memory keeps each
//! message until it is delivered or written to disk, and drops the oldest (counted and logged) only when the disk cannot be
//! used.

mod bounds;
mod drops;
mod inferences;
mod memory_queue;
mod spool_job;
mod spool_side;
mod token;

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::copies::MessageCopies;
use super::message::{Class, Message};
use super::recent::Recent;
use crate::status::health::HealthFlag;
use crate::status::stats::Stats;
use crate::status::{OutboxStatus, StatusSource};
use crate::util::clock::monotonic_now;
use bounds::MAX_WINDOW;
pub use bounds::{MAX_PAYLOAD_BYTES, OutboxBounds};
use drops::DropReport;
use inferences::Inferences;
use memory_queue::MemoryQueue;
pub use spool_job::SpoolPolicy;
pub(super) use spool_job::{LoadRequest, LoadedMessages, SpoolJob, SpoolResult};
pub use token::Token;

impl StatusSource<OutboxStatus> for Outbox {
    fn status(&self) -> OutboxStatus {
        OutboxStatus {
            waiting: self.waiting(),
            spool: self.spool_flag.clone(),
            published: self.recent.newest_first(),
        }
    }
}

/// The messages that the broker has not acknowledged.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    pushed: Notify,
    /// Wakes the spool.
    job_due: Condvar,
    stats: Arc<Stats>,
    recent: Recent,
    /// Gets a copy of each message; `None`: the broker is the only reader.
    copies: Option<Arc<MessageCopies>>,
    spool_flag: HealthFlag,
}

#[derive(Debug)]
struct Inner {
    bounds: OutboxBounds,
    last_token: i64,
    /// Inferences up to this token are not counted as delivered.
    counted_from: Token,
    inferences: Inferences,
    urgent: MemoryQueue,
    metrics: MemoryQueue,
    dropped: DropReport,
    spool: SpoolSide,
}

/// State of the spool's thread.
#[derive(Debug, Default)]
struct SpoolSide {
    sleep: Sleep,
    /// The thread ends when no job is due.
    ending: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Sleep {
    #[default]
    Awake,
    Until(Instant),
    ForEver,
}

/// Messages that were not delivered.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Undelivered {
    /// Inferences on disk: they are delivered after the next start.
    pub on_disk: u64,
    /// Inferences in memory only: they are lost when the process ends.
    pub in_memory: usize,
    /// Answers, notices and metrics in memory.
    pub others: usize,
}

impl Outbox {
    /// An empty outbox. It counts `outbox_dropped`, `delivered`, `spooled` and `spool_dropped`; the caller of `push`
    /// counts `published`.
    pub fn new(bounds: OutboxBounds, stats: Arc<Stats>) -> Self {
        Self {
            inner: Mutex::new(Inner {
                bounds,
                last_token: 0,
                counted_from: Token::MIN,
                inferences: Inferences::new(monotonic_now()),
                urgent: MemoryQueue::default(),
                metrics: MemoryQueue::default(),
                dropped: DropReport::default(),
                spool: SpoolSide::default(),
            }),
            pushed: Notify::new(),
            job_due: Condvar::new(),
            stats,
            recent: Recent::default(),
            copies: None,
            spool_flag: HealthFlag::default(),
        }
    }

    /// The same outbox, which also gives a copy of each pushed message to another reader.
    #[must_use]
    pub fn with_copies(self, copies: Option<Arc<MessageCopies>>) -> Self {
        Self { copies, ..self }
    }

    /// Adds a message. Never waits; may be called from any thread. When the outbox is full, the oldest message is dropped.
    pub fn push(&self, message: Message) -> Token {
        self.recent.add(&message);
        if let Some(copies) = &self.copies {
            copies.push(&message);
        }
        let now = monotonic_now();
        let mut inner = self.inner.lock();
        inner.last_token += 1;
        let token = Token(inner.last_token);
        let class = message.class;
        if message.payload.len() > MAX_PAYLOAD_BYTES {
            tracing::error!(
                bytes = message.payload.len(),
                topic = %message.topic,
                max_bytes = MAX_PAYLOAD_BYTES,
                "A message is too large to be published and was dropped"
            );
            if class == Class::Inference {
                self.stats.outbox_dropped.inc();
            }
            return token;
        }
        let bounds = inner.bounds;
        match class {
            Class::Inference => {
                inner.inferences.put(token, message, now);
                let dropped = inner.inferences.drop_overflow(bounds.inference_bytes);
                self.stats.outbox_dropped.add(dropped);
                inner.dropped.inferences += dropped;
                self.wake_spool(&inner, now);
            }
            Class::Urgent => {
                if message.supersedes_pause() {
                    inner.urgent.withdraw(Message::is_sent_after_inferences);
                }
                inner.urgent.put(token, message);
                inner.dropped.urgent += inner.urgent.drop_overflow(bounds.urgent_bytes, bounds.urgent_messages);
            }
            Class::Metrics => {
                inner.metrics.keep_newest(0);
                inner.metrics.put(token, message);
            }
        }
        inner.dropped.log(now);
        drop(inner);
        self.pushed.notify_one();
        token
    }

    /// Returns the next message if the in-flight window has room, and marks it as sent. Answers and notices come first, then
    /// metrics, then inferences in their order. The notice `paused` waits for the inferences before it; see
    /// [`Message::is_sent_after_inferences`].
    pub fn next_to_send(&self) -> Option<(Token, Message)> {
        self.next_to_send_if(|_, _| true)
    }

    /// Like [`Outbox::next_to_send`], if `allow` returns true for the message. Its second argument is whether the message is
    /// part of a backlog: read from the disk, or in memory for a second or longer.
    pub fn next_to_send_if(&self, allow: impl FnOnce(&Message, bool) -> bool) -> Option<(Token, Message)> {
        let now = monotonic_now();
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let urgent_window = inner.bounds.urgent_window.min(MAX_WINDOW);
        let inference_window = inner.bounds.inference_window.min(MAX_WINDOW);
        let oldest_inference = inner.inferences.oldest();
        let may_send = |token: Token, message: &Message| {
            !message.is_sent_after_inferences() || oldest_inference.is_none_or(|oldest| token < oldest)
        };
        if let Some((token, message)) = inner.urgent.next(urgent_window, may_send) {
            return allow(message, false).then(|| inner.urgent.send(token)).flatten();
        }
        if let Some((token, message)) = inner.metrics.next(1, |_, _| true) {
            return allow(message, false).then(|| inner.metrics.send(token)).flatten();
        }
        let (message, backlog) = inner.inferences.next(inference_window, now)?;
        if !allow(message, backlog) {
            return None;
        }
        let sent = inner.inferences.send(now);
        self.wake_spool(inner, now);
        sent
    }

    /// The broker acknowledged the message. Returns false if the message is not in flight.
    pub fn acked(&self, token: Token) -> bool {
        let now = monotonic_now();
        let mut inner = self.inner.lock();
        if let Some(message) = inner.inferences.acked(token, now) {
            inner.inferences.progress();
            if message.is_event() {
                self.stats.events_delivered.inc();
            } else if token > inner.counted_from {
                self.stats.delivered.inc();
            }
            self.wake_spool(&inner, now);
            return true;
        }
        let known = inner.urgent.acked(token) || inner.metrics.acked(token);
        if known {
            inner.inferences.progress();
        }
        known
    }

    /// Whether an inference or an event is neither delivered nor on disk: it would be lost in a crash.
    pub fn is_only_in_memory(&self, token: Token) -> bool {
        self.inner.lock().inferences.is_only_in_memory(token)
    }

    /// Resets the count of deliveries: only inferences pushed after this call are counted as delivered.
    pub fn reset_delivered_count(&self) {
        let mut inner = self.inner.lock();
        inner.counted_from = Token(inner.last_token);
    }

    /// The connection is ready: messages on disk are read from now on.
    pub fn connected(&self) {
        let mut inner = self.inner.lock();
        inner.inferences.connected();
        self.wake_spool(&inner, monotonic_now());
    }

    /// Unacknowledged messages wait again in their old position; only the newest metrics message is kept.
    pub fn connection_lost(&self) {
        let now = monotonic_now();
        let mut inner = self.inner.lock();
        inner.inferences.connection_lost(now);
        inner.urgent.requeue_sent();
        inner.metrics.requeue_sent();
        inner.metrics.keep_newest(1);
        self.wake_spool(&inner, now);
    }

    /// Messages of all classes in memory that are not yet acknowledged.
    pub fn depth(&self) -> usize {
        let inner = self.inner.lock();
        inner.inferences.len() + inner.urgent.len() + inner.metrics.len()
    }

    /// Messages of all classes not yet acknowledged, in memory and on disk.
    pub fn waiting(&self) -> u64 {
        let inner = self.inner.lock();
        inner.inferences.total() + (inner.urgent.len() + inner.metrics.len()) as u64
    }

    /// The messages that are left at the stop.
    pub fn undelivered(&self) -> Undelivered {
        let inner = self.inner.lock();
        Undelivered {
            on_disk: inner.inferences.on_disk(),
            in_memory: inner.inferences.unwritten(),
            others: inner.urgent.len() + inner.metrics.len(),
        }
    }

    /// Payload bytes of all classes in memory.
    pub fn bytes(&self) -> usize {
        let inner = self.inner.lock();
        inner.inferences.bytes() + inner.urgent.bytes + inner.metrics.bytes
    }

    /// Waits until a message was pushed or read from the disk since the last call. Only one task may wait.
    pub async fn pushed(&self) {
        self.pushed.notified().await;
    }

    /// Logs the messages dropped since the last report, at most once a minute.
    pub(super) fn report_drops(&self) {
        self.inner.lock().dropped.log(monotonic_now());
    }
}

impl Outbox {
    fn wake_spool(&self, inner: &Inner, now: Instant) {
        let due = || inner.inferences.due(&inner.bounds, now);
        let wake = match inner.spool.sleep {
            Sleep::Awake => false,
            Sleep::ForEver => due().is_some(),
            Sleep::Until(then) => due().is_some_and(|due| due < then),
        };
        if wake {
            self.job_due.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
