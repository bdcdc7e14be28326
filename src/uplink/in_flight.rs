//! Matches acknowledgements to messages.
//!
//! The client assigns packet ids itself and reports them only in its outgoing events, in the order of the publish calls. So a
//! message waits here for its id first, and then for the acknowledgement.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::outbox::Token;

/// The unfinished publications of one connection.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    without_id: VecDeque<(Token, Instant)>,
    with_id: HashMap<u16, (Token, Instant)>,
    progress: Option<Instant>,
}

impl InFlight {
    /// `token` was handed to the client.
    pub fn queued(&mut self, token: Token, now: Instant) {
        self.without_id.push_back((token, now));
    }

    /// The client wrote a publication with this packet id. Id 0 means QoS 0: the message is finished, and its token is returned.
    pub fn written(&mut self, packet_id: u16, now: Instant) -> Option<Token> {
        let (token, since) = self.without_id.pop_front()?;
        if packet_id == 0 {
            self.progress = Some(now);
            return Some(token);
        }
        self.with_id.insert(packet_id, (token, since));
        None
    }

    /// The broker acknowledged this packet id. Returns its message; `None` for an unknown id.
    pub fn acknowledged(&mut self, packet_id: u16, now: Instant) -> Option<Token> {
        let (token, _) = self.with_id.remove(&packet_id)?;
        self.progress = Some(now);
        Some(token)
    }

    /// When the connection counts as lost if no acknowledgement comes: `limit` after the last acknowledgement, so that a slow
    /// connection with many messages is not closed, but at most three times `limit` after any message was sent.
    pub fn deadline(&self, limit: Duration) -> Option<Instant> {
        let waiting = self
            .without_id
            .iter()
            .chain(self.with_id.values())
            .map(|(_, since)| *since);
        let oldest = waiting.min()?;
        let quiet_since = self.progress.map_or(oldest, |progress| progress.max(oldest));
        Some((quiet_since + limit).min(oldest + limit * 3))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::message::Message;
    use super::super::outbox::{Outbox, OutboxBounds};
    use super::*;
    use crate::config::Qos;
    use crate::device::Topics;
    use crate::status::stats::Stats;

    fn tokens<const N: usize>() -> [Token; N] {
        let outbox = Outbox::new(OutboxBounds::default(), Arc::new(Stats::default()));
        std::array::from_fn(|_| outbox.push(Message::inference(&Topics::new("d"), "x", Qos::AtLeastOnce)))
    }

    #[test]
    fn packet_ids_are_assigned_to_messages_in_the_order_of_publishing() {
        let now = Instant::now();
        let [a, b, c] = tokens();
        let mut in_flight = InFlight::default();
        for token in [a, b, c] {
            in_flight.queued(token, now);
        }
        assert_eq!(in_flight.written(7, now), None);
        assert_eq!(in_flight.written(0, now), Some(b), "QoS 0 is done when written");
        assert_eq!(in_flight.written(8, now), None);
        assert_eq!(in_flight.acknowledged(8, now), Some(c));
        assert_eq!(in_flight.acknowledged(8, now), None, "twice");
        assert_eq!(in_flight.acknowledged(99, now), None, "invented");
        assert_eq!(in_flight.acknowledged(7, now), Some(a));
        assert_eq!(in_flight.written(9, now), None, "no message was queued");
        assert_eq!(in_flight.deadline(Duration::from_secs(20)), None);
    }

    #[test]
    fn a_silent_broker_has_twenty_seconds_and_a_slow_one_has_more() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let limit = Duration::from_secs(20);
        let [a, b] = tokens();
        let mut in_flight = InFlight::default();
        in_flight.queued(a, at(0));
        in_flight.queued(b, at(1));
        assert_eq!(in_flight.deadline(limit), Some(at(20)));
        in_flight.written(1, at(1));
        in_flight.written(2, at(1));
        in_flight.acknowledged(1, at(15));
        assert_eq!(in_flight.deadline(limit), Some(at(35)));
        let [c] = tokens();
        in_flight.queued(c, at(50));
        in_flight.written(3, at(50));
        in_flight.acknowledged(3, at(55));
        assert_eq!(
            in_flight.deadline(limit),
            Some(at(61)),
            "one message that is never acknowledged ends the connection too"
        );
    }
}
