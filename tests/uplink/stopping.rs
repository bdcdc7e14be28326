//! The stop of the uplink.

use super::*;

#[tokio::test]
async fn a_stop_delivers_messages_then_the_notice_stopped_and_then_disconnects() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let fixture = TestUplink::new(&broker.url());
    fixture.online().await;
    fixture.infer(0..500);
    let topics = fixture.topics.clone();
    assert_eq!(fixture.stop().await, 0);
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
async fn a_stop_right_after_the_start_delivers_messages() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let fixture = TestUplink::new(&broker.url());
    fixture.infer(0..10);
    let topics = fixture.topics.clone();
    assert_eq!(fixture.stop().await, 0);
    assert_eq!(broker.published(&topics.inference_output), numbers(0..10));
}

#[tokio::test]
async fn a_stop_returns_in_time_if_the_broker_hangs_or_is_missing() {
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
        let fixture = TestUplink::with(settings);
        fixture.infer(0..20);
        broker.wait_for("CONNECT", LIMIT, |log| !log.is_empty()).await;
        let notice = Message::notice(&fixture.topics, Status::Stopped, Qos::AtLeastOnce);
        let begun = Instant::now();
        let report = fixture.uplink.stop(Some(notice), Duration::from_millis(800)).await;
        assert!(
            begun.elapsed() < Duration::from_millis(1200),
            "{behaviour:?}: {:?}",
            begun.elapsed()
        );
        assert_eq!(report.undelivered, 21, "{behaviour:?}");
    }
    let fixture = TestUplink::new(&format!("mqtt://127.0.0.1:{}", support::ports::free_port()));
    fixture.infer(0..3);
    fixture.offline().await;
    assert_eq!(fixture.stop().await, 4);
}

#[tokio::test]
async fn the_broker_sends_the_last_will_when_the_uplink_is_dropped() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let fixture = TestUplink::new(&broker.url());
    fixture.online().await;
    let output = fixture.topics.command_output.clone();
    drop(fixture);
    broker.wait_for_routed(&output, 1, LIMIT).await;
    assert_eq!(statuses(&broker.routed(&output)), ["offline"]);
}
