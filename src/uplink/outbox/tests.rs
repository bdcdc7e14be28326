use crate::uplink::message::Status;
use proptest::prelude::*;

use super::*;
use crate::config::Qos;
use crate::device::Topics;
use std::time::Duration;

fn outbox(bounds: OutboxBounds) -> (Outbox, Arc<Stats>) {
    let stats = Arc::new(Stats::default());
    (Outbox::new(bounds, Arc::clone(&stats)), stats)
}

fn inference(number: u32, size: usize) -> Message {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(size.max(4), 0);
    Message::inference(&Topics::new("d"), payload, Qos::AtLeastOnce)
}

fn number(message: &Message) -> u32 {
    message
        .payload
        .first_chunk()
        .map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn metrics(text: &'static str) -> Message {
    Message::metrics(&Topics::new("d"), text, Qos::AtLeastOnce)
}

fn urgent(text: &'static str) -> Message {
    Message {
        class: Class::Urgent,
        ..metrics(text)
    }
}

fn sent(outbox: &Outbox) -> Vec<Message> {
    std::iter::from_fn(|| outbox.next_to_send())
        .map(|(_, message)| message)
        .collect()
}

#[test]
fn answers_and_metrics_are_sent_before_inferences() {
    let (outbox, _) = outbox(OutboxBounds::default());
    for message in [
        inference(1, 4),
        inference(2, 4),
        metrics("m1"),
        urgent("a"),
        metrics("m2"),
        urgent("b"),
    ] {
        outbox.push(message);
    }
    assert_eq!(
        sent(&outbox),
        [
            urgent("a"),
            urgent("b"),
            metrics("m2"),
            inference(1, 4),
            inference(2, 4)
        ]
    );
}

#[test]
fn sixteen_inferences_are_in_flight_at_most_and_answers_are_still_sent() {
    let (outbox, stats) = outbox(OutboxBounds::default());
    let tokens: Vec<_> = (0..20).map(|n| outbox.push(inference(n, 4))).collect();
    assert_eq!(sent(&outbox).len(), 16);
    outbox.push(urgent("a"));
    assert_eq!(sent(&outbox), [urgent("a")]);
    assert!(outbox.acked(tokens[7]));
    assert!(!outbox.acked(tokens[7]), "an acknowledgement counts once");
    assert!(
        !outbox.acked(tokens[19]),
        "a message that was not sent cannot be acknowledged"
    );
    assert_eq!(sent(&outbox), [inference(16, 4)]);
    assert_eq!(stats.delivered.get(), 1);
}

#[test]
fn only_the_newest_metrics_message_survives_a_disconnect() {
    let (outbox, _) = outbox(OutboxBounds::default());
    outbox.push(metrics("m1"));
    assert_eq!(sent(&outbox), [metrics("m1")]);
    outbox.push(metrics("m2"));
    outbox.connection_lost();
    assert_eq!(sent(&outbox), [metrics("m2")]);
    outbox.connection_lost();
    assert_eq!(sent(&outbox), [metrics("m2")]);
    assert_eq!((outbox.depth(), outbox.bytes()), (1, 2));
}

#[test]
fn the_oldest_inferences_are_dropped_and_counted_when_memory_is_full() {
    let (outbox, stats) = outbox(OutboxBounds::default());
    for n in 0..50 {
        outbox.push(inference(n, 100 * 1024));
    }
    assert_eq!(stats.outbox_dropped.get(), 10);
    assert!(outbox.bytes() <= 4 << 20);
    assert_eq!(outbox.next_to_send().map(|(_, message)| number(&message)), Some(10));
}

#[test]
fn many_answers_are_bounded_and_the_clearing_of_commands_is_kept() {
    let (outbox, stats) = outbox(OutboxBounds {
        urgent_messages: 3,
        ..OutboxBounds::default()
    });
    let clear = Message::clear_retained_command(&Topics::new("d"));
    outbox.push(clear.clone());
    for text in ["a", "b", "c", "d"] {
        outbox.push(urgent(text));
    }
    assert_eq!(sent(&outbox), [clear, urgent("c"), urgent("d")]);
    assert_eq!(stats.outbox_dropped.get(), 0, "answers are not counted as inferences");
}

#[test]
fn a_message_too_large_for_any_connection_is_not_kept() {
    let (outbox, stats) = outbox(OutboxBounds::default());
    outbox.push(inference(1, MAX_PAYLOAD_BYTES + 1));
    assert_eq!((outbox.depth(), stats.outbox_dropped.get()), (0, 1));
    outbox.push(inference(2, MAX_PAYLOAD_BYTES));
    assert_eq!((outbox.depth(), stats.outbox_dropped.get()), (1, 1));
}

#[test]
fn a_message_is_only_in_memory_until_it_is_delivered() {
    let (outbox, _) = outbox(OutboxBounds::default());
    let token = outbox.push(inference(1, 4));
    let state = || (outbox.is_only_in_memory(token), outbox.undelivered().in_memory);
    assert_eq!(state(), (true, 1));
    outbox.next_to_send().expect("a message");
    assert_eq!(state(), (true, 1), "in flight");
    outbox.acked(token);
    assert_eq!(state(), (false, 0));
}

#[tokio::test]
async fn a_push_before_the_wait_still_wakes_the_driver() {
    let (outbox, _) = outbox(OutboxBounds::default());
    outbox.push(urgent("a"));
    tokio::time::timeout(Duration::from_secs(5), outbox.pushed())
        .await
        .expect("woken");
}

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Send,
    /// Acknowledges one of those in flight.
    Ack(prop::sample::Index),
    Disconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (4_usize..60).prop_map(Step::Push),
        4 => Just(Step::Send),
        3 => any::<prop::sample::Index>().prop_map(Step::Ack),
        1 => Just(Step::Disconnect),
    ];
    prop::collection::vec(step, 0..300)
}

