//! Every message from the moment it is published until the broker has it.
//!
//! Producers [`push`](Outbox::push) from any thread and never wait. One driver takes messages with
//! [`next_to_send`](Outbox::next_to_send), and says what became of them with [`acked`](Outbox::acked) or
//! [`connection_lost`](Outbox::connection_lost). Tokens grow with each push, so a message that has to be sent again falls
//! back into its old place by itself.
//!
//! Inferences leave memory in two ways: acknowledged, or, oldest first, when there are more than fit
//! (`drop_overflow`, counted and reported). That second door is the only one a store on disk has to stand behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::message::{Class, Message};
use crate::stats::Stats;

/// Names one message in the outbox. Later messages have greater tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

/// Bounds of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Payload bytes of inferences in memory; beyond it the oldest that is not being sent is dropped.
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

const REPORT_EVERY: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    pushed: Notify,
    stats: Arc<Stats>,
}

#[derive(Debug)]
struct Inner {
    bounds: Bounds,
    last_token: u64,
    inferences: Waiting,
    urgent: Waiting,
    metrics: Waiting,
    dropped: DropReport,
}

impl Outbox {
    /// An empty outbox. It counts `outbox_dropped` and `delivered`; `published` is counted by who pushes.
    pub fn new(bounds: Bounds, stats: Arc<Stats>) -> Self {
        Self {
            inner: Mutex::new(Inner {
                bounds,
                last_token: 0,
                inferences: Waiting::default(),
                urgent: Waiting::default(),
                metrics: Waiting::default(),
                dropped: DropReport::default(),
            }),
            pushed: Notify::new(),
            stats,
        }
    }

    /// Takes a message into custody. Never waits; may be called from any thread. What does not fit drops what is oldest.
    pub fn push(&self, message: Message) -> Token {
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
        if class == Class::Metrics {
            inner.metrics.keep_newest(0);
        }
        let bounds = inner.bounds;
        inner.queue(class).put(token, message);
        match class {
            Class::Inference => {
                let dropped = inner.inferences.drop_overflow(bounds.inference_bytes, usize::MAX);
                self.stats.outbox_dropped.add(dropped);
                inner.dropped.inferences += dropped;
            }
            Class::Urgent => {
                inner.dropped.urgent += inner.urgent.drop_overflow(bounds.urgent_bytes, bounds.urgent_messages);
            }
            Class::Metrics => {}
        }
        inner.dropped.report(now);
        drop(inner);
        self.pushed.notify_one();
        token
    }

    /// The next message to send, if the window allows one; it counts as sent from here on. Answers and notices first
    /// (but those that belong after inferences, [`Message::after_inferences`]), then metrics, then inferences in their
    /// order.
    pub fn next_to_send(&self) -> Option<(Token, Message)> {
        let mut inner = self.inner.lock();
        let Bounds {
            inference_window,
            urgent_window,
            ..
        } = inner.bounds;
        let oldest_inference = inner.inferences.oldest();
        let may_go = |token: Token, message: &Message| {
            !message.after_inferences || oldest_inference.is_none_or(|oldest| token < oldest)
        };
        inner
            .urgent
            .send_if(urgent_window.min(MAX_WINDOW), may_go)
            .or_else(|| inner.metrics.send(1))
            .or_else(|| inner.inferences.send(inference_window.min(MAX_WINDOW)))
    }

    /// The broker has the message. False for a token that is not being sent (any more).
    pub fn acked(&self, token: Token) -> bool {
        let mut inner = self.inner.lock();
        if inner.inferences.acked(token) {
            self.stats.delivered.inc();
            return true;
        }
        inner.urgent.acked(token) || inner.metrics.acked(token)
    }

    /// Everything sent and not acknowledged waits again, in its old place. Of metrics only the newest.
    pub fn connection_lost(&self) {
        let mut inner = self.inner.lock();
        inner.inferences.take_back();
        inner.urgent.take_back();
        inner.metrics.take_back();
        inner.metrics.keep_newest(1);
    }

    /// Messages of all classes not yet acknowledged.
    pub fn depth(&self) -> usize {
        let inner = self.inner.lock();
        [&inner.inferences, &inner.urgent, &inner.metrics]
            .into_iter()
            .map(Waiting::len)
            .sum()
    }

