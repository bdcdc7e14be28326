//! An MQTT client of the test: sees what a device publishes, and sends it commands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::{Client, Event, MqttOptions, NetworkOptions, Packet, QoS};
use serde_json::Value;

use super::daemon::LIMIT;
use super::events::Events;

/// One message as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub topic: String,
    pub retain: bool,
    /// When it came.
    pub at: Instant,
    pub payload: Vec<u8>,
}

impl Seen {
    /// The payload as JSON (null when it is none).
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap_or(Value::Null)
    }
}

/// Subscribed to `/edgeimpulse/device/#` of one broker.
pub struct Observer {
    client: Client,
    seen: Arc<Events<Seen>>,
    device: String,
}

impl Observer {
    /// Connects and waits until the subscription stands. `device` is the start of the device's topic name.
    pub fn connect(port: u16, device: &str) -> Self {
        let id = format!("observer-{}", uuid::Uuid::new_v4().simple());
        let mut options = MqttOptions::new(id, "127.0.0.1", port);
        options
            .set_max_packet_size(4 << 20, 4 << 20)
            .set_keep_alive(Duration::from_secs(30));
        let (client, mut connection) = Client::new(options, 1000);
        // Latencies are those of the daemon, not of Nagle's algorithm here.
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        connection.eventloop.set_network_options(network);
        client.subscribe("/edgeimpulse/device/#", QoS::AtLeastOnce).unwrap();
        let seen = Arc::new(Events::default());
        let subscribed = Arc::new(Events::default());
        let (sink, ready) = (seen.clone(), subscribed.clone());
        std::thread::spawn(move || {
            let mut is_subscribed = false;
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::Publish(publish))) => sink.push(Seen {
                        topic: publish.topic.clone(),
                        retain: publish.retain,
                        at: Instant::now(),
                        payload: publish.payload.to_vec(),
                    }),
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        is_subscribed = true;
                        ready.push(());
                    }
                    Ok(_) => {}
                    // Afterwards the broker or the test has ended.
                    Err(error) => {
                        if !is_subscribed {
                            eprintln!("the observer was not subscribed: {error}");
                        }
                        break;
                    }
                }
            }
        });
        subscribed.wait_for("SUBACK of the observer", LIMIT, |acks| acks.first().copied());
        Self {
            client,
            seen,
            device: device.to_owned(),
        }
    }

    fn is_ours(&self, seen: &Seen, ending: &str) -> bool {
        seen.topic.contains(&self.device) && seen.topic.ends_with(ending)
    }

    /// All messages of this device whose topic ends so, as they came.
    pub fn all(&self, ending: &str) -> Vec<Seen> {
        self.seen
            .with(|seen| seen.iter().filter(|s| self.is_ours(s, ending)).cloned().collect())
    }

    /// Waits for the first message on a topic with this end for which `wanted` holds.
    #[track_caller]
    pub fn wait_for(&self, ending: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.seen
            .wait_for(&format!("message on {ending}: {what}"), LIMIT, |seen| {
                seen.iter()
                    .filter(|s| self.is_ours(s, ending))
                    .map(Seen::json)
                    .find(|json| wanted(json))
            })
    }

    /// Waits until `count` messages came on a topic with this end, and gives them.
    #[track_caller]
    pub fn wait_for_count(&self, ending: &str, count: usize) -> Vec<Value> {
        self.seen
            .wait_for(&format!("{count} messages on {ending}"), LIMIT, |seen| {
                let ours = || seen.iter().filter(|s| self.is_ours(s, ending));
                (ours().count() >= count).then(|| ours().map(Seen::json).collect())
            })
    }

    /// Like [`Self::wait_for`], among those after the first `skip` on that topic.
    #[track_caller]
    pub fn wait_for_nth(&self, ending: &str, what: &str, skip: usize, wanted: impl Fn(&Value) -> bool) -> Value {
        self.seen
            .wait_for(&format!("message on {ending}: {what}"), LIMIT, |seen| {
                seen.iter()
                    .filter(|s| self.is_ours(s, ending))
                    .skip(skip)
                    .map(Seen::json)
                    .find(|json| wanted(json))
            })
    }

    /// Waits until `count` answers to commands came, and gives all of them. State notices are none.
    #[track_caller]
    pub fn wait_for_answers(&self, count: usize) -> Vec<Value> {
        self.seen.wait_for(&format!("{count} answers"), LIMIT, |seen| {
            let answers = self.answers_among(seen);
            (answers.len() >= count).then_some(answers)
        })
    }

    /// All answers to commands so far.
    pub fn answers(&self) -> Vec<Value> {
        self.seen.with(|seen| self.answers_among(seen))
    }

    fn answers_among(&self, seen: &[Seen]) -> Vec<Value> {
        seen.iter()
            .filter(|s| self.is_ours(s, "command/output"))
            .map(Seen::json)
            .filter(|json| json["result"].get("status").is_none())
            .collect()
    }

    /// Waits for the `number`th (from 1) state notice of this kind on command/output.
    #[track_caller]
    pub fn wait_for_status(&self, status: &str, number: usize) -> Value {
        self.seen
            .wait_for(&format!("status {status:?} number {number}"), LIMIT, |seen| {
                seen.iter()
                    .filter(|s| self.is_ours(s, "command/output"))
                    .map(Seen::json)
                    .filter(|json| json["result"]["status"] == status)
                    .nth(number - 1)
            })
    }

    /// The full name of the device, learnt from its first message.
    #[track_caller]
    pub fn device_name(&self) -> String {
        self.seen.wait_for("a message of the device", LIMIT, |seen| {
            let topic = &seen.iter().find(|s| s.topic.contains(&self.device))?.topic;
            topic.split('/').nth(3).map(str::to_owned)
        })
    }

    /// Publishes on the device's command/input.
    pub fn send_raw(&self, payload: impl Into<Vec<u8>>, retain: bool) {
        let topic = format!("/edgeimpulse/device/{}/command/input", self.device_name());
        self.client.publish(topic, QoS::AtLeastOnce, retain, payload).unwrap();
    }

    /// Sends a command and waits for the answer that satisfies `wanted`, among those that come from now on.
    #[track_caller]
    pub fn command(&self, command: &Value, wanted: impl Fn(&Value) -> bool) -> Value {
        let before = self.all("command/output").len();
        self.send_raw(command.to_string(), false);
        self.seen.wait_for(&format!("answer to {command}"), LIMIT, |seen| {
            seen.iter()
                .filter(|s| self.is_ours(s, "command/output"))
                .skip(before)
                .map(|s| s.json()["result"].clone())
                .find(|result| wanted(result))
        })
    }
}

impl Drop for Observer {
    /// A test that failed shows how many messages came on each topic.
    fn drop(&mut self) {
        let _ = self.client.disconnect();
        if std::thread::panicking() {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            self.seen.with(|seen| {
                for message in seen.iter().filter(|seen| seen.topic.contains(&self.device)) {
                    *counts.entry(message.topic.clone()).or_default() += 1;
                }
            });
            eprintln!("--- messages at the observer: {counts:?}");
        }
    }
}
