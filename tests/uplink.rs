//! The uplink with a mock broker that simulates faults, and with a real Mosquitto.

mod commands;
mod faulty_brokers;
mod mosquitto;
mod stopping;
use crate::support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ei_greengrass::config::Qos;
use ei_greengrass::device::Topics;
use ei_greengrass::status::stats::Stats;
use ei_greengrass::uplink::outbox::OutboxBounds;
use ei_greengrass::uplink::{
    self, ConnectionError, ConnectionTimes, LinkState, Message, Outbox, RateLimits, ReceivedCommand, Settings, Status,
    Uplink,
};
use ei_greengrass::util::backoff::BackoffPolicy;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet};
use serde_json::Value;
use support::broker::{Acks, Behaviour, Entry, MockBroker, OnConnect, Way, payloads};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Time limit of every wait.
const LIMIT: Duration = Duration::from_secs(10);

/// An uplink with short time limits, and its outbox.
struct TestUplink {
    topics: Topics,
    outbox: Arc<Outbox>,
    stats: Arc<Stats>,
    uplink: Uplink,
    commands: mpsc::Receiver<ReceivedCommand>,
}

fn settings(url: &str) -> Settings {
    let ms = Duration::from_millis;
    Settings {
        address: url.parse().expect("an address"),
        client_id: "cam".into(),
        topics: Topics::new("cam"),
        qos: Qos::AtLeastOnce,
        refusal_answer: ei_greengrass::commands::refusal_answer,
        ca: None,
        rate_limits: RateLimits::UNLIMITED,
        limits: ConnectionTimes {
            connect: LIMIT / 2,
            acknowledgement: LIMIT / 2,
            backoff: BackoffPolicy {
                min: ms(20),
                max: ms(50),
                ..BackoffPolicy::default()
            },
            ..ConnectionTimes::default()
        },
    }
}

impl TestUplink {
    fn new(url: &str) -> Self {
        Self::with(settings(url))
    }

    /// An uplink with very short time limits for the broker.
    fn hasty(url: &str) -> Self {
        let mut settings = settings(url);
        settings.limits.connect = Duration::from_millis(400);
        settings.limits.acknowledgement = Duration::from_millis(400);
        Self::with(settings)
    }

