//! Copies of the published messages, for a reader beside the broker.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::message::Message;
use crate::status::stats::Stats;

/// Most messages that wait for the reader.
const MAX_MESSAGES: usize = 256;
/// Most payload bytes that wait for the reader. The payloads are shared with the outbox while they wait there too.
const MAX_BYTES: usize = 4 << 20;

/// A queue between the outbox and the reader. The outbox never waits for it: when it is full, the oldest message is dropped.
/// Dropped messages are counted in `local_dropped`.
#[derive(Debug)]
pub struct MessageCopies {
    queue: Mutex<CopyQueue>,
    pushed: Notify,
    stats: Arc<Stats>,
}

#[derive(Debug, Default)]
struct CopyQueue {
    messages: VecDeque<Message>,
    bytes: usize,
    is_discarding: bool,
}

impl CopyQueue {
    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.payload.len();
        Some(message)
    }
}

impl MessageCopies {
    /// An empty queue.
    pub fn new(stats: Arc<Stats>) -> Self {
        Self {
            queue: Mutex::default(),
            pushed: Notify::new(),
            stats,
        }
    }

    /// Adds a copy of the message. The clearing of a retained command is only for the broker.
    pub(super) fn push(&self, message: &Message) {
        if message.payload.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.is_discarding {
            self.stats.local_dropped.inc();
            return;
        }
        queue.bytes += message.payload.len();
        queue.messages.push_back(message.clone());
        while queue.messages.len() > MAX_MESSAGES || queue.bytes > MAX_BYTES {
            queue.pop();
            self.stats.local_dropped.inc();
        }
        drop(queue);
        self.pushed.notify_one();
    }

    /// The oldest message.
    pub fn pop(&self) -> Option<Message> {
        self.queue.lock().pop()
    }

    /// Waits for the next message. Only one task may wait. No message is lost when the future is dropped.
    pub async fn next(&self) -> Message {
        loop {
            if let Some(message) = self.pop() {
                return message;
            }
            self.pushed.notified().await;
        }
    }

    /// Drops the waiting messages and those that follow, until [`Self::resume`].
    pub fn discard(&self) {
        let mut queue = self.queue.lock();
        queue.is_discarding = true;
        while queue.pop().is_some() {
            self.stats.local_dropped.inc();
        }
    }

    /// Keeps the messages that follow.
    pub fn resume(&self) {
        self.queue.lock().is_discarding = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Qos;
    use crate::device::Topics;

    fn message(payload: impl Into<bytes::Bytes>) -> Message {
        Message::inference(&Topics::new("d"), payload, Qos::AtLeastOnce)
    }

    #[test]
    fn a_full_queue_drops_the_oldest_messages_and_counts_them() {
        let stats = Arc::new(Stats::default());
        let copies = MessageCopies::new(stats.clone());
        for n in 0..MAX_MESSAGES + 3 {
            copies.push(&message(n.to_string()));
        }
        assert_eq!(copies.pop(), Some(message("3")));
        assert_eq!(stats.local_dropped.get(), 3);

        copies.push(&message(vec![b' '; MAX_BYTES - 1]));
        copies.push(&message("23"));
        assert_eq!(copies.pop(), Some(message("23")));
        assert_eq!(copies.pop(), None);
        assert_eq!(stats.local_dropped.get(), MAX_MESSAGES as u64 + 3);
    }

    #[test]
    fn without_a_reader_messages_are_dropped_and_clearings_are_never_copied() {
        let stats = Arc::new(Stats::default());
        let copies = MessageCopies::new(stats.clone());
        copies.push(&message("1"));
        copies.discard();
        copies.push(&message("2"));
        assert_eq!((copies.pop(), stats.local_dropped.get()), (None, 2));
        copies.resume();
        copies.push(&Message::clear_retained_command(&Topics::new("d")));
        copies.push(&message("3"));
        assert_eq!(copies.pop(), Some(message("3")));
        assert_eq!(stats.local_dropped.get(), 2);
    }
}
