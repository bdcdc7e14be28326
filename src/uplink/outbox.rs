//! Every message from the moment it is published until the broker has it.
//!
//! Producers [`push`](Outbox::push) from any thread and never wait. One driver takes messages with
//! [`next_to_send`](Outbox::next_to_send), and says what became of them with [`acked`](Outbox::acked) or
//! [`connection_lost`](Outbox::connection_lost). Tokens grow with each push, so a message that has to be sent again falls
//! back into its old place by itself.
//!
//! Inferences may also lie on disk. A [`Spool`](super::Spool) takes jobs from the outbox and does them on a thread of its own:
//! memory keeps each message until it is delivered or the disk has it, and drops the oldest (counted and reported) only when
//! the disk cannot help.

mod drops;
mod inferences;
mod waiting;

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::message::{Class, Message};
use super::recent::Recent;
use super::spool::{Done, Job, Policy};
use crate::status::health::HealthFlag;
use crate::status::stats::Stats;
use crate::status::{OutboxStatus, StatusSource};
use drops::DropReport;
use inferences::Inferences;
use waiting::Waiting;

/// Names one message in the outbox. Later messages have greater tokens; those of earlier runs are not above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub(super) i64);

impl Token {
    /// Before all others.
    const MIN: Self = Self(i64::MIN);
}

/// Bounds of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Payload bytes of inferences in memory; beyond it the oldest that is not being sent is dropped. With a spool they go
    /// to disk well before.
    pub inference_bytes: usize,
    /// Payload bytes of answers and notices in memory; beyond it the oldest that is not being sent is dropped.
    pub urgent_bytes: usize,
    /// Number of answers and notices in memory, likewise.
    pub urgent_messages: usize,
    /// Inferences sent and not acknowledged; at most [`MAX_WINDOW`].
    pub inference_window: usize,
    /// Answers, notices and clearings sent and not acknowledged; at most [`MAX_WINDOW`].
    pub urgent_window: usize,
}

impl StatusSource<OutboxStatus> for Outbox {
    fn status(&self) -> OutboxStatus {
        OutboxStatus {
            waiting: self.waiting(),
            spool: self.spool_flag.clone(),
            published: self.recent.newest_first(),
        }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            inference_bytes: 4 << 20,
            urgent_bytes: 1 << 20,
            urgent_messages: 1024,
            inference_window: 16,
            urgent_window: 16,
        }
    }
}

/// No single payload may be larger: with topic and header it stays below the packet limit of the connection, where a
/// larger one would end every connection anew. (IoT Core itself takes 128 KiB.)
pub const MAX_PAYLOAD_BYTES: usize = 255 * 1024;

/// Both windows together stay below what a connection takes at once, so that handing over a message never waits.
pub const MAX_WINDOW: usize = 24;

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    pushed: Notify,
    /// Wakes the spool.
    job_due: Condvar,
    stats: Arc<Stats>,
    recent: Recent,
    spool_flag: HealthFlag,
}

#[derive(Debug)]
struct Inner {
    bounds: Bounds,
    last_token: i64,
    /// Inferences up to this one are not counted as delivered.
    counted_from: Token,
    inferences: Inferences,
    urgent: Waiting,
    metrics: Waiting,
    dropped: DropReport,
    spool: SpoolSide,
}

/// What the spool's thread is doing, as far as the outbox must know.
#[derive(Debug, Default)]
struct SpoolSide {
    sleep: Sleep,
    /// When nothing is due any more, there are no more jobs.
    ending: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Sleep {
    #[default]
    Awake,
    Until(Instant),
    ForEver,
}

/// What was not delivered.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// Inferences on disk: they are delivered after the next start.
    pub on_disk: u64,
    /// Inferences in memory alone: they are lost with the process.
    pub in_memory: usize,
    /// Answers, notices and metrics.
    pub others: usize,
}

impl Outbox {
    /// An empty outbox. It counts `outbox_dropped`, `delivered`, `spooled` and `spool_dropped`; `published` is counted by who
    /// pushes.
    pub fn new(bounds: Bounds, stats: Arc<Stats>) -> Self {
        Self {
            inner: Mutex::new(Inner {
                bounds,
                last_token: 0,
                counted_from: Token::MIN,
                inferences: Inferences::new(Instant::now()),
                urgent: Waiting::default(),
                metrics: Waiting::default(),
                dropped: DropReport::default(),
                spool: SpoolSide::default(),
            }),
            pushed: Notify::new(),
            job_due: Condvar::new(),
            stats,
            recent: Recent::default(),
            spool_flag: HealthFlag::default(),
        }
    }

    /// Takes a message into custody. Never waits; may be called from any thread. What does not fit drops what is oldest.
    pub fn push(&self, message: Message) -> Token {
        self.recent.add(&message);
        let now = Instant::now();
        let mut inner = self.inner.lock();
        inner.last_token += 1;
        let token = Token(inner.last_token);
        let class = message.class;
        if message.payload.len() > MAX_PAYLOAD_BYTES {
            tracing::error!(
                "A message of {} bytes on {} is dropped: at most {MAX_PAYLOAD_BYTES} can be published",
                message.payload.len(),
                message.topic
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
                if message.ends_pause() {
                    inner.urgent.withdraw(Message::after_inferences);
                }
                inner.urgent.put(token, message);
                inner.dropped.urgent += inner.urgent.drop_overflow(bounds.urgent_bytes, bounds.urgent_messages);
            }
            Class::Metrics => {
                inner.metrics.keep_newest(0);
                inner.metrics.put(token, message);
            }
        }
        inner.dropped.report(now);
        drop(inner);
        self.pushed.notify_one();
        token
    }

