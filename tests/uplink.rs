//! The uplink against a mock broker that misbehaves on demand, and against a real Mosquitto.

#[path = "uplink/commands.rs"]
mod commands;
#[path = "uplink/mosquitto.rs"]
mod real;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ei_greengrass::backoff::BackoffPolicy;
use ei_greengrass::config::Qos;
use ei_greengrass::device::Topics;
use ei_greengrass::stats::Stats;
use ei_greengrass::uplink::outbox::Bounds;
use ei_greengrass::uplink::{
    self, IncomingCommand, Limits, LinkState, Message, Outbox, Pacing, Reason, Settings, Status, Uplink,
};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet};
use serde_json::Value;
use support::broker::{Acks, Behaviour, Entry, MockBroker, OnConnect, Way, payloads};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Nothing in these tests takes this long unless it is broken.
const LIMIT: Duration = Duration::from_secs(10);

/// An uplink with short limits, and its surroundings.
struct Bench {
    topics: Topics,
    outbox: Arc<Outbox>,
    stats: Arc<Stats>,
    uplink: Uplink,
    commands: mpsc::Receiver<IncomingCommand>,
}

fn settings(url: &str) -> Settings {
    let ms = Duration::from_millis;
    Settings {
        address: url.parse().expect("an address"),
        client_id: "cam".into(),
        topics: Topics::new("cam"),
        qos: Qos::AtLeastOnce,
        ca: None,
        pacing: Pacing::UNLIMITED,
        limits: Limits {
            connect: LIMIT / 2,
            acknowledgement: LIMIT / 2,
            backoff: BackoffPolicy {
                min: ms(20),
                max: ms(50),
                ..BackoffPolicy::default()
            },
            ..Limits::default()
        },
    }
}

impl Bench {
    fn new(url: &str) -> Self {
        Self::with(settings(url))
    }

    /// With no patience for a broker that does not answer.
    fn hasty(url: &str) -> Self {
        let mut settings = settings(url);
        settings.limits.connect = Duration::from_millis(400);
        settings.limits.acknowledgement = Duration::from_millis(400);
        Self::with(settings)
    }

    fn with(settings: Settings) -> Self {
        let stats = Arc::new(Stats::default());
        let outbox = Arc::new(Outbox::new(Bounds::default(), Arc::clone(&stats)));
        let topics = settings.topics.clone();
        let (uplink, commands) = uplink::start(settings, Arc::clone(&outbox), Arc::clone(&stats));
        Self {
            topics,
            outbox,
            stats,
            uplink,
            commands,
        }
    }

    fn infer(&self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.outbox
                .push(Message::inference(&self.topics, number.to_string(), Qos::AtLeastOnce));
        }
    }

    async fn online(&self) {
        self.state(|state| matches!(state, LinkState::Online { .. })).await;
    }

    async fn offline(&self) -> Reason {
        match self.state(|state| matches!(state, LinkState::Offline { .. })).await {
            LinkState::Offline { reason, .. } => reason,
            state => panic!("{state:?}"),
        }
    }

    async fn state(&self, wanted: impl FnMut(&LinkState) -> bool) -> LinkState {
        let mut state = self.uplink.state();
        let found = timeout(LIMIT, state.wait_for(wanted)).await;
        let found = found.expect("the state comes in time").expect("the driver runs");
        found.clone()
    }

    async fn command(&mut self) -> String {
        let command = timeout(LIMIT, self.commands.recv())
            .await
            .expect("a command in time")
            .expect("the driver runs");
        String::from_utf8_lossy(&command.payload).into_owned()
    }

    /// All is delivered.
    async fn drained(&self) {
        let deadline = Instant::now() + LIMIT;
        while self.outbox.depth() > 0 {
            assert!(Instant::now() < deadline, "{} messages are left", self.outbox.depth());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self) -> usize {
        let notice = Message::notice(&self.topics, Status::Stopped, Qos::AtLeastOnce);
        self.uplink.stop(Some(notice), Duration::from_secs(2)).await.undelivered
    }
}

fn statuses(payloads: &[String]) -> Vec<String> {
    let status = |text: &String| {
        let json: Value = serde_json::from_str(text).expect("JSON");
        json["result"]["status"].as_str().map(str::to_owned)
    };
    payloads.iter().filter_map(status).collect()
}