    fn with(settings: Settings) -> Self {
        let stats = Arc::new(Stats::default());
        let outbox = Arc::new(Outbox::new(OutboxBounds::default(), Arc::clone(&stats)));
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

    async fn offline(&self) -> ConnectionError {
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

    /// Waits until all messages are delivered.
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

/// The payloads without repeats.
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
async fn a_driver_that_panics_is_replaced_and_unacknowledged_messages_are_sent_again() {
    let broker = MockBroker::start(Behaviour {
        acks: Acks::Stall,
        ..Behaviour::default()
    })
    .await;
    let mut settings = settings(&broker.url());
    // The time limit overflows the clock, so computing the deadline of a sent message panics.
    settings.limits.acknowledgement = Duration::MAX;
    let (outbox, stats) = (
        Arc::new(Outbox::new(OutboxBounds::default(), Arc::default())),
        Arc::default(),
    );
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
async fn messages_arrive_in_order_after_the_subscription() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let fixture = TestUplink::new(&broker.url());
    fixture.infer(0..200);
    fixture.drained().await;
    assert_eq!(broker.published(&fixture.topics.inference_output), numbers(0..200));
    let log = broker.log();
    let suback = position(&log, "SUBACK", |entry| matches!(entry.packet, Packet::SubAck(_)));
    assert!(suback < position(&log, "inference", |entry| entry.published().is_some()));
    assert_eq!(
        (fixture.stats.delivered.get(), fixture.stats.mqtt_connects.get()),
        (200, 1)
    );
    assert!(
        broker.published(&fixture.topics.command_output).is_empty(),
        "no online notice at the first connection"
    );
}

#[tokio::test]
async fn connect_requests_a_persistent_session_and_contains_the_last_will() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let fixture = TestUplink::new(&broker.url().replace("mqtt://", "mqtt://me:secret@"));
    fixture.online().await;
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
        (fixture.topics.command_output.clone(), QoS::AtLeastOnce, false)
    );
    let json: Value = serde_json::from_slice(&will.message).expect("JSON");
    assert_eq!(json["result"]["status"], "offline");
    assert!(json["result"]["ts"].as_u64().is_some_and(|ts| ts > 1_700_000_000_000));
    assert!(json["result"]["id"].as_str().is_some_and(|id| id.len() == 36));
}

#[tokio::test]
async fn a_qos_0_message_is_delivered_when_it_is_written() {
    let broker = MockBroker::start(Behaviour {
        acks: Acks::Stall,
        ..Behaviour::default()
    })
    .await;
    let fixture = TestUplink::new(&broker.url());
    for number in 0..50 {
        fixture
            .outbox
            .push(Message::inference(&fixture.topics, number.to_string(), Qos::AtMostOnce));
    }
    fixture.drained().await;
    broker
        .wait_for_routed(&fixture.topics.inference_output, 50, LIMIT)
        .await;
    assert_eq!(broker.published(&fixture.topics.inference_output), numbers(0..50));
}

#[tokio::test]
async fn no_message_is_lost_when_the_connection_drops_repeatedly() {
    let broker = MockBroker::start(Behaviour {
        drop_after: Some(12),
        ..Behaviour::default()
    })
    .await;
    let fixture = TestUplink::new(&broker.url());
    fixture.infer(0..100);
    fixture.drained().await;
    assert_eq!(
        firsts(&broker.published(&fixture.topics.inference_output)),
        numbers(0..100)
    );
    assert!(broker.connects().len() > 3);
}

#[tokio::test]
async fn the_uplink_subscribes_again_and_publishes_online_after_a_reconnect() {
    let mut broker = MockBroker::start(Behaviour {
        forget_sessions: true,
        ..Behaviour::default()
    })
    .await;
    let fixture = TestUplink::new(&broker.url());
    fixture.infer(0..10);
    fixture.drained().await;
    broker.down().await;
    assert!(matches!(
        fixture.offline().await,
        ConnectionError::Closed | ConnectionError::Refused
    ));
    fixture.infer(10..20);
    broker.up().await;
    fixture.online().await;
    fixture.drained().await;
    assert_eq!(
        firsts(&broker.published(&fixture.topics.inference_output)),
        numbers(0..20)
    );
    assert_eq!(statuses(&broker.published(&fixture.topics.command_output)), ["online"]);
    assert_eq!(
        broker
            .log()
            .iter()
            .filter(|entry| matches!(entry.packet, Packet::Subscribe(_)))
            .count(),
        2
    );
    assert_eq!(
        statuses(&broker.routed(&fixture.topics.command_output)),
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
    let fixture = TestUplink::new(&broker.url());
    fixture.infer(0..43);
    fixture.drained().await;
    assert_eq!(broker.published(&fixture.topics.inference_output), numbers(0..43));
    assert_eq!(broker.connects().len(), 1);
}

#[tokio::test]
async fn a_broker_that_acknowledges_twice_receives_all_messages() {
    let broker = MockBroker::start(Behaviour {
        acks: Acks::Twice,
        ..Behaviour::default()
    })
    .await;
    let fixture = TestUplink::new(&broker.url());
    fixture.infer(0..6);
    fixture.drained().await;
    assert_eq!(
        firsts(&broker.published(&fixture.topics.inference_output)),
        numbers(0..6)
    );
}

#[tokio::test]
async fn iot_core_receives_no_more_than_its_limits_and_answers_before_the_backlog() {
    let broker = MockBroker::start(Behaviour::default()).await;
    let mut settings = settings(&broker.url());
    settings.rate_limits = RateLimits::IOT_CORE;
    let fixture = TestUplink::with(settings);
    fixture.infer(0..150);
    fixture.online().await;
    fixture
        .outbox
        .push(Message::notice(&fixture.topics, Status::Started, Qos::AtLeastOnce));
    fixture.drained().await;
    let log = broker.log();
    let times: Vec<_> = log.iter().filter(|e| e.published().is_some()).map(|e| e.at).collect();
    for (n, from) in times.iter().enumerate() {
        // Ten more than the limit of the sender, because the broker measures the times.
        let within = times[n..]
            .iter()
            .filter(|at| **at - *from < Duration::from_secs(1))
            .count();
        assert!(within <= 100, "{within} in a second");
    }
    let first = position(&log, "notice", |e| {
        e.published().is_some_and(|p| p.topic == fixture.topics.command_output)
    });
    let last = log.iter().rposition(|e| e.published().is_some()).expect("inferences");
    assert!(first + 50 < last);
    assert_eq!(broker.published(&fixture.topics.inference_output), numbers(0..150));
}