    /// Payload bytes of all classes not yet acknowledged.
    pub fn bytes(&self) -> usize {
        let inner = self.inner.lock();
        inner.inferences.bytes + inner.urgent.bytes + inner.metrics.bytes
    }

    /// Waits until something was pushed since the last call. One waiter.
    pub async fn pushed(&self) {
        self.pushed.notified().await;
    }

    /// Logs what was dropped since the last report, if that is a minute ago.
    pub(super) fn report_drops(&self) {
        self.inner.lock().dropped.report(Instant::now());
    }
}

impl Inner {
    fn queue(&mut self, class: Class) -> &mut Waiting {
        match class {
            Class::Inference => &mut self.inferences,
            Class::Urgent => &mut self.urgent,
            Class::Metrics => &mut self.metrics,
        }
    }
}

/// The messages of one class.
#[derive(Debug, Default)]
struct Waiting {
    waiting: BTreeMap<Token, Message>,
    sent: BTreeMap<Token, Message>,
    /// Payload bytes of both.
    bytes: usize,
}

impl Waiting {
    fn put(&mut self, token: Token, message: Message) {
        self.bytes += message.payload.len();
        self.waiting.insert(token, message);
    }

    /// The oldest that the broker does not have.
    fn oldest(&self) -> Option<Token> {
        let first = |messages: &BTreeMap<Token, Message>| messages.first_key_value().map(|(token, _)| *token);
        [first(&self.waiting), first(&self.sent)].into_iter().flatten().min()
    }

    fn send(&mut self, window: usize) -> Option<(Token, Message)> {
        self.send_if(window, |_, _| true)
    }

    /// The oldest that `may_go`.
    fn send_if(&mut self, window: usize, may_go: impl Fn(Token, &Message) -> bool) -> Option<(Token, Message)> {
        if self.sent.len() >= window {
            return None;
        }
        let token = *self.waiting.iter().find(|(token, message)| may_go(**token, message))?.0;
        let message = self.waiting.remove(&token)?;
        self.sent.insert(token, message.clone());
        Some((token, message))
    }

    fn acked(&mut self, token: Token) -> bool {
        let Some(message) = self.sent.remove(&token) else {
            return false;
        };
        self.bytes -= message.payload.len();
        true
    }

    fn take_back(&mut self) {
        self.waiting.append(&mut self.sent);
    }

    fn keep_newest(&mut self, count: usize) {
        while self.waiting.len() > count {
            if let Some((_, message)) = self.waiting.pop_first() {
                self.bytes -= message.payload.len();
            }
        }
    }

    /// Drops the oldest that wait, until the rest fits or only the newest is left. The clearing of a retained command is
    /// never dropped: a command waits for it. Returns how many were dropped.
    fn drop_overflow(&mut self, max_bytes: usize, max_messages: usize) -> u64 {
        let mut dropped = 0;
        while self.bytes > max_bytes || self.len() > max_messages {
            let newest = self.waiting.last_key_value().map(|(token, _)| *token);
            let oldest = self
                .waiting
                .iter()
                .find(|(_, message)| !message.retain)
                .map(|(token, _)| *token);
            let Some(oldest) = oldest.filter(|oldest| Some(*oldest) != newest) else {
                break;
            };
            if let Some(message) = self.waiting.remove(&oldest) {
                self.bytes -= message.payload.len();
                dropped += 1;
            }
        }
        dropped
    }

    fn len(&self) -> usize {
        self.waiting.len() + self.sent.len()
    }
}

/// Says once a minute how much was lost.
#[derive(Debug, Default)]
struct DropReport {
    inferences: u64,
    urgent: u64,
    reported: Option<Instant>,
}

impl DropReport {
    fn report(&mut self, now: Instant) {
        let due = self
            .reported
            .is_none_or(|last| now.saturating_duration_since(last) >= REPORT_EVERY);
        if !due || (self.inferences == 0 && self.urgent == 0) {
            return;
        }
        tracing::error!(
            "The broker does not take messages fast enough and memory for them is full: {} inferences and {} answers or \
             notices were lost, the oldest first, since the last such line",
            self.inferences,
            self.urgent
        );
        *self = Self {
            reported: Some(now),
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests;
