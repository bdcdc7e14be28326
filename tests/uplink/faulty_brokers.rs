//! Brokers that refuse, hang, or make no sense.

use super::*;

#[tokio::test]
async fn repeated_and_invented_acknowledgements_end_the_connection_and_lose_nothing() {
    for acks in [Acks::Twice, Acks::Invented] {
        let broker = MockBroker::start(Behaviour {
            acks,
            ..Behaviour::default()
        })
        .await;
        let bench = Bench::new(&broker.url());
        bench.infer(0..40);
        assert!(
            matches!(bench.offline().await, ConnectionError::Protocol(_)),
            "{acks:?}"
        );
        broker.behave(|behaviour| behaviour.acks = Acks::Normal);
        bench.drained().await;
        assert_eq!(
            firsts(&broker.published(&bench.topics.inference_output)),
            numbers(0..40),
            "{acks:?}"
        );
        let seen = broker.published(&bench.topics.inference_output);
        assert_eq!(
            seen.iter().filter(|payload| *payload == "0").count(),
            1,
            "its acknowledgement counted: {acks:?}"
        );
    }
}

#[tokio::test]
async fn packets_that_make_no_sense_end_the_connection_and_nothing_else() {
    use rumqttc::mqttbytes::v4::{ConnAck, PubAck, PubComp, PubRec, PubRel, SubAck, SubscribeReasonCode};
    let broker = MockBroker::start(Behaviour::default()).await;
    let bench = Bench::new(&broker.url());
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
        bench.online().await;
        broker.send(&packet);
        bench.infer(0..1);
        bench.drained().await;
    }
}

#[tokio::test]
async fn a_broker_that_never_acknowledges_is_left_and_gets_everything_again() {
    let broker = MockBroker::start(Behaviour {
        acks: Acks::Stall,
        ..Behaviour::default()
    })
    .await;
    let bench = Bench::hasty(&broker.url());
    bench.infer(0..30);
    assert!(matches!(bench.offline().await, ConnectionError::NoAcknowledgement(_)));
    broker.behave(|behaviour| behaviour.acks = Acks::Normal);
    bench.drained().await;
    let published = broker.published(&bench.topics.inference_output);
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
    let bench = Bench::hasty(&broker.url());
    bench.online().await;
    broker.behave(|behaviour| behaviour.stop_reading = true);
    // More than the socket buffers hold, so that a write blocks.
    for _ in 0..30 {
        let message = Message::inference(&bench.topics, vec![b'x'; 128 * 1024], Qos::AtLeastOnce);
        bench.outbox.push(message);
    }
    bench.offline().await;
    broker.behave(|behaviour| behaviour.stop_reading = false);
    bench.drained().await;
    assert_eq!(bench.stats.delivered.get(), 30);
}

#[tokio::test]
async fn a_broker_that_accepts_and_says_nothing_is_given_up() {
    let broker = MockBroker::start(Behaviour {
        on_connect: OnConnect::Silent,
        ..Behaviour::default()
    })
    .await;
    let bench = Bench::hasty(&broker.url());
    assert!(matches!(bench.offline().await, ConnectionError::Silent(_)));
    broker.behave(|behaviour| behaviour.on_connect = OnConnect::Accept);
    broker.behave(|behaviour| behaviour.stall_suback = true);
    bench
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
    assert!(broker.published(&bench.topics.inference_output).is_empty());
    broker.behave(|behaviour| behaviour.stall_suback = false);
    bench.online().await;
}

#[tokio::test]
async fn refusals_are_told_in_words() {
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
        let reason = Bench::new(&broker.url()).offline().await.to_string();
        assert!(reason.contains(words), "{reason}");
    }
    let broker = MockBroker::start(Behaviour {
        refuse_subscription: true,
        ..Behaviour::default()
    })
    .await;
    let reason = Bench::new(&broker.url()).offline().await.to_string();
    assert!(
        reason.contains("subscribe to /edgeimpulse/device/cam/command/input"),
        "{reason}"
    );
    let nobody = format!("mqtt://127.0.0.1:{}", support::ports::free_port());
    assert_eq!(Bench::new(&nobody).offline().await, ConnectionError::Refused);
    let reason = Bench::new("mqtt://no-such-host.invalid").offline().await;
    assert!(matches!(reason, ConnectionError::Dns(_)), "{reason}");
}

/// The error after a few connections that the broker closes at the packet with this number, CONNECT being the first.
async fn closed_at_packet(number: usize) -> String {
    let broker = MockBroker::start(Behaviour {
        drop_after: Some(number),
        ..Behaviour::default()
    })
    .await;
    let bench = Bench::new(&broker.url());
    bench.infer(0..1);
    let state = bench
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

#[tokio::test]
async fn a_connection_closed_on_subscribe_is_told_apart_from_one_closed_on_publish() {
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
async fn an_ad_hoc_client_whose_subscription_ends_the_connection_names_the_permission() {
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
async fn being_thrown_out_three_times_names_the_client_id() {
    let broker = MockBroker::start(Behaviour {
        on_connect: OnConnect::AcceptAndClose,
        ..Behaviour::default()
    })
    .await;
    let bench = Bench::new(&broker.url());
    let state = bench
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
    assert!(
        reason
            .to_string()
            .contains("another client may be using the client id \"cam\""),
        "{reason}"
    );
    assert_eq!(broker.connects().len(), 3);
}
