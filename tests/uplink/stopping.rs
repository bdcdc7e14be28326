//! The end, orderly and not.

use super::*;

#[tokio::test]
async fn an_orderly_stop_delivers_then_says_stopped_then_disconnects_without_a_last_will() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let bench = Bench::new(&broker.url());
    bench.online().await;
    bench.infer(0..500);
    let topics = bench.topics.clone();
    assert_eq!(bench.stop().await, 0);
    broker
        .wait_for("DISCONNECT", LIMIT, |log| {
            log.iter().any(|entry| entry.packet == Packet::Disconnect)
        })
        .await;
    assert_eq!(broker.published(&topics.inference_output), numbers(0..500));
    assert_eq!(
        statuses(&broker.routed(&topics.command_output)),
        ["stopped"],
        "and no offline"
    );
    let log = broker.log();
    let last = log
        .iter()
        .rev()
        .filter_map(Entry::published)
        .next()
        .expect("a publication");
    assert_eq!(last.topic, topics.command_output, "the notice is the last word");
}

#[tokio::test]
async fn a_stop_right_after_the_start_still_delivers() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let bench = Bench::new(&broker.url());
    bench.infer(0..10);
    let topics = bench.topics.clone();
    assert_eq!(bench.stop().await, 0);
    assert_eq!(broker.published(&topics.inference_output), numbers(0..10));
}

#[tokio::test]
async fn a_stop_returns_in_time_from_a_broker_that_hangs_or_is_not_there() {
    let stalled = Behaviour {
        acks: Acks::Stall,
        ..Behaviour::default()
    };
    let silent = Behaviour {
        on_connect: OnConnect::Silent,
        ..Behaviour::default()
    };
    for behaviour in [stalled, silent] {
        let broker = MockBroker::start(behaviour.clone()).await;
        let mut settings = settings(&broker.url());
        settings.limits.acknowledgement = Duration::from_secs(20);
        settings.limits.connect = Duration::from_secs(10);
        let bench = Bench::with(settings);
        bench.infer(0..20);
        broker.wait_for("CONNECT", LIMIT, |log| !log.is_empty()).await;
        let notice = Message::notice(&bench.topics, Status::Stopped, Qos::AtLeastOnce);
        let begun = Instant::now();
        let report = bench.uplink.stop(Some(notice), Duration::from_millis(800)).await;
        assert!(
            begun.elapsed() < Duration::from_millis(1200),
            "{behaviour:?}: {:?}",
            begun.elapsed()
        );
        assert_eq!(report.undelivered, 21, "{behaviour:?}");
    }
    let bench = Bench::new(&format!("mqtt://127.0.0.1:{}", support::ports::free_port()));
    bench.infer(0..3);
    bench.offline().await;
    assert_eq!(bench.stop().await, 4);
}

#[tokio::test]
async fn an_uplink_that_is_dropped_leaves_its_last_will() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let bench = Bench::new(&broker.url());
    bench.online().await;
    let output = bench.topics.command_output.clone();
    drop(bench);
    broker.wait_for_routed(&output, 1, LIMIT).await;
    assert_eq!(statuses(&broker.routed(&output)), ["offline"]);
}
