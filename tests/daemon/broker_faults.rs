//! A broker that is unreachable, stalls or refuses: all inferences arrive, and the inference does not wait for it.

use std::collections::HashSet;
use std::time::Duration;

use rumqttc::ConnectReturnCode;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::Publish;
use serde_json::{Value, json};

use crate::support::broker::{Acks, Behaviour, Entry, MockBroker, OnConnect};
use crate::support::daemon::{Daemon, LIMIT, Site};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::scripts::{boxed, cycle, frames, script};

const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=50/1";

/// A component that publishes every inference to a mock broker.
struct PublishingDaemon {
    broker: MockBroker,
    daemon: Daemon,
    _site: Site,
    device: String,
}

impl PublishingDaemon {
    async fn start(behaviour: Behaviour, model: &Value, source: &str, more: &[&str]) -> Self {
        Self::at(MockBroker::start(behaviour).await, None, model, source, more)
    }

    /// Starts it with another URL than that of the broker.
    fn at(broker: MockBroker, url: Option<String>, model: &Value, source: &str, more: &[&str]) -> Self {
        let site = Site::new();
        let model = site.scripted_model(model).display().to_string();
        let mut arguments = vec!["--model", &model, "--gst", source];
        arguments.extend(["--set", "iotcore_backoff=1", "--set", "metrics_sleeptime_ms=200"]);
        arguments.extend(more);
        let daemon = site.run(&url.unwrap_or_else(|| broker.url()), &arguments);
        let line = daemon.wait_for_line("ei-greengrass starts");
        let device = line.rsplit("device=").next().expect("a name").to_owned();
        Self {
            broker,
            daemon,
            _site: site,
            device,
        }
    }

    fn topic(&self, ending: &str) -> String {
        format!("/edgeimpulse/device/{}/{ending}", self.device)
    }

    /// Messages published on a topic, without repeats.
    fn firsts(&self, ending: &str) -> Vec<Value> {
        let mut seen = HashSet::new();
        let all = self.broker.published(&self.topic(ending)).into_iter();
        all.map(|text| serde_json::from_str::<Value>(&text).expect("JSON"))
            .filter(|message| seen.insert(message["id"].to_string()))
            .collect()
    }

    async fn wait_for(&self, ending: &str, what: &str, wanted: impl Fn(&Value) -> bool) {
        self.wait_for_after(0, ending, what, wanted).await;
    }

    /// Like [`Self::wait_for`], but skips the first `looked` packets.
    async fn wait_for_after(&self, mut looked: usize, ending: &str, what: &str, wanted: impl Fn(&Value) -> bool) {
        let topic = self.topic(ending);
        self.broker
            .wait_for(what, LIMIT, |log| {
                let fresh = &log[looked..];
                looked = log.len();
                fresh.iter().filter_map(Entry::published).any(|publish| {
                    publish.topic == topic && wanted(&serde_json::from_slice(&publish.payload).unwrap_or(Value::Null))
                })
            })
            .await;
    }

    /// Waits until the source has ended and all messages were delivered. Returns the last metrics message.
    async fn drained(&self) -> Value {
        self.wait_for("command/output", "the pause", |json| {
            json["result"]["status"] == "paused"
        })
        .await;
        let ended = self.broker.log().len();
        self.wait_for_after(ended, "model/metrics", "all delivered", |json| {
            json["runner"]["delivered"] == json["runner"]["published"]
                && json["runner"]["inferences"] == json["runner"]["published"]
        })
        .await;
        self.firsts("model/metrics").pop().expect("metrics")
    }

    /// Closes the broker for longer than the first delay of the uplink, so that a connection attempt fails too.
    async fn away_for_a_while(&mut self) {
        self.broker.down().await;
        self.daemon.wait_for_line("the broker closed the connection");
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        self.broker.up().await;
    }

    fn statuses(&self) -> Vec<String> {
        let all = self.broker.routed(&self.topic("command/output"));
        all.iter()
            .filter_map(|text| {
                let json: Value = serde_json::from_str(text).expect("JSON");
                json["result"]["status"].as_str().map(str::to_owned)
            })
            .collect()
    }

    async fn wait_for_status(&self, status: &str) {
        self.wait_for("command/output", status, |json| json["result"]["status"] == status)
            .await;
    }

