use std::sync::Arc;

use rumqttc::QoS;

use super::*;
use crate::config::Qos;
use crate::device::Topics;
use crate::status::stats::Stats;
use crate::uplink::message::Message;
use crate::uplink::outbox::{Outbox, OutboxBounds};

struct InboxFixture {
    inbox: CommandInbox,
    outbox: Outbox,
    now: Instant,
    clearings: usize,
    last_id: u16,
}

impl InboxFixture {
    fn new() -> Self {
        Self {
            inbox: CommandInbox::new(Duration::from_secs(10)),
            outbox: Outbox::new(OutboxBounds::default(), Arc::new(Stats::default())),
            now: Instant::now(),
            clearings: 0,
            last_id: 0,
        }
    }

    /// A message of its own, or one that may have come before.
    fn receive(&mut self, payload: &[u8], repeated: bool) -> AcceptOutcome {
        self.last_id += 1;
        self.receive_as(self.last_id, payload, repeated)
    }

    fn receive_as(&mut self, packet_id: u16, payload: &[u8], dup: bool) -> AcceptOutcome {
        self.receive_with(packet_id, payload, dup, false)
    }

    fn receive_with(&mut self, packet_id: u16, payload: &[u8], dup: bool, retain: bool) -> AcceptOutcome {
        let publish = Publish {
            pkid: packet_id,
            dup,
            retain,
            ..Publish::new("command/input", QoS::AtLeastOnce, payload)
        };
        self.inbox.accept(&publish, self.now, || {
            self.clearings += 1;
            self.outbox
                .push(Message::inference(&Topics::new("d"), "", Qos::AtLeastOnce))
        })
    }

    fn send(&mut self) -> Option<Token> {
        let (token, _) = self.outbox.next_to_send()?;
        self.inbox.sent(token);
        Some(token)
    }

    fn acknowledge(&mut self, token: Token) -> Vec<Bytes> {
        self.outbox.acked(token);
        let commands = self.inbox.acknowledged(token, self.now);
        commands.into_iter().map(|command| command.payload).collect()
    }

