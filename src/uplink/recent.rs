//! The last few messages that were published, for whoever looks at the device.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::message::Message;

/// How many are remembered.
pub const REMEMBERED: usize = 10;

/// A message and when it was published.
#[derive(Debug, Clone)]
pub struct RecentMessage {
    /// Milliseconds since the Unix epoch.
    pub ts: u64,
    /// The message; sharing its payload with the one under way.
    pub message: Message,
}

/// The newest [`REMEMBERED`] messages of all classes, without the empty ones that clear retained commands.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<RecentMessage>>);

impl Recent {
    pub(super) fn note(&self, message: &Message) {
        if message.payload.is_empty() {
            return;
        }
        let ts = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        let mut ring = self.0.lock();
        if ring.len() == REMEMBERED {
            ring.pop_front();
        }
        ring.push_back(RecentMessage {
            ts,
            message: message.clone(),
        });
    }

    /// What is remembered, the newest first.
    pub fn newest_first(&self) -> Vec<RecentMessage> {
        self.0.lock().iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Qos;
    use crate::device::Topics;

    #[test]
    fn the_newest_ten_are_remembered_and_clearings_are_not() {
        let (recent, topics) = (Recent::default(), Topics::new("d"));
        for n in 0..15 {
            recent.note(&Message::inference(&topics, n.to_string(), Qos::AtLeastOnce));
            recent.note(&Message::clear_retained_command(&topics));
        }
        let payloads: Vec<_> = recent.newest_first().into_iter().map(|r| r.message.payload).collect();
        assert_eq!(payloads.len(), REMEMBERED);
        assert_eq!((&payloads[0][..], &payloads[9][..]), (&b"14"[..], &b"5"[..]));
    }
}