    /// The next message to send, if the window allows one; it counts as sent from here on. Answers and notices first
    /// (but a pause, which is told after the inferences before it, [`Message::after_inferences`]), then metrics, then inferences in their
    /// order.
    pub fn next_to_send(&self) -> Option<(Token, Message)> {
        self.next_to_send_if(|_, _| true)
    }

    /// The same, if `allow` agrees. It is asked about one message, and told whether that is part of a backlog: from the
    /// disk, or in memory for a second or longer.
    pub fn next_to_send_if(&self, allow: impl FnOnce(&Message, bool) -> bool) -> Option<(Token, Message)> {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let urgent_window = inner.bounds.urgent_window.min(MAX_WINDOW);
        let inference_window = inner.bounds.inference_window.min(MAX_WINDOW);
        let oldest_inference = inner.inferences.oldest();
        let may_go = |token: Token, message: &Message| {
            !message.after_inferences() || oldest_inference.is_none_or(|oldest| token < oldest)
        };
        if let Some((token, message)) = inner.urgent.next(urgent_window, may_go) {
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

    /// The broker has the message. False for a token that is not being sent (any more).
    pub fn acked(&self, token: Token) -> bool {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        if inner.inferences.acked(token, now) {
            inner.inferences.progress();
            if token > inner.counted_from {
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

    /// From here on only inferences that are pushed later count as delivered: the counters begin anew, and so does the count
    /// of what was published.
    pub fn count_anew(&self) {
        let mut inner = self.inner.lock();
        inner.counted_from = Token(inner.last_token);
    }

    /// Sending begins: what is on disk is read from now on.
    pub fn connected(&self) {
        let mut inner = self.inner.lock();
        inner.inferences.connected();
        self.wake_spool(&inner, Instant::now());
    }

    /// Everything sent and not acknowledged waits again, in its old place. Of metrics only the newest.
    pub fn connection_lost(&self) {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        inner.inferences.connection_lost(now);
        inner.urgent.take_back();
        inner.metrics.take_back();
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

    /// What is left, for the end.
    pub fn rest(&self) -> Rest {
        let inner = self.inner.lock();
        Rest {
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

    /// Waits until something was pushed, or read from the disk, since the last call. One waiter.
    pub async fn pushed(&self) {
        self.pushed.notified().await;
    }

    /// Logs what was dropped since the last report, if that is a minute ago.
    pub(super) fn report_drops(&self) {
        self.inner.lock().dropped.report(Instant::now());
    }
}

/// The side of the spool.
impl Outbox {
    /// There is a spool; nothing is sent before [`Outbox::spool_opened`] or [`Outbox::spool_failed`].
    pub(super) fn attach_spool(&self, policy: Policy) {
        self.inner.lock().inferences.attach(policy);
    }

    /// The spool can be used and holds so many messages.
    pub(super) fn spool_opened(&self, held: u64) {
        self.spool_flag.set_ok();
        let mut inner = self.inner.lock();
        inner.inferences.opened(held);
        self.wake_spool(&inner, Instant::now());
        drop(inner);
        self.pushed.notify_one();
    }

    /// The spool cannot be used for now, for this reason. A job under way counts as not done.
    pub(super) fn spool_failed(&self, reason: impl Display) {
        self.spool_flag.set_failing(reason);
        self.inner.lock().inferences.failed(Instant::now());
        self.pushed.notify_one();
    }

    /// What was taken with [`Outbox::next_job`] is done.
    pub(super) fn spool_done(&self, done: Done) {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        let tally = inner.inferences.finish(done);
        self.stats.spooled.add(tally.written);
        self.stats.spool_dropped.add(tally.dropped);
        inner.dropped.spooled += tally.dropped;
        inner.dropped.report(now);
        drop(inner);
        self.pushed.notify_one();
    }

    /// Waits for the next job; `None`: there are no more.
    pub(super) fn next_job(&self) -> Option<Job> {
        let mut inner = self.inner.lock();
        loop {
            let due = match inner.due_job(Instant::now()) {
                Ok(job) => return Some(job),
                Err(_) if inner.spool.ending => return None,
                Err(due) => due,
            };
            if let Some(due) = due {
                inner.spool.sleep = Sleep::Until(due);
                self.job_due.wait_until(&mut inner, due);
            } else {
                inner.spool.sleep = Sleep::ForEver;
                self.job_due.wait(&mut inner);
            }
            inner.spool.sleep = Sleep::Awake;
        }
    }

    /// Waits out a time in which the spool cannot be used; false: the end has come.
    pub(super) fn wait_before_reopening(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut inner = self.inner.lock();
        while !inner.spool.ending && Instant::now() < until {
            self.job_due.wait_until(&mut inner, until);
        }
        !inner.spool.ending
    }

    /// What waits goes to disk from `at` on, or at once without a connection, and nothing is read from there any more.
    pub(super) fn flush_from(&self, at: Instant) {
        let mut inner = self.inner.lock();
        inner.inferences.flush_from(at);
        self.wake_spool(&inner, Instant::now());
    }

    /// No more jobs once everything is on disk that can be.
    pub(super) fn end_spool(&self) {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        inner.inferences.flush_from(now);
        inner.spool.ending = true;
        inner.dropped.say(now);
        drop(inner);
        self.job_due.notify_one();
    }

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

impl Inner {
    /// What the spool is to do now, or when something will be due.
    fn due_job(&mut self, now: Instant) -> Result<Job, Option<Instant>> {
        match self.inferences.due(&self.bounds, now) {
            Some(due) if due <= now => Ok(self.inferences.take_job(&self.bounds, now)),
            due => Err(due),
        }
    }
}

#[cfg(test)]
impl Outbox {
    /// What the spool's thread would get now.
    pub(super) fn job_now(&self) -> Option<Job> {
        self.inner.lock().due_job(Instant::now()).ok()
    }
}

#[cfg(test)]
mod tests;