proptest! {
    /// The model: a plain list of what was pushed, with the same dropping rule, and the list of what a broker received.
    #[test]
    fn nothing_is_lost_within_the_bound_and_the_order_is_kept(steps in steps(), bound in 100_usize..2000) {
        let bounds = OutboxBounds { inference_bytes: bound, inference_window: 5, ..OutboxBounds::default() };
        let (outbox, stats) = outbox(bounds);
        let mut pushed = 0_u32;
        let mut in_flight: Vec<(Token, u32)> = Vec::new();
        let mut received: Vec<u32> = Vec::new();
        let mut acknowledged: Vec<u32> = Vec::new();
        // Highest number received since the last disconnect: within one connection numbers only rise.
        let mut last: Option<u32> = None;
        let mut disconnects = 0;
        let drain = std::iter::repeat_n([Step::Send, Step::Ack(any_index())], 400).flatten();
        for step in steps.into_iter().chain(drain) {
            match step {
                Step::Push(size) => {
                    outbox.push(inference(pushed, size));
                    pushed += 1;
                }
                Step::Send => {
                    if let Some((token, message)) = outbox.next_to_send() {
                        let number = number(&message);
                        prop_assert!(last.is_none_or(|last| number > last), "{number} after {last:?}");
                        prop_assert!(!acknowledged.contains(&number), "{number} sent again after its acknowledgement");
                        if received.contains(&number) {
                            prop_assert!(disconnects > 0, "{number} twice without a disconnect");
                        }
                        last = Some(number);
                        received.push(number);
                        in_flight.push((token, number));
                        prop_assert!(in_flight.len() <= 5);
                    }
                }
                Step::Ack(index) => {
                    if !in_flight.is_empty() {
                        let (token, number) = in_flight.remove(index.index(in_flight.len()));
                        prop_assert!(outbox.acked(token));
                        acknowledged.push(number);
                    }
                }
                Step::Disconnect => {
                    outbox.connection_lost();
                    in_flight.clear();
                    last = None;
                    disconnects += 1;
                }
            }
            let in_flight_bytes = 5 * 60;
            prop_assert!(outbox.bytes() <= bound.max(in_flight_bytes + 60));
        }
        prop_assert_eq!(outbox.depth(), 0);
        prop_assert_eq!(outbox.bytes(), 0);
        acknowledged.sort_unstable();
        acknowledged.dedup();
        prop_assert_eq!(acknowledged.len() as u64 + stats.outbox_dropped.get(), u64::from(pushed));
        prop_assert_eq!(stats.delivered.get(), acknowledged.len() as u64);
        // First deliveries come in order.
        let mut firsts: Vec<u32> = Vec::new();
        for number in received {
            if !firsts.contains(&number) {
                firsts.push(number);
            }
        }
        prop_assert!(firsts.is_sorted());
    }
}

/// The index of the first element, whatever the length.
fn any_index() -> prop::sample::Index {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    any::<prop::sample::Index>()
        .new_tree(&mut runner)
        .map(|tree| tree.current())
        .expect("an index")
}

fn notice(status: Status) -> Message {
    Message::notice(&Topics::new("d"), status, Qos::AtLeastOnce)
}

#[test]
fn a_waiting_paused_notice_is_dropped_when_started_or_stopped_follows() {
    for status in [Status::Started, Status::Stopped] {
        let (outbox, _) = outbox(OutboxBounds::default());
        outbox.push(inference(1, 4));
        outbox.push(notice(Status::Paused));
        let after = notice(status);
        outbox.push(after.clone());
        let first_sent = outbox.next_to_send().unwrap();
        assert_eq!(first_sent.1, after);
        let (first, _) = outbox.next_to_send().unwrap();
        outbox.acked(first_sent.0);
        outbox.acked(first);
        assert!(
            outbox.next_to_send().is_none(),
            "{status:?}: the paused notice was withdrawn"
        );
        assert_eq!((outbox.depth(), outbox.bytes()), (0, 0));
    }
}