fn errors(payloads: &[String]) -> usize {
    payloads.iter().filter(|payload| payload.contains("\"error\"")).count()
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Without repeats.
fn firsts(payloads: &[String]) -> Vec<String> {
    let mut firsts: Vec<String> = Vec::new();
    for payload in payloads {
        if !firsts.contains(payload) {
            firsts.push(payload.clone());
        }
    }
    firsts
}

fn position(log: &[Entry], what: &str, wanted: impl Fn(&Entry) -> bool) -> usize {
    log.iter().position(wanted).unwrap_or_else(|| panic!("no {what}"))
}

#[tokio::test]
async fn a_driver_that_panics_is_replaced_and_what_it_had_sent_is_sent_again() {
    let broker = MockBroker::start(Behaviour {
        acks: Acks::Stall,
        ..Behaviour::default()
    })
    .await;
    let mut settings = settings(&broker.url());
    // No clock goes that far: working out when the broker has been silent for too long panics, with a message under way.
    settings.limits.acknowledgement = Duration::MAX;
    let (outbox, stats) = (Arc::new(Outbox::new(Bounds::default(), Arc::default())), Arc::default());
    let topics = settings.topics.clone();
    let (uplink, _commands) = uplink::start(settings, outbox.clone(), stats);
    outbox.push(Message::inference(&topics, "{}", Qos::AtLeastOnce));
    broker
        .wait_for("three connections", LIMIT, |log| {
            log.iter().any(|entry| entry.connection >= 3)
        })
        .await;
    assert_eq!(outbox.waiting(), 1, "it is not lost");
    drop(uplink);
}

#[tokio::test]
async fn messages_arrive_in_order_once_the_subscription_stands() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let bench = Bench::new(&broker.url());
    bench.infer(0..200);
    bench.drained().await;
    assert_eq!(broker.published(&bench.topics.inference_output), numbers(0..200));
    let log = broker.log();
    let suback = position(&log, "SUBACK", |entry| matches!(entry.packet, Packet::SubAck(_)));
    assert!(suback < position(&log, "inference", |entry| entry.published().is_some()));
    assert_eq!((bench.stats.delivered.get(), bench.stats.mqtt_connects.get()), (200, 1));
    assert!(
        broker.published(&bench.topics.command_output).is_empty(),
        "no online notice at the first connection"
    );
}

#[tokio::test]
async fn connect_keeps_the_session_and_carries_the_last_will() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let bench = Bench::new(&broker.url().replace("mqtt://", "mqtt://me:secret@"));
    bench.online().await;
    let connect = broker.connects().remove(0);
    assert_eq!(
        (connect.client_id.as_str(), connect.clean_session, connect.keep_alive),
        ("cam", false, 30)
    );
    let login = connect.login.expect("credentials");
    assert_eq!((login.username.as_str(), login.password.as_str()), ("me", "secret"));
    let will = connect.last_will.expect("a last will");
    assert_eq!(
        (will.topic, will.qos, will.retain),
        (bench.topics.command_output.clone(), QoS::AtLeastOnce, false)
    );
    let json: Value = serde_json::from_slice(&will.message).expect("JSON");
    assert_eq!(json["result"]["status"], "offline");
    assert!(json["result"]["ts"].as_u64().is_some_and(|ts| ts > 1_700_000_000_000));
    assert!(json["result"]["id"].as_str().is_some_and(|id| id.len() == 36));
}

#[tokio::test]
async fn qos_0_is_done_when_written() {
    let broker = MockBroker::start(Behaviour {
        acks: Acks::Stall,
        ..Behaviour::default()
    })
    .await;
    let bench = Bench::new(&broker.url());
    for number in 0..50 {
        bench
            .outbox
            .push(Message::inference(&bench.topics, number.to_string(), Qos::AtMostOnce));
    }
    bench.drained().await;
    broker.wait_for_routed(&bench.topics.inference_output, 50, LIMIT).await;
    assert_eq!(broker.published(&bench.topics.inference_output), numbers(0..50));
}

#[tokio::test]
async fn nothing_is_lost_when_the_connection_drops_again_and_again() {
    let broker = MockBroker::start(Behaviour {
        drop_after: Some(12),
        ..Behaviour::default()
    })
    .await;
    let bench = Bench::new(&broker.url());
    bench.infer(0..100);
    bench.drained().await;
    assert_eq!(
        firsts(&broker.published(&bench.topics.inference_output)),
        numbers(0..100)
    );
    assert!(broker.connects().len() > 3);
}

