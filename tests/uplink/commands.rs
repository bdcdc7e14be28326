//! Received commands: cleared first, then passed on, once and in order.

use super::*;

#[tokio::test]
async fn a_command_is_passed_on_after_the_broker_acknowledged_its_clearing() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let input = Topics::new("cam").command_input;
    broker.publish(&input, r#"{"cmd":"restart"}"#, true, false, QoS::AtLeastOnce);
    let mut fixture = TestUplink::new(&broker.url());
    assert_eq!(fixture.command().await, r#"{"cmd":"restart"}"#);
    assert_eq!(broker.retained(&input), None);
    let log = broker.log();
    let clear = position(&log, "clearing", |entry| {
        entry.published().is_some_and(|publish| publish.retain)
    });
    let publish = log[clear].published().expect("the clearing");
    assert_eq!(
        (publish.topic.as_str(), publish.qos, publish.payload.len()),
        (input.as_str(), QoS::AtLeastOnce, 0)
    );
    assert!(
        log[clear..]
            .iter()
            .any(|entry| matches!(entry.packet, Packet::PubAck(_)) && entry.way == Way::ToClient)
    );
    // The broker delivers the clearing to us. It is empty and not a command.
    fixture.infer(0..1);
    fixture.drained().await;
    assert!(fixture.commands.try_recv().is_err());
}

#[tokio::test]
async fn a_command_whose_clearing_is_not_acknowledged_waits_for_the_reconnect_and_runs_once() {
    let broker = MockBroker::start(Behaviour {
        drop_on_clear: true,
        ..Behaviour::default()
    })
    .await;
    let input = Topics::new("cam").command_input;
    let mut fixture = TestUplink::new(&broker.url());
    fixture.online().await;
    broker.publish(&input, "restart", true, false, QoS::AtLeastOnce);
    broker
        .wait_for("two connections dropped", LIMIT, |log| {
            log.last().is_some_and(|entry| entry.connection >= 3)
        })
        .await;
    assert!(fixture.commands.try_recv().is_err(), "not acknowledged, not handed on");
    broker.behave(|behaviour| behaviour.drop_on_clear = false);
    assert_eq!(fixture.command().await, "restart");
    assert_eq!(broker.retained(&input), None);
    fixture.infer(0..1);
    fixture.drained().await;
    assert!(fixture.commands.try_recv().is_err(), "once");
}

#[tokio::test]
async fn two_commands_run_in_order_even_with_the_same_payload() {
    let broker = MockBroker::start(Behaviour {
        acks: Acks::Reversed(2),
        ..Behaviour::default()
    })
    .await;
    let mut fixture = TestUplink::new(&broker.url());
    fixture.online().await;
    let input = fixture.topics.command_input.clone();
    broker.publish(&input, "reset", false, false, QoS::AtLeastOnce);
    tokio::time::sleep(Duration::from_millis(100)).await;
    broker.publish(&input, "reset", false, false, QoS::AtLeastOnce);
    broker.publish(&input, "info", true, false, QoS::AtLeastOnce);
    assert_eq!(
        [
            fixture.command().await,
            fixture.command().await,
            fixture.command().await
        ],
        ["reset", "reset", "info"]
    );
    assert_eq!(broker.retained(&input), None);
}

#[tokio::test]
async fn the_same_payload_flagged_dup_is_the_same_command_and_cleared_again() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let mut fixture = TestUplink::new(&broker.url());
    fixture.online().await;
    let input = fixture.topics.command_input.clone();
    broker.publish(&input, "reset", false, false, QoS::AtLeastOnce);
    assert_eq!(fixture.command().await, "reset");
    broker.publish(&input, "reset", false, true, QoS::AtLeastOnce);
    let clearings = |log: &[Entry]| payloads(log, &input).len();
    broker
        .wait_for("a second clearing", LIMIT, |log| clearings(log) == 2)
        .await;
    broker.publish(&input, "other", false, false, QoS::AtLeastOnce);
    assert_eq!(fixture.command().await, "other");
}

#[tokio::test]
async fn commands_that_are_too_large_or_too_many_are_refused_with_an_answer() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let mut fixture = TestUplink::new(&broker.url());
    fixture.online().await;
    let (input, output) = (
        fixture.topics.command_input.clone(),
        fixture.topics.command_output.clone(),
    );
    broker.publish(&input, vec![b' '; 65_537], true, false, QoS::AtLeastOnce);
    broker.wait_for_routed(&output, 1, LIMIT).await;
    assert!(broker.routed(&output)[0].contains("65537 bytes"));
    assert_eq!(broker.retained(&input), None, "cleared all the same");
    // These are not executed: the queue fills, and later commands are refused.
    for number in 0..100 {
        broker.publish(&input, number.to_string(), false, false, QoS::AtLeastOnce);
    }
    broker.wait_for_routed(&output, 37, LIMIT).await;
    fixture.drained().await;
    assert_eq!(errors(&broker.routed(&output)), 37);
    for number in 0..64 {
        assert_eq!(fixture.command().await, number.to_string());
    }
}

#[tokio::test]
async fn a_message_too_large_to_be_read_is_removed_and_the_uplink_recovers() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let fixture = TestUplink::new(&broker.url());
    fixture.online().await;
    broker.publish(
        &fixture.topics.command_input,
        vec![b'x'; 5 << 20],
        true,
        false,
        QoS::AtLeastOnce,
    );
    broker
        .wait_for("a clean session", LIMIT, |log| {
            log.iter()
                .any(|entry| matches!(&entry.packet, Packet::Connect(connect) if connect.clean_session))
        })
        .await;
    fixture.infer(0..5);
    fixture.drained().await;
    assert_eq!(broker.retained(&fixture.topics.command_input), None);
    assert_eq!(
        firsts(&broker.published(&fixture.topics.inference_output)),
        numbers(0..5)
    );
    let connects = broker.connects();
    assert_eq!(
        connects.iter().map(|connect| connect.clean_session).collect::<Vec<_>>(),
        [false, true, false]
    );
    assert_eq!(errors(&broker.published(&fixture.topics.command_output)), 1);
}

#[tokio::test]
async fn commands_are_refused_when_the_receiver_is_dropped() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let TestUplink {
        topics,
        uplink,
        commands,
        ..
    } = TestUplink::new(&broker.url());
    drop(commands);
    let mut state = uplink.state();
    let online = state.wait_for(|state| matches!(state, LinkState::Online { .. }));
    timeout(LIMIT, online)
        .await
        .expect("online in time")
        .expect("the driver runs");
    broker.publish(&topics.command_input, "restart", true, false, QoS::AtLeastOnce);
    broker.wait_for_routed(&topics.command_output, 1, LIMIT).await;
    assert!(broker.routed(&topics.command_output)[0].contains("stopping"));
    assert_eq!(broker.retained(&topics.command_input), None);
}
