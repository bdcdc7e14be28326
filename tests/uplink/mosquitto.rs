//! Tests with a real Mosquitto, for behaviour that a mock could get wrong.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rumqttc::{AsyncClient, Event, Incoming, MqttOptions};

use super::*;
use crate::support::mosquitto::Mosquitto;

/// Another client of the broker, which receives all messages below `/edgeimpulse` and publishes.
struct OtherClient {
    client: AsyncClient,
    messages: mpsc::UnboundedReceiver<(String, String)>,
}

impl OtherClient {
    async fn new(port: u16) -> Self {
        let mut options = MqttOptions::new("onlooker", "127.0.0.1", port);
        // A persistent session, so that no message is lost while the broker restarts.
        options.set_max_packet_size(1 << 20, 1 << 20).set_clean_session(false);
        let (client, mut event_loop) = AsyncClient::new(options, 100);
        let (sender, messages) = mpsc::unbounded_channel();
        let (ready, subscribed) = tokio::sync::oneshot::channel();
        let mut ready = Some(ready);
        let subscriber = client.clone();
        tokio::spawn(async move {
            loop {
                match event_loop.poll().await {
                    Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                        subscriber
                            .subscribe("/edgeimpulse/#", QoS::AtLeastOnce)
                            .await
                            .expect("subscribed");
                    }
                    Ok(Event::Incoming(Incoming::SubAck(_))) => {
                        let _ = ready.take().map(|ready| ready.send(()));
                    }
                    Ok(Event::Incoming(Incoming::Publish(publish))) => {
                        let text = String::from_utf8_lossy(&publish.payload).into_owned();
                        if sender.send((publish.topic, text)).is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        timeout(LIMIT, subscribed)
            .await
            .expect("subscribed in time")
            .expect("subscribed");
        Self { client, messages }
    }

    async fn publish(&self, topic: &str, payload: &str, retain: bool) {
        self.client
            .publish(topic, QoS::AtLeastOnce, retain, payload)
            .await
            .expect("published");
    }

    /// The next message on `topic`; other messages are skipped.
    async fn next(&mut self, topic: &str) -> String {
        loop {
            let (of, text) = timeout(LIMIT, self.messages.recv())
                .await
                .expect("a message in time")
                .expect("a message");
            if of == topic {
                return text;
            }
        }
    }
}

fn url(broker: &Mosquitto) -> String {
    format!("mqtt://127.0.0.1:{}", broker.port)
}

#[tokio::test]
async fn a_retained_restart_does_not_come_back() {
    let broker = Mosquitto::start();
    let mut onlooker = OtherClient::new(broker.port).await;
    let input = Topics::new("cam").command_input;
    onlooker.publish(&input, "restart", true).await;
    assert_eq!(onlooker.next(&input).await, "restart");
    let mut fixture = TestUplink::new(&url(&broker));
    assert_eq!(fixture.command().await, "restart");
    fixture.stop().await;
    assert_eq!(onlooker.next(&input).await, "", "our clearing");
    // A new command shows that no older command is delivered before it.
    let mut fixture = TestUplink::new(&url(&broker));
    fixture.online().await;
    onlooker.publish(&input, "now", false).await;
    assert_eq!(fixture.command().await, "now");
}

#[tokio::test]
async fn a_command_sent_while_the_device_is_away_arrives_once_when_it_comes_back() {
    let broker = Mosquitto::start();
    let onlooker = OtherClient::new(broker.port).await;
    let fixture = TestUplink::new(&url(&broker));
    fixture.online().await;
    let input = fixture.topics.command_input.clone();
    fixture.stop().await;
    onlooker.publish(&input, "queued and retained", true).await;
    let mut fixture = TestUplink::new(&url(&broker));
    assert_eq!(fixture.command().await, "queued and retained");
    onlooker.publish(&input, "now", false).await;
    assert_eq!(fixture.command().await, "now", "the retained copy is the same command");
}

#[tokio::test]
async fn the_last_will_follows_a_kill_and_not_a_stop() {
    let broker = Mosquitto::start();
    let mut onlooker = OtherClient::new(broker.port).await;
    let output = Topics::new("cam").command_output;
    let fixture = TestUplink::new(&url(&broker));
    fixture.online().await;
    assert_eq!(fixture.stop().await, 0);
    assert_eq!(statuses(&[onlooker.next(&output).await]), ["stopped"]);
    let fixture = TestUplink::new(&url(&broker));
    fixture.online().await;
    drop(fixture);
    assert_eq!(
        statuses(&[onlooker.next(&output).await]),
        ["offline"],
        "of the second, none of the first"
    );
}

#[tokio::test]
async fn order_survives_a_restart_of_the_broker() {
    let mut broker = Mosquitto::start();
    let mut onlooker = OtherClient::new(broker.port).await;
    let fixture = TestUplink::new(&url(&broker));
    let topic = fixture.topics.inference_output.clone();
    fixture.infer(0..50);
    fixture.drained().await;
    let mut received = Vec::new();
    while received.len() < 50 {
        received.push(onlooker.next(&topic).await);
    }
    broker.down();
    fixture.offline().await;
    fixture.infer(50..100);
    broker.up();
    fixture.online().await;
    fixture.drained().await;
    while received.last().is_none_or(|last| last != "99") {
        received.push(onlooker.next(&topic).await);
    }
    assert_eq!(firsts(&received), numbers(0..100));
    assert_eq!(fixture.stats.delivered.get(), 100);
}

#[tokio::test]
async fn websocket_works() {
    let broker = Mosquitto::start_with(tempfile::tempdir().expect("a directory"), "protocol websockets");
    let fixture = TestUplink::new(&format!("ws://127.0.0.1:{}/mqtt", broker.port));
    fixture.online().await;
    fixture.outbox.push(Message::inference(
        &fixture.topics,
        vec![b'x'; 128 * 1024],
        Qos::AtLeastOnce,
    ));
    fixture.infer(0..50);
    fixture.drained().await;
    assert_eq!(fixture.stats.delivered.get(), 51);
    assert_eq!(fixture.stop().await, 0);
}

/// A directory with `ca.pem`, `other-ca.pem`, and `cert.pem`/`key.pem` for `localhost` signed by the first.
fn certificates() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = |name| {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA")
    };
    let (ca, other) = (authority("the CA"), authority("another CA"));
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let certificate = params.signed_by(&key, &ca).expect("signed");
    for (name, content) in [
        ("ca.pem", ca.pem()),
        ("other-ca.pem", other.pem()),
        ("cert.pem", certificate.pem()),
        ("key.pem", key.serialize_pem()),
    ] {
        std::fs::write(directory.path().join(name), content).expect("written");
    }
    directory
}

fn with_tls(protocol: &str) -> Mosquitto {
    let directory = certificates();
    let path = directory.path().display();
    let lines = format!("{protocol}\ncertfile {path}/cert.pem\nkeyfile {path}/key.pem");
    Mosquitto::start_with(directory, &lines)
}

#[tokio::test]
async fn tls_works_with_the_right_ca_over_tcp_and_websocket() {
    for (scheme, protocol) in [("mqtts", "protocol mqtt"), ("wss", "protocol websockets")] {
        let broker = with_tls(protocol);
        let mut settings = settings(&format!("{scheme}://localhost:{}", broker.port));
        settings.ca = Some(broker.directory.path().join("ca.pem"));
        let fixture = TestUplink::with(settings);
        fixture.infer(0..20);
        fixture.drained().await;
        assert_eq!(fixture.stop().await, 0, "{scheme}");
    }
}

#[tokio::test]
async fn a_wrong_ca_and_a_wrong_name_are_explained() {
    for (scheme, protocol) in [("mqtts", "protocol mqtt"), ("wss", "protocol websockets")] {
        let broker = with_tls(protocol);
        for (host, ca, words) in [
            (
                "localhost",
                "other-ca.pem",
                "no CA that this machine trusts has signed it",
            ),
            ("127.0.0.1", "ca.pem", "another host name"),
            ("localhost", "missing.pem", "missing.pem"),
        ] {
            let mut settings = settings(&format!("{scheme}://{host}:{}", broker.port));
            settings.ca = Some(broker.directory.path().join(ca));
            let reason = TestUplink::with(settings).offline().await.to_string();
            assert!(reason.contains(words), "{scheme} {ca}: {reason}");
        }
    }
}