#[tokio::test]
async fn after_a_reconnect_the_subscription_is_made_again_and_online_is_told() {
    let mut broker = MockBroker::start(Behaviour {
        forget_sessions: true,
        ..Behaviour::default()
    })
    .await;
    let bench = Bench::new(&broker.url());
    bench.infer(0..10);
    bench.drained().await;
    broker.down().await;
    assert!(matches!(bench.offline().await, Reason::Closed | Reason::Refused));
    bench.infer(10..20);
    broker.up().await;
    bench.online().await;
    bench.drained().await;
    assert_eq!(
        firsts(&broker.published(&bench.topics.inference_output)),
        numbers(0..20)
    );
    assert_eq!(statuses(&broker.published(&bench.topics.command_output)), ["online"]);
    assert_eq!(
        broker
            .log()
            .iter()
            .filter(|entry| matches!(entry.packet, Packet::Subscribe(_)))
            .count(),
        2
    );
    assert_eq!(
        statuses(&broker.routed(&bench.topics.command_output)),
        ["offline", "online"]
    );
}

#[tokio::test]
async fn acknowledgements_out_of_order_are_matched() {
    let broker = MockBroker::start(Behaviour {
        acks: Acks::Reversed(5),
        ..Behaviour::default()
    })
    .await;
    let bench = Bench::new(&broker.url());
    bench.infer(0..43);
    bench.drained().await;
    assert_eq!(broker.published(&bench.topics.inference_output), numbers(0..43));
    assert_eq!(broker.connects().len(), 1);
}

#[tokio::test]
async fn a_broker_that_acknowledges_everything_twice_gets_everything_all_the_same() {
    let broker = MockBroker::start(Behaviour {
        acks: Acks::Twice,
        ..Behaviour::default()
    })
    .await;
    let bench = Bench::new(&broker.url());
    bench.infer(0..6);
    bench.drained().await;
    assert_eq!(firsts(&broker.published(&bench.topics.inference_output)), numbers(0..6));
}

#[tokio::test]
async fn iot_core_never_sees_more_than_its_limits_and_an_answer_overtakes_the_backlog() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let mut settings = settings(&broker.url());
    settings.pacing = Pacing::IOT_CORE;
    let bench = Bench::with(settings);
    bench.infer(0..150);
    bench.online().await;
    bench
        .outbox
        .push(Message::notice(&bench.topics, Status::Started, Qos::AtLeastOnce));
    bench.drained().await;
    let log = broker.log();
    let times: Vec<_> = log.iter().filter(|e| e.published().is_some()).map(|e| e.at).collect();
    for (n, from) in times.iter().enumerate() {
        // Ten more than the limit of the sender: the times are the broker's.
        let within = times[n..]
            .iter()
            .filter(|at| **at - *from < Duration::from_secs(1))
            .count();
        assert!(within <= 100, "{within} in a second");
    }
    let first = position(&log, "notice", |e| {
        e.published().is_some_and(|p| p.topic == bench.topics.command_output)
    });
    let last = log.iter().rposition(|e| e.published().is_some()).expect("inferences");
    assert!(first + 50 < last);
    assert_eq!(broker.published(&bench.topics.inference_output), numbers(0..150));
}

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
        assert!(matches!(bench.offline().await, Reason::Protocol(_)), "{acks:?}");
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
    assert!(matches!(bench.offline().await, Reason::NoAcknowledgement(_)));
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
    assert!(matches!(bench.offline().await, Reason::Silent(_)));
    broker.behave(|behaviour| behaviour.on_connect = OnConnect::Accept);
    broker.behave(|behaviour| behaviour.stall_suback = true);
    bench
        .state(|state| {
            matches!(
                state,
                LinkState::Offline {
                    reason: Reason::NoAcknowledgement(_),
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
    assert_eq!(Bench::new(&nobody).offline().await, Reason::Refused);
    let reason = Bench::new("mqtt://no-such-host.invalid").offline().await;
    assert!(matches!(reason, Reason::Dns(_)), "{reason}");
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
                    reason: Reason::ThrownOut { .. },
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
