//! Brokers that refuse, hang, or send invalid packets.

use super::*;

#[tokio::test]
async fn repeated_and_unknown_acknowledgements_end_the_connection_and_lose_no_message() {
    for acks in [Acks::Twice, Acks::Invented] {
        let broker = MockBroker::start(Behaviour {
            acks,
            ..Behaviour::default()
        })
        .await;
        let fixture = TestUplink::new(&broker.url());
        fixture.infer(0..40);
        assert!(
            matches!(fixture.offline().await, ConnectionError::Protocol(_)),
            "{acks:?}"
        );
        broker.behave(|behaviour| behaviour.acks = Acks::Normal);
        fixture.drained().await;
        assert_eq!(
            firsts(&broker.published(&fixture.topics.inference_output)),
            numbers(0..40),
            "{acks:?}"
        );
        let seen = broker.published(&fixture.topics.inference_output);
        assert_eq!(
            seen.iter().filter(|payload| *payload == "0").count(),
            1,
            "its acknowledgement counted: {acks:?}"
        );
    }
}

#[tokio::test]
async fn unexpected_packets_only_end_the_connection() {
    use rumqttc::mqttbytes::v4::{ConnAck, PubAck, PubComp, PubRec, PubRel, SubAck, SubscribeReasonCode};
    let broker = MockBroker::start(Behaviour::default()).await;
    let fixture = TestUplink::new(&broker.url());
    let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
    for packet in [
        Packet::PubAck(PubAck::new(1)),
        Packet::PubAck(PubAck::new(0)),
        Packet::PubRec(PubRec::new(65_535)),
        Packet::PubRel(PubRel::new(3)),
        Packet::PubComp(PubComp::new(0)),
        Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, true)),
        Packet::PingReq,
        Packet::Disconnect,
        Packet::SubAck(SubAck::new(77, vec![granted])),
    ] {
        fixture.online().await;
        broker.send(&packet);
        fixture.infer(0..1);
        fixture.drained().await;
    }
}

#[tokio::test]
async fn messages_are_sent_again_after_a_broker_acknowledged_none() {
    let broker = MockBroker::start(Behaviour {
        acks: Acks::Stall,
        ..Behaviour::default()
    })
    .await;
    let fixture = TestUplink::hasty(&broker.url());
    fixture.infer(0..30);
    assert!(matches!(fixture.offline().await, ConnectionError::NoAcknowledgement(_)));
    broker.behave(|behaviour| behaviour.acks = Acks::Normal);
    fixture.drained().await;
    let published = broker.published(&fixture.topics.inference_output);
    assert_eq!(firsts(&published), numbers(0..30));
    assert!(published.iter().filter(|payload| *payload == "0").count() >= 2);
    assert!(
        !published[..16].contains(&"16".to_owned()),
        "at most sixteen wait for acknowledgement"
    );
}

#[tokio::test]
async fn a_broker_that_stops_reading_does_not_hang_the_uplink() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let fixture = TestUplink::hasty(&broker.url());
    fixture.online().await;
    broker.behave(|behaviour| behaviour.stop_reading = true);
    // More than the size of the socket buffers, so that a write blocks.
    for _ in 0..30 {
        let message = Message::inference(&fixture.topics, vec![b'x'; 128 * 1024], Qos::AtLeastOnce);
        fixture.outbox.push(message);
    }
    fixture.offline().await;
    broker.behave(|behaviour| behaviour.stop_reading = false);
    fixture.drained().await;
    assert_eq!(fixture.stats.delivered.get(), 30);
}

#[tokio::test]
async fn a_connection_attempt_ends_if_the_broker_sends_nothing() {
    let broker = MockBroker::start(Behaviour {
        on_connect: OnConnect::Silent,
        ..Behaviour::default()
    })
    .await;
    let fixture = TestUplink::hasty(&broker.url());
    assert!(matches!(fixture.offline().await, ConnectionError::Silent(_)));
    broker.behave(|behaviour| behaviour.on_connect = OnConnect::Accept);
    broker.behave(|behaviour| behaviour.stall_suback = true);
    fixture
        .state(|state| {
            matches!(
                state,
                LinkState::Offline {
                    reason: ConnectionError::NoAcknowledgement(_),
                    ..
                }
            )
        })
        .await;
    assert!(broker.published(&fixture.topics.inference_output).is_empty());
    broker.behave(|behaviour| behaviour.stall_suback = false);
    fixture.online().await;
}