#[test]
fn a_paused_notice_that_was_sent_stays_before_started() {
    let (outbox, _) = outbox(OutboxBounds::default());
    let (pause, started) = (notice(Status::Paused), notice(Status::Started));
    outbox.push(pause.clone());
    outbox.next_to_send().unwrap();
    outbox.push(started.clone());
    outbox.connection_lost();
    outbox.connected();
    assert_eq!(outbox.next_to_send().unwrap().1, pause);
    assert_eq!(outbox.next_to_send().unwrap().1, started);
}

#[test]
fn inferences_pushed_before_a_reset_are_not_counted_as_delivered() {
    let (outbox, stats) = outbox(OutboxBounds::default());
    outbox.push(inference(1, 4));
    outbox.push(inference(2, 4));
    let before = [outbox.next_to_send().unwrap().0, outbox.next_to_send().unwrap().0];
    outbox.acked(before[0]);
    outbox.reset_delivered_count();
    stats.reset();
    outbox.acked(before[1]);
    assert_eq!(stats.delivered.get(), 0);
    outbox.push(inference(3, 4));
    outbox.acked(outbox.next_to_send().unwrap().0);
    assert_eq!(stats.delivered.get(), 1);
}

#[test]
fn a_paused_notice_waits_until_the_broker_has_all_earlier_inferences() {
    let (outbox, _) = outbox(OutboxBounds::default());
    let pause = notice(Status::Paused);
    outbox.push(inference(1, 4));
    outbox.push(pause.clone());
    outbox.push(urgent("answer"));
    assert_eq!(outbox.next_to_send().unwrap().1, urgent("answer"));
    let (first, message) = outbox.next_to_send().unwrap();
    assert_eq!(message, inference(1, 4));
    assert!(
        outbox.next_to_send().is_none(),
        "the inference may have to be sent again"
    );
    // The notice does not wait for a later inference.
    outbox.push(inference(2, 4));
    outbox.acked(first);
    assert_eq!(sent(&outbox), [pause, inference(2, 4)]);
}

#[test]
fn a_message_that_is_written_after_newer_ones_were_read_is_read_and_sent_before_them() {
    const SIZE: usize = 1000;
    let bounds = OutboxBounds {
        inference_bytes: 400 * SIZE,
        ..OutboxBounds::default()
    };
    let mut inferences = Inferences::new(Instant::now());
    let mut disk = std::collections::BTreeMap::new();
    // Does the next job as the spool would.
    let mut work = |inferences: &mut Inferences| {
        let job = inferences.take_job(&bounds, Instant::now());
        job.delete.iter().for_each(|token| drop(disk.remove(token)));
        disk.extend(job.write);
        let loaded = job.load.map(|load| {
            let mut rest = disk
                .range(load.from..)
                .map(|(token, message)| (*token, message.clone()));
            LoadedMessages {
                messages: rest.by_ref().take(load.messages).collect(),
                next: rest.next().map(|(token, _)| token),
            }
        });
        let held = disk.len() as u64;
        inferences.finish(SpoolResult {
            loaded,
            held,
            ..SpoolResult::default()
        });
    };
    inferences.attach(SpoolPolicy {
        grace: Duration::ZERO,
        group_interval: Duration::ZERO,
        ..SpoolPolicy::default()
    });
    inferences.opened(0);
    let push = |inferences: &mut Inferences, number: u32| {
        inferences.put(Token(number.into()), inference(number, SIZE), Instant::now());
    };
    // Messages 0 to 9 are in flight while the newer ones are written, because the memory is nearly full.
    inferences.connected();
    (0..10).for_each(|number| push(&mut inferences, number));
    for _ in 0..10 {
        inferences.send(Instant::now()).unwrap();
    }
    (10..320).for_each(|number| push(&mut inferences, number));
    work(&mut inferences);
    assert!(inferences.on_disk() >= 64, "as many as are read ahead");
    // They wait in memory after the connection is lost. The next connection reads the newer ones, and then more messages come.
    inferences.connection_lost(Instant::now());
    inferences.connected();
    work(&mut inferences);
    (320..400).for_each(|number| push(&mut inferences, number));
    let mut delivered = Vec::new();
    for _ in 0..1000 {
        work(&mut inferences);
        while inferences.next(16, Instant::now()).is_some() {
            let (token, message) = inferences.send(Instant::now()).unwrap();
            delivered.push(number(&message));
            inferences.acked(token, Instant::now());
        }
    }
    assert_eq!(delivered, Vec::from_iter(0..400));
}
