//! The last few messages that were published, for the status.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::message::Message;
use crate::status::PublishedMessage;
use crate::util::clock::now_ms;

/// Number of messages that are kept.
const MAX_RECENT: usize = 10;

/// The newest [`MAX_RECENT`] messages of all classes, without the empty ones that clear retained commands.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<VecDeque<PublishedMessage>>);

impl Recent {
    pub(super) fn add(&self, message: &Message) {
        if message.payload.is_empty() {
            return;
        }
        let mut ring = self.0.lock();
        if ring.len() == MAX_RECENT {
            ring.pop_front();
        }
        ring.push_back(PublishedMessage {
            ts: now_ms(),
            topic: message.topic.clone(),
            payload: message.payload.clone(),
        });
    }

    /// The messages, the newest first.
    pub(super) fn newest_first(&self) -> Vec<PublishedMessage> {
        self.0.lock().iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Qos;
    use crate::device::Topics;

    #[test]
    fn the_newest_ten_messages_are_kept_and_empty_ones_are_not() {
        let (recent, topics) = (Recent::default(), Topics::new("d"));
        for n in 0..15 {
            recent.add(&Message::inference(&topics, n.to_string(), Qos::AtLeastOnce));
            recent.add(&Message::clear_retained_command(&topics));
        }
        let payloads: Vec<_> = recent
            .newest_first()
            .into_iter()
            .map(|message| message.payload)
            .collect();
        assert_eq!(payloads.len(), MAX_RECENT);
        assert_eq!((&payloads[0][..], &payloads[9][..]), (&b"14"[..], &b"5"[..]));
    }
}