#[tokio::test]
async fn refusals_are_explained() {
    for (code, words) in [
        (ConnectReturnCode::BadUserNamePassword, "user name or password"),
        (ConnectReturnCode::NotAuthorized, "authorise"),
        (ConnectReturnCode::BadClientId, "\"cam\""),
        (ConnectReturnCode::ServiceUnavailable, "unavailable"),
    ] {
        let broker = MockBroker::start(Behaviour {
            on_connect: OnConnect::Refuse(code),
            ..Behaviour::default()
        })
        .await;
        let reason = TestUplink::new(&broker.url()).offline().await.to_string();
        assert!(reason.contains(words), "{reason}");
    }
    let broker = MockBroker::start(Behaviour {
        refuse_subscription: true,
        ..Behaviour::default()
    })
    .await;
    let reason = TestUplink::new(&broker.url()).offline().await.to_string();
    assert!(
        reason.contains("subscribe to /edgeimpulse/device/cam/command/input"),
        "{reason}"
    );
    let nobody = format!("mqtt://127.0.0.1:{}", support::ports::free_port());
    assert_eq!(TestUplink::new(&nobody).offline().await, ConnectionError::Refused);
    let reason = TestUplink::new("mqtt://no-such-host.invalid").offline().await;
    assert!(matches!(reason, ConnectionError::Dns(_)), "{reason}");
}

/// The error once the broker has closed several connections early.
async fn repeatedly_closed(fixture: &TestUplink) -> String {
    let state = fixture
        .state(|state| {
            matches!(
                state,
                LinkState::Offline {
                    reason: ConnectionError::RepeatedlyClosed { .. },
                    ..
                }
            )
        })
        .await;
    let LinkState::Offline { reason, .. } = state else {
        panic!("{state:?}")
    };
    reason.to_string()
}

/// The error after some connections that the broker closes at packet `number`; CONNECT is packet 1.
async fn closed_at_packet(number: usize) -> String {
    let broker = MockBroker::start(Behaviour {
        drop_after: Some(number),
        ..Behaviour::default()
    })
    .await;
    let fixture = TestUplink::new(&broker.url());
    fixture.infer(0..1);
    repeatedly_closed(&fixture).await
}

#[tokio::test]
async fn a_connection_closed_on_subscribe_has_another_error_than_one_closed_on_publish() {
    let topic = "/edgeimpulse/device/cam/command/input";
    let subscribe = closed_at_packet(2).await;
    assert!(
        subscribe.contains(&format!("iot:Subscribe on topicfilter/{topic}")),
        "{subscribe}"
    );
    assert!(!subscribe.contains("iot:Publish"), "{subscribe}");
    let publish = closed_at_packet(3).await;
    assert!(publish.contains("iot:Publish"), "{publish}");
    assert!(!publish.contains("iot:Subscribe"), "{publish}");
}

#[tokio::test]
async fn the_error_of_an_ad_hoc_client_closed_on_subscribe_contains_the_permission() {
    let broker = MockBroker::start(Behaviour {
        drop_after: Some(2),
        ..Behaviour::default()
    })
    .await;
    let mut client = uplink::AdHocClient::connect(&settings(&broker.url())).await.unwrap();
    let error = client.subscribe(&["some/topic"]).await.unwrap_err().to_string();
    assert!(error.contains("iot:Subscribe on topicfilter/some/topic"), "{error}");
}

#[tokio::test]
async fn the_error_after_three_early_closes_contains_the_client_id() {
    let broker = MockBroker::start(Behaviour {
        on_connect: OnConnect::AcceptAndClose,
        ..Behaviour::default()
    })
    .await;
    let fixture = TestUplink::new(&broker.url());
    let reason = repeatedly_closed(&fixture).await;
    assert!(
        reason.contains("another client may be using the client id \"cam\""),
        "{reason}"
    );
    assert_eq!(broker.connects().len(), 3);
}