    async fn wait_for_total(&self, total: u64) {
        self.wait_for("inference/output", &format!("inference {total}"), |json| {
            json["total_inferences"].as_u64() >= Some(total)
        })
        .await;
    }
}

/// Numbers 1, 2, 3, ... in this order, none missing.
#[track_caller]
fn assert_complete(messages: &[Value], count: u64) {
    let totals: Vec<_> = messages
        .iter()
        .map(|message| message["total_inferences"].as_u64().unwrap())
        .collect();
    assert_eq!(totals, (1..=count).collect::<Vec<_>>());
}

/// The longest time between two consecutive inferences.
fn longest_gap(messages: &[Value]) -> u64 {
    let times: Vec<_> = messages.iter().map(|message| message["ts"].as_u64().unwrap()).collect();
    times
        .windows(2)
        .map(|pair| pair[1].saturating_sub(pair[0]))
        .max()
        .unwrap_or(0)
}

/// 4 s of a source that is not live.
const FOUR_SECONDS: &str = "videotestsrc num-buffers=400 ! video/x-raw,format=I420,width=64,height=48,framerate=100/1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_inference_is_lost_while_the_broker_is_unreachable_and_the_order_stays() {
    let mut fixture = PublishingDaemon::start(
        Behaviour::default(),
        &script(&[boxed(0.5)]),
        FOUR_SECONDS,
        &["--set", "ei_shutdown_behavior=wait_for_restart"],
    )
    .await;
    fixture.wait_for_total(50).await;
    assert!(
        !fixture.statuses().contains(&"online".to_owned()),
        "the first connect tells nothing"
    );
    fixture.away_for_a_while().await;
    fixture.wait_for_status("online").await;
    fixture.wait_for_total(250).await;
    fixture.broker.kick();
    let metrics = fixture.drained().await;
    let count = metrics["runner"]["published"].as_u64().unwrap();
    assert!(count > 300, "{metrics}");
    assert_eq!(metrics["runner"]["outbox_dropped"], 0);
    assert_eq!(metrics["details"]["n"], count);
    assert_complete(&fixture.firsts("inference/output"), count);
    let online = fixture.statuses().iter().filter(|status| *status == "online").count();
    assert!(online >= 2, "once for each reconnect: {:?}", fixture.statuses());
    let PublishingDaemon { broker, daemon, .. } = fixture;
    daemon.stop();
    drop(broker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inference_rate_stays_while_the_broker_is_unreachable_or_stalls() {
    let mut fixture = PublishingDaemon::start(Behaviour::default(), &script(&[boxed(0.5)]), LIVE, &[]).await;
    fixture.wait_for_total(25).await;
    fixture.away_for_a_while().await;
    fixture.wait_for_status("online").await;

    fixture.broker.behave(|behaviour| behaviour.acks = Acks::Stall);
    // The broker acknowledges nothing for two seconds, then reads nothing for two seconds.
    tokio::time::sleep(Duration::from_secs(2)).await;
    fixture.broker.behave(|behaviour| behaviour.stop_reading = true);
    tokio::time::sleep(Duration::from_secs(2)).await;
    fixture.broker.behave(|behaviour| *behaviour = Behaviour::default());
    fixture.broker.kick();

    let so_far = fixture.firsts("inference/output").len() as u64;
    fixture.wait_for_total(so_far + 250).await;
    let topic = fixture.topic("model/metrics");
    fixture.wait_for("model/metrics", "metrics", |_| true).await;
    let messages = fixture.firsts("inference/output");
    assert_complete(&messages, messages.len() as u64);
    let gap = longest_gap(&messages);
    assert!(gap < 700, "50 frames a second, but {gap} ms between two inferences");
    let metrics: Value = serde_json::from_str(fixture.broker.published(&topic).last().unwrap()).unwrap();
    let count = |key: &str| metrics["runner"][key].as_u64().unwrap();
    assert!(count("inferences") * 10 >= count("frames_captured") * 9, "{metrics}");
    assert_eq!(count("outbox_dropped"), 0, "{metrics}");
    fixture.daemon.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_messages_wait_for_a_broker_that_starts_later() {
    let mut broker = MockBroker::start(Behaviour::default()).await;
    broker.down().await;
    let source = frames(120);
    let more = ["--unthrottled", "--set", "ei_shutdown_behavior=wait_for_restart"];
    let mut fixture = PublishingDaemon::at(broker, None, &script(&[boxed(0.5)]), &source, &more);
    fixture.daemon.wait_for_line("no broker listens");
    fixture
        .daemon
        .wait_for_line("The source ended; waiting for the command restart");
    fixture.broker.up().await;
    fixture.drained().await;
    assert_complete(&fixture.firsts("inference/output"), 120);
    assert_eq!(fixture.statuses(), ["started", "paused"]);
    fixture.daemon.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_flags_and_client_id_are_as_documented() {
    for (setting, qos) in [("iotcore_qos=0", QoS::AtMostOnce), ("iotcore_qos=1", QoS::AtLeastOnce)] {
        let source = frames(40);
        let more = [
            "--unthrottled",
            "--set",
            "ei_shutdown_behavior=wait_for_restart",
            "--set",
            setting,
        ];
        let fixture = PublishingDaemon::start(Behaviour::default(), &script(&[boxed(0.5)]), &source, &more).await;
        fixture.drained().await;
        let command = fixture.topic("command/input");
        fixture.broker.publish(
            &command,
            r#"{"cmd":"get_threshold_filter_criteria"}"#,
            false,
            false,
            QoS::AtLeastOnce,
        );
        fixture
            .wait_for("command/output", "the answer", |json| {
                json["result"]["criteria"] == "ge"
            })
            .await;
        let known = ["inference/output", "model/metrics", "command/output"].map(|ending| fixture.topic(ending));
        let (broker, device) = (fixture.broker, fixture.device);
        fixture.daemon.stop();

        let log = broker.log();
        let published: Vec<&Publish> = log.iter().filter_map(Entry::published).collect();
        let (clearings, messages): (Vec<&Publish>, Vec<&Publish>) =
            published.iter().partition(|publish| publish.topic == command);
        for publish in messages {
            assert!(known.contains(&publish.topic), "{publish:?}");
            assert_eq!((publish.qos, publish.retain), (qos, false), "{setting}: {publish:?}");
        }
        for topic in &known {
            assert!(published.iter().any(|publish| publish.topic == *topic), "{topic}");
        }
        assert_eq!(clearings.len(), 1);
        assert_eq!((clearings[0].qos, clearings[0].retain), (QoS::AtLeastOnce, true));

        let connects = broker.connects();
        let [connect] = connects.as_slice() else {
            panic!("{connects:?}")
        };
        assert_eq!(
            (connect.client_id.as_str(), connect.clean_session),
            (device.as_str(), false)
        );
        let will = connect.last_will.as_ref().expect("a last will");
        assert_eq!(
            (will.topic.as_str(), will.retain, will.qos),
            (known[2].as_str(), false, qos)
        );
        let notice: Value = serde_json::from_slice(&will.message).expect("JSON");
        assert_eq!(notice["result"]["status"], "offline");
        assert!(
            notice["result"]["ts"].is_u64() && notice["result"]["id"].is_string(),
            "{notice}"
        );
    }
}

#[test]
fn the_last_will_follows_a_kill_and_a_stop_ends_with_stopped() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let model = site.scripted_model(&script(&[boxed(0.5)]));
    let arguments = ["--model", model.to_str().unwrap(), "--gst", LIVE];
    let mut daemon = site.run(&broker.url(), &arguments);
    observer.wait_for_status("started", 1);
    daemon.signal(rustix::process::Signal::KILL);
    daemon.wait_for_end(LIMIT);
    observer.wait_for_status("offline", 1);

    let daemon = site.run(&broker.url(), &arguments);
    observer.wait_for_status("started", 2);
    daemon.stop();
    observer.wait_for_status("stopped", 1);
    // Messages about the old connection come before the last will of this one.
    let daemon = site.run(&broker.url(), &arguments);
    observer.wait_for_status("started", 3);
    daemon.stop();
    observer.wait_for_status("stopped", 2);
    let statuses: Vec<_> = observer
        .all("command/output")
        .iter()
        .map(|seen| seen.json()["result"]["status"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        statuses,
        ["started", "offline", "started", "stopped", "started", "stopped"]
    );
    let all = observer.all("");
    let last = all.last().expect("messages");
    assert!(
        last.topic.ends_with("command/output"),
        "nothing after it: {}",
        last.topic
    );
    assert!(all.iter().all(|seen| !seen.retain));
}

#[test]
fn messages_are_also_sent_over_a_websocket() {
    let site = Site::new();
    let directory = tempfile::tempdir().expect("a directory");
    let broker = Mosquitto::start_with(directory, "protocol websockets\nlog_type all");
    let model = site.scripted_model(&script(&[boxed(0.5)]));
    let source = frames(30);
    let daemon = site.run(
        &format!("ws://127.0.0.1:{}", broker.port),
        &[
            "--model",
            model.to_str().unwrap(),
            "--gst",
            &source,
            "--unthrottled",
            "--set",
            "iotcore_backoff=1",
            "--set",
            "ei_shutdown_behavior=wait_for_restart",
        ],
    );
    daemon.wait_for_line("Connected to the broker broker=ws://");
    daemon.wait_for_line("The source ended; waiting");
    let log = daemon.stop();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
    let seen = broker.log();
    let inferences = seen
        .lines()
        .filter(|line| line.contains("Received PUBLISH") && line.contains("/inference/output'"))
        .count();
    assert_eq!(inferences, 30, "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_password_is_explained_and_never_shown() {
    for (code, words) in [
        (
            ConnectReturnCode::BadUserNamePassword,
            "does not accept the user name or password",
        ),
        (ConnectReturnCode::NotAuthorized, "does not authorise this client"),
        (ConnectReturnCode::BadClientId, "does not accept the client id"),
        (ConnectReturnCode::ServiceUnavailable, "service is unavailable"),
    ] {
        let behaviour = Behaviour {
            on_connect: OnConnect::Refuse(code),
            ..Behaviour::default()
        };
        let broker = MockBroker::start(behaviour).await;
        let url = format!("mqtt://camera:hunter%40two@127.0.0.1:{}", broker.port());
        let mut fixture = PublishingDaemon::at(broker, Some(url), &script(&[boxed(0.5)]), LIVE, &["--verbose"]);
        fixture.daemon.wait_for_line(words);
        let connect = fixture.broker.connects().remove(0);
        let login = connect.login.expect("a login");
        assert_eq!(
            (login.username.as_str(), login.password.as_str()),
            ("camera", "hunter@two")
        );
        fixture.daemon.signal(rustix::process::Signal::TERM);
        let (status, _) = fixture.daemon.wait_for_end(LIMIT);
        assert_eq!(status.code(), Some(0));
        let log = fixture.daemon.log();
        assert!(!log.contains("hunter"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_published_at_their_interval_with_the_values_of_the_model() {
    let source = frames(10);
    let more = [
        "--unthrottled",
        "--set",
        "ei_shutdown_behavior=wait_for_restart",
        "--set",
        "metrics_sleeptime_ms=500",
    ];
    let fixture =
        PublishingDaemon::start(Behaviour::default(), &cycle(&[boxed(0.5), boxed(0.9)]), &source, &more).await;
    let topic = fixture.topic("model/metrics");
    fixture.broker.wait_for_routed(&topic, 7, LIMIT).await;
    let log = fixture.broker.log();
    let published: Vec<_> = log.iter().filter(|entry| entry.published().is_some()).collect();
    assert_eq!(
        published[0].published().unwrap().topic,
        topic,
        "metrics are the first message"
    );
    let at: Vec<_> = published
        .iter()
        .filter(|e| e.published().unwrap().topic == topic)
        .map(|e| e.at)
        .collect();
    // The first waits for the connection; from the second on only the interval counts.
    let mean = (at[6] - at[1]).as_millis() / 5;
    assert!((400..=700).contains(&mean), "every {mean} ms: {at:?}");

    let messages = fixture.firsts("model/metrics");
    assert_eq!(messages[0]["details"]["n"], 0);
    let mut last = messages.last().unwrap().clone();
    assert!(last["ts"].is_u64() && last["runner"]["uptime_s"].is_u64(), "{last}");
    let id = last["id"]
        .as_str()
        .expect("an id")
        .parse::<uuid::Uuid>()
        .expect("a uuid");
    assert_eq!(id.get_version_num(), 4);
    for key in ["ts", "id", "runner"] {
        last.as_object_mut().unwrap().remove(key);
    }
    assert_eq!(
        last,
        json!({"mean_confidence": 0.7, "standard_deviation": 0.2, "confidence_trend": "incr",
               "details": {"n": 10, "sum_confidences": 7.0, "sum_confidences_squared": 5.3}})
    );
    fixture.daemon.stop();
}