    fn advance(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

#[test]
fn a_command_is_passed_on_only_after_its_clearing_was_acknowledged() {
    let mut fixture = InboxFixture::new();
    assert_eq!(fixture.receive(b"restart", true), AcceptOutcome::Queued);
    let token = fixture.send().expect("a clearing");
    assert_eq!(fixture.inbox.pending(), 1);
    assert_eq!(fixture.acknowledge(token), ["restart"]);
    assert!(fixture.acknowledge(token).is_empty(), "once");
}

#[test]
fn our_own_clearing_is_ignored_when_the_broker_delivers_it() {
    let mut fixture = InboxFixture::new();
    assert_eq!(fixture.receive(b"", false), AcceptOutcome::Empty);
    assert_eq!(fixture.clearings, 0);
}

#[test]
fn acknowledgements_out_of_order_do_not_reorder_commands() {
    let mut fixture = InboxFixture::new();
    fixture.receive(b"first", false);
    let first = fixture.send().expect("a clearing");
    fixture.receive(b"second", false);
    let second = fixture.send().expect("a clearing");
    assert!(fixture.acknowledge(second).is_empty());
    assert_eq!(fixture.acknowledge(first), ["first", "second"]);
}

#[test]
fn the_same_payload_twice_without_flags_is_two_commands() {
    let mut fixture = InboxFixture::new();
    assert_eq!(fixture.receive(b"reset", false), AcceptOutcome::Queued);
    assert_eq!(fixture.receive(b"reset", false), AcceptOutcome::Queued);
    let token = fixture.send().expect("a clearing");
    assert_eq!(fixture.acknowledge(token), ["reset", "reset"]);
}

#[test]
fn a_repeated_delivery_within_ten_seconds_is_the_same_command_and_is_cleared_again() {
    let mut fixture = InboxFixture::new();
    fixture.receive(b"reset", false);
    let token = fixture.send().expect("a clearing");
    fixture.acknowledge(token);
    fixture.advance(9);
    assert_eq!(fixture.receive(b"reset", true), AcceptOutcome::Duplicate);
    let token = fixture.send().expect("a second clearing");
    assert!(fixture.acknowledge(token).is_empty());
    fixture.advance(1);
    assert_eq!(
        fixture.receive(b"reset", true),
        AcceptOutcome::Queued,
        "after ten seconds it is a new one"
    );
}

#[test]
fn a_repeated_delivery_of_a_waiting_command_is_the_same_command_at_any_time() {
    let mut fixture = InboxFixture::new();
    fixture.receive(b"restart", false);
    let token = fixture.send().expect("a clearing");
    fixture.advance(3600);
    assert_eq!(fixture.receive(b"restart", true), AcceptOutcome::Duplicate);
    assert_eq!(fixture.acknowledge(token), ["restart"]);
}

#[test]
fn a_large_command_and_one_for_a_full_inbox_are_refused_and_cleared() {
    let mut fixture = InboxFixture::new();
    let large = vec![b'x'; MAX_COMMAND_BYTES + 1];
    assert_eq!(
        fixture.receive(&large, false),
        AcceptOutcome::Refused(CommandRefusal::TooLarge(65537))
    );
    assert_eq!(fixture.clearings, 1);
    for _ in 0..MAX_PENDING {
        assert_eq!(fixture.receive(b"reset", false), AcceptOutcome::Queued);
    }
    assert_eq!(
        fixture.receive(b"reset", false),
        AcceptOutcome::Refused(CommandRefusal::Busy)
    );
    assert_eq!(
        fixture.clearings, 1,
        "one clearing that was not sent yet is enough for all"
    );
}

#[test]
fn a_command_whose_acknowledgement_may_be_lost_is_the_same_command_after_hours() {
    let mut fixture = InboxFixture::new();
    fixture.receive_as(7, b"restart", false);
    let token = fixture.send().expect("a clearing");
    // Delivered twice, and the acknowledgement of the second delivery is lost with the connection.
    assert_eq!(fixture.receive_as(8, b"restart", true), AcceptOutcome::Duplicate);
    assert_eq!(fixture.acknowledge(token), ["restart"]);
    fixture.inbox.connection_lost();
    let token = fixture.send().expect("a clearing");
    assert_eq!(fixture.acknowledge(token), [""; 0], "on the next connection");
    fixture.advance(24 * 3600);
    assert_eq!(fixture.receive_as(8, b"restart", true), AcceptOutcome::Duplicate);
    assert_eq!(fixture.receive_as(8, b"reset", true), AcceptOutcome::Queued);
    assert_eq!(
        fixture.receive_as(8, b"restart", false),
        AcceptOutcome::Queued,
        "the broker uses the identifier again"
    );
}

#[test]
fn a_command_that_was_lost_on_its_first_way_is_no_duplicate_of_an_acknowledged_one() {
    let mut fixture = InboxFixture::new();
    fixture.receive_as(1, b"restart", false);
    let token = fixture.send().expect("a clearing");
    assert_eq!(fixture.acknowledge(token), ["restart"]);
    fixture.inbox.connection_lost();
    fixture.advance(3600);
    assert_eq!(fixture.receive_as(1, b"restart", true), AcceptOutcome::Queued);
}

#[test]
fn the_retained_copy_that_an_earlier_connection_lost_is_the_same_command() {
    let mut fixture = InboxFixture::new();
    // The broker had the command for the session, and as its retained message for the subscription, which was lost on its way.
    fixture.receive_as(15, b"restart", false);
    let token = fixture.send().expect("a clearing");
    assert_eq!(fixture.acknowledge(token), ["restart"]);
    fixture.inbox.connection_lost();
    fixture.advance(3600);
    let copy = fixture.receive_with(16, b"restart", true, true);
    assert_eq!(copy, AcceptOutcome::Duplicate);
    let other = fixture.receive_with(17, b"reset", true, true);
    assert_eq!(other, AcceptOutcome::Queued, "it was lost the first time");
    let retained_now = fixture.receive_with(18, b"restart", false, true);
    assert_eq!(retained_now, AcceptOutcome::Queued);
}

#[test]
fn a_refused_command_that_the_broker_sends_again_is_accepted() {
    let mut fixture = InboxFixture::new();
    for _ in 0..MAX_PENDING {
        fixture.receive(b"reset", false);
    }
    let busy = AcceptOutcome::Refused(CommandRefusal::Busy);
    assert_eq!(fixture.receive_as(100, b"restart", false), busy);
    let token = fixture.send().expect("a clearing");
    fixture.acknowledge(token);
    assert_eq!(fixture.receive_as(100, b"restart", true), AcceptOutcome::Queued);
}

#[test]
fn the_memory_of_commands_is_bounded() {
    let mut fixture = InboxFixture::new();
    for number in 0..1000_u16 {
        fixture.receive(&number.to_be_bytes(), false);
        let token = fixture.send().expect("a clearing");
        fixture.inbox.connection_lost();
        fixture.acknowledge(token);
    }
    assert_eq!(
        (fixture.inbox.recent.len(), fixture.inbox.deliveries.len()),
        (MAX_PENDING, MAX_PENDING)
    );
}
