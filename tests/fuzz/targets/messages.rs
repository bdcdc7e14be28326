//! What the broker and clients of it send.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use ei_greengrass::cache::Caches;
use ei_greengrass::commands::{Action, AnswerPublisher, CommandContext, execute};
use ei_greengrass::config::{Criteria, FilterConfig, Qos};
use ei_greengrass::device::Topics;
use ei_greengrass::events::{EventRecorder, EventSettings};
use ei_greengrass::fuzzing::local_topics::shorten;
use ei_greengrass::fuzzing::uplink::{Inbox, MAX_COMMAND_BYTES};
use ei_greengrass::report::{Report, ReportSettings};
use ei_greengrass::status::stats::Stats;
use ei_greengrass::uplink::outbox::OutboxBounds;
use ei_greengrass::uplink::{Broker, Outbox, ReceivedCommand};
use parking_lot::Mutex;
use rumqttc::Packet;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::input::{Input, scratch};

/// The parts of a session, which all commands of a thread change.
struct Session {
    report: Mutex<Report>,
    events: Arc<EventRecorder>,
    caches: Caches,
    outbox: Arc<Outbox>,
    topics: Arc<Topics>,
    runtime: Runtime,
    _directory: TempDir,
}

impl Session {
    fn new() -> Self {
        let (directory, stats) = (scratch(), Arc::new(Stats::default()));
        let outbox = Arc::new(Outbox::new(OutboxBounds::default(), stats.clone()));
        let topics = Arc::new(Topics::new("device"));
        let filter = FilterConfig {
            enabled: true,
            given: 0.7,
            scores_are_probabilities: None,
            criteria: Criteria::GreaterOrEqual,
        };
        let settings = ReportSettings {
            filter,
            publish_every: 1,
        };
        Self {
            report: Mutex::new(Report::new(settings, stats.clone())),
            events: EventRecorder::start(
                directory.path(),
                topics.clone(),
                outbox.clone(),
                stats,
                EventSettings::default(),
            ),
            caches: Caches::default(),
            outbox,
            topics,
            runtime: Builder::new_current_thread().enable_all().build().expect("a runtime"),
            _directory: directory,
        }
    }

    fn execute(&self, payload: &[u8]) {
        let answers = AnswerPublisher {
            outbox: self.outbox.clone(),
            topics: self.topics.clone(),
            qos: Qos::AtMostOnce,
        };
        let context = CommandContext {
            report: &self.report,
            events: &self.events,
            model: None,
            changed_thresholds: Vec::new(),
            caches: &self.caches,
            model_updates: None,
            answers,
        };
        let received = ReceivedCommand {
            payload: payload.to_vec().into(),
        };
        let action = self.runtime.block_on(async {
            let action = execute(&received, &context);
            tokio::task::yield_now().await;
            action
        });
        let mut answers = 0;
        while let Some((token, message)) = self.outbox.next_to_send() {
            let answer: Value = serde_json::from_slice(&message.payload).expect("an answer is JSON");
            assert!(
                answer["result"].is_object() || !message.topic.contains("command"),
                "{answer}"
            );
            assert!(message.payload.len() < 200_000, "an answer is bounded");
            answers += 1;
            self.outbox.acked(token);
        }
        assert!(answers > 0 || action == Action::Continue, "a restart is answered");
    }
}

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

/// Commands, one after the other.
pub fn command(data: &[u8]) {
    SESSION.with_borrow_mut(|session| {
        let session = session.get_or_insert_with(Session::new);
        let mut input = Input(data);
        while !input.is_empty() {
            session.execute(input.part());
        }
    });
}

/// Packets of the broker, and the commands in them.
pub fn mqtt(data: &[u8]) {
    let mut stream = BytesMut::from(data);
    let mut inbox = Inbox::default();
    let mut received = 0;
    let mut executed = 0;
    loop {
        let before = stream.len();
        match Packet::read(&mut stream, 1 << 20) {
            Ok(Packet::Publish(publish)) => received += usize::from(inbox.receive(&publish)),
            Ok(Packet::PubAck(ack)) => {
                let passed = Duration::from_secs((ack.pkid >> 8).into());
                let ready = inbox.acknowledged(ack.pkid as u8, passed);
                assert!(
                    ready
                        .iter()
                        .all(|payload| !payload.is_empty() && payload.len() <= MAX_COMMAND_BYTES)
                );
                executed += ready.len();
            }
            Ok(_) => {}
            Err(_) => break,
        }
        assert!(stream.len() < before, "a packet takes bytes");
        assert!(inbox.waiting() <= 64, "the waiting commands are bounded");
        assert_eq!(received, executed + inbox.waiting(), "each command is executed once");
    }
}

/// Addresses of brokers.
pub fn broker_address(data: &[u8]) {
    let text = Input(data).text();
    match text.parse::<Broker>() {
        Ok(Broker::Url(address)) => {
            let shown = address.to_string();
            match &address.credentials {
                // The query is not shown.
                None if address.path.contains('?') => {}
                None => assert_eq!(shown.parse(), Ok(Broker::Url(address)), "what is shown is read"),
                Some((_, password)) => assert!(
                    password.reveal().len() < 8
                        || text.matches(password.reveal()).count() > 1
                        || !shown.contains(password.reveal()),
                    "{shown}"
                ),
            }
        }
        Ok(Broker::IotCoreHost(host)) => assert_eq!(host.to_string().parse(), Ok(host)),
        Err(error) => drop(error.to_string()),
    }
}

/// A message that is shortened for the local topics.
pub fn local_message(data: &[u8]) {
    let mut input = Input(data);
    let max = usize::from(input.byte()) * 8;
    if let Some(short) = shorten(input.0, max) {
        serde_json::from_slice::<Value>(&short).expect("a shortened message is JSON");
    }
}
