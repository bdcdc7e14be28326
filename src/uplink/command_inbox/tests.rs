use std::sync::Arc;

use super::*;
use crate::config::Qos;
use crate::device::Topics;
use crate::status::stats::Stats;
use crate::uplink::message::Message;
use crate::uplink::outbox::{Outbox, OutboxBounds};

struct Bench {
    inbox: CommandInbox,
    outbox: Outbox,
    now: Instant,
    clearings: usize,
}

impl Bench {
    fn new() -> Self {
        Self {
            inbox: CommandInbox::new(Duration::from_secs(10)),
            outbox: Outbox::new(OutboxBounds::default(), Arc::new(Stats::default())),
            now: Instant::now(),
            clearings: 0,
        }
    }

    fn arrives(&mut self, payload: &[u8], repeated: bool) -> CommandReceipt {
        self.inbox.arrived(Arrival { payload, repeated }, self.now, || {
            self.clearings += 1;
            self.outbox
                .push(Message::inference(&Topics::new("d"), "", Qos::AtLeastOnce))
        })
    }

    fn sends(&mut self) -> Option<Token> {
        let (token, _) = self.outbox.next_to_send()?;
        self.inbox.left(token);
        Some(token)
    }

    fn acknowledges(&mut self, token: Token) -> Vec<Bytes> {
        let commands = self.inbox.acknowledged(token, self.now);
        commands.into_iter().map(|command| command.payload).collect()
    }

    fn passes(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

#[test]
fn a_command_is_passed_on_only_after_its_clearing_was_acknowledged() {
    let mut bench = Bench::new();
    assert_eq!(bench.arrives(b"restart", true), CommandReceipt::Taken);
    let token = bench.sends().expect("a clearing");
    assert_eq!(bench.inbox.pending(), 1);
    assert_eq!(bench.acknowledges(token), ["restart"]);
    assert!(bench.acknowledges(token).is_empty(), "once");
}

#[test]
fn our_own_clearing_that_comes_back_is_ignored() {
    let mut bench = Bench::new();
    assert_eq!(bench.arrives(b"", false), CommandReceipt::Empty);
    assert_eq!(bench.clearings, 0);
}

#[test]
fn acknowledgements_out_of_order_do_not_reorder_commands() {
    let mut bench = Bench::new();
    bench.arrives(b"first", false);
    let first = bench.sends().expect("a clearing");
    bench.arrives(b"second", false);
    let second = bench.sends().expect("a clearing");
    assert!(bench.acknowledges(second).is_empty());
    assert_eq!(bench.acknowledges(first), ["first", "second"]);
}

#[test]
fn the_same_payload_twice_without_flags_is_two_commands() {
    let mut bench = Bench::new();
    assert_eq!(bench.arrives(b"reset", false), CommandReceipt::Taken);
    assert_eq!(bench.arrives(b"reset", false), CommandReceipt::Taken);
    let token = bench.sends().expect("a clearing");
    assert_eq!(bench.acknowledges(token), ["reset", "reset"]);
}

#[test]
fn flagged_again_within_ten_seconds_it_is_the_same_command_and_cleared_again() {
    let mut bench = Bench::new();
    bench.arrives(b"reset", false);
    let token = bench.sends().expect("a clearing");
    bench.acknowledges(token);
    bench.passes(9);
    assert_eq!(bench.arrives(b"reset", true), CommandReceipt::Same);
    let token = bench.sends().expect("a second clearing");
    assert!(bench.acknowledges(token).is_empty());
    bench.passes(1);
    assert_eq!(
        bench.arrives(b"reset", true),
        CommandReceipt::Taken,
        "after ten seconds it is a new one"
    );
}

#[test]
fn a_command_that_waits_for_the_connection_is_the_same_however_late_it_comes_again() {
    let mut bench = Bench::new();
    bench.arrives(b"restart", false);
    let token = bench.sends().expect("a clearing");
    bench.passes(3600);
    assert_eq!(bench.arrives(b"restart", true), CommandReceipt::Same);
    assert_eq!(bench.acknowledges(token), ["restart"]);
}

#[test]
fn a_large_command_and_one_too_many_are_refused_and_cleared() {
    let mut bench = Bench::new();
    let large = vec![b'x'; MAX_COMMAND_BYTES + 1];
    assert_eq!(
        bench.arrives(&large, false),
        CommandReceipt::Refused(CommandRefusal::TooLarge(65537))
    );
    assert_eq!(bench.clearings, 1);
    for _ in 0..MAX_PENDING {
        assert_eq!(bench.arrives(b"reset", false), CommandReceipt::Taken);
    }
    assert_eq!(
        bench.arrives(b"reset", false),
        CommandReceipt::Refused(CommandRefusal::Busy)
    );
    assert_eq!(bench.clearings, 1, "one clearing that has not left does for all");
}
