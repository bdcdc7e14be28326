//! Which acknowledgement belongs to which message.
//!
//! The client assigns packet ids itself and tells them only in its outgoing events, in the order in which it was asked to
//! publish. So messages handed to it wait here for their id first, and then, with the id, for the acknowledgement.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::outbox::Token;

/// The publications of one connection that are not done.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    unnamed: VecDeque<(Token, Instant)>,
    named: HashMap<u16, (Token, Instant)>,
    progress: Option<Instant>,
}

impl InFlight {
    /// `token` was handed to the client.
    pub fn handed_over(&mut self, token: Token, now: Instant) {
        self.unnamed.push_back((token, now));
    }

    /// The client wrote a publication under this packet id; 0 is QoS 0, which is done by that: then its token.
    pub fn written(&mut self, packet_id: u16, now: Instant) -> Option<Token> {
        let (token, since) = self.unnamed.pop_front()?;
        if packet_id == 0 {
            self.progress = Some(now);
            return Some(token);
        }
        self.named.insert(packet_id, (token, since));
        None
    }

    /// The broker acknowledged this packet id. `None` when nothing goes by it.
    pub fn acknowledged(&mut self, packet_id: u16, now: Instant) -> Option<Token> {
        let (token, _) = self.named.remove(&packet_id)?;
        self.progress = Some(now);
        Some(token)
    }

    /// When the broker counts as gone if nothing happens until then: `limit` after the last acknowledgement (so that a slow
    /// line with many messages on it is not cut), and for any single message at three times that.
    pub fn deadline(&self, limit: Duration) -> Option<Instant> {
        let waiting = self.unnamed.iter().chain(self.named.values()).map(|(_, since)| *since);
        let oldest = waiting.min()?;
        let quiet_since = self.progress.map_or(oldest, |progress| progress.max(oldest));
        Some((quiet_since + limit).min(oldest + limit * 3))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::message::Message;
    use super::super::outbox::{Bounds, Outbox};
    use super::*;
    use crate::config::Qos;
    use crate::device::Topics;
    use crate::status::stats::Stats;

    fn tokens<const N: usize>() -> [Token; N] {
        let outbox = Outbox::new(Bounds::default(), Arc::new(Stats::default()));
        std::array::from_fn(|_| outbox.push(Message::inference(&Topics::new("d"), "x", Qos::AtLeastOnce)))
    }

    #[test]
    fn packet_ids_belong_to_messages_in_the_order_of_writing() {
        let now = Instant::now();
        let [a, b, c] = tokens();
        let mut window = InFlight::default();
        for token in [a, b, c] {
            window.handed_over(token, now);
        }
        assert_eq!(window.written(7, now), None);
        assert_eq!(window.written(0, now), Some(b), "QoS 0 is done when written");
        assert_eq!(window.written(8, now), None);
        assert_eq!(window.acknowledged(8, now), Some(c));
        assert_eq!(window.acknowledged(8, now), None, "twice");
        assert_eq!(window.acknowledged(99, now), None, "invented");
        assert_eq!(window.acknowledged(7, now), Some(a));
        assert_eq!(window.written(9, now), None, "nothing was handed over");
        assert_eq!(window.deadline(Duration::from_secs(20)), None);
    }

    #[test]
    fn a_silent_broker_has_twenty_seconds_and_a_slow_one_more() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let limit = Duration::from_secs(20);
        let [a, b] = tokens();
        let mut window = InFlight::default();
        window.handed_over(a, at(0));
        window.handed_over(b, at(1));
        assert_eq!(window.deadline(limit), Some(at(20)));
        window.written(1, at(1));
        window.written(2, at(1));
        window.acknowledged(1, at(15));
        assert_eq!(window.deadline(limit), Some(at(35)));
        let [c] = tokens();
        window.handed_over(c, at(50));
        window.written(3, at(50));
        window.acknowledged(3, at(55));
        assert_eq!(
            window.deadline(limit),
            Some(at(61)),
            "one message that is never acknowledged ends it too"
        );
    }
}
