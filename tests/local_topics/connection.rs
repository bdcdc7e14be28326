//! The connection to the local publish/subscribe, without a daemon.

use std::sync::Arc;
use std::time::Duration;

use ei_greengrass::config::Qos;
use ei_greengrass::device::Topics;
use ei_greengrass::local_topics::{LocalTopicsSettings, LocalTopicsTimes, start};
use ei_greengrass::nucleus::{self, LocalPubSub};
use ei_greengrass::status::health::HealthFlag;
use ei_greengrass::status::stats::Stats;
use ei_greengrass::uplink::outbox::OutboxBounds;
use ei_greengrass::uplink::{Message, MessageCopies, Outbox};
use ei_greengrass::util::secret::Secret;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::daemon::LIMIT;
use crate::support::nucleus::{Nucleus, Request};

/// The nucleus as the component knows it.
fn client(nucleus: &Nucleus) -> nucleus::Nucleus {
    nucleus::Nucleus::new(nucleus.socket(), Secret::new(nucleus.token()))
}

#[tokio::test]
async fn the_largest_payload_fits_into_a_packet_of_greengrass_lite() {
    let nucleus = Nucleus::start(json!({}));
    let pubsub = client(&nucleus).local_pubsub().await.unwrap();
    for topic in ["/t".to_owned(), Topics::new(&"d".repeat(128)).inference_output] {
        let max = LocalPubSub::max_payload(&topic);
        assert!((6900..7300).contains(&max), "{max}");
        pubsub.publish(&topic, vec![b' '; max].into()).await.unwrap();
        let published = |request: &Request| request.payload["topic"] == topic;
        // The stand-in records a request after its answer.
        let what = format!("a message on {topic}");
        nucleus
            .requests()
            .wait_for(&what, LIMIT, |requests| requests.iter().any(published).then_some(()));
    }
    // The stand-in closes the connection as Lite does.
    let error = pubsub.publish("/t", vec![b' '; 7500].into()).await.unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subscription_is_renewed_and_a_permission_that_comes_later_is_noticed() {
    let nucleus = Nucleus::start(json!({}));
    nucleus.refuse(&["PublishToTopic"]);
    let (stats, topics) = (Arc::new(Stats::default()), Arc::new(Topics::new("d")));
    let copies = Arc::new(MessageCopies::new(stats.clone()));
    let outbox = Outbox::new(OutboxBounds::default(), stats.clone()).with_copies(Some(copies.clone()));
    let outbox = Arc::new(outbox);
    let (commands, mut received) = mpsc::channel(4);
    let health = HealthFlag::default();
    let local_topics = start(LocalTopicsSettings {
        nucleus: client(&nucleus),
        topics: topics.clone(),
        qos: Qos::AtLeastOnce,
        copies,
        outbox: outbox.clone(),
        commands,
        refusal_answer: |refusal| json!({"error": refusal.to_string()}).to_string().into(),
        stats,
        health: health.clone(),
        times: LocalTopicsTimes {
            unauthorized_retry: Duration::from_millis(20),
            renewal: Duration::from_millis(50),
        },
    });
    let inference = || outbox.push(Message::inference(&topics, r#"{"n": 1}"#, Qos::AtLeastOnce));
    inference();
    let is_failing = async {
        while health.failure().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, is_failing).await.unwrap();
    nucleus.refuse(&[]);
    // Messages are dropped while the permission is missing.
    let is_well = async {
        while health.failure().is_some() {
            inference();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, is_well).await.unwrap();
    nucleus.wait_for_local("/inference/output", "an inference", |message| message["n"] == 1);

    let subscriptions = |requests: &[Request]| {
        let subscribes = requests
            .iter()
            .filter(|request| request.operation == "SubscribeToTopic");
        subscribes.count()
    };
    let before = nucleus.requests().with(subscriptions);
    nucleus.requests().wait_for("two renewals", LIMIT, |requests| {
        (subscriptions(requests) >= before + 2).then_some(())
    });
    // One that arrives between two subscriptions is lost.
    let command = async {
        loop {
            nucleus.publish(&topics.command_input, &json!({"cmd": "restart"}));
            if let Ok(command) = tokio::time::timeout(Duration::from_millis(20), received.recv()).await {
                return command.unwrap();
            }
        }
    };
    let command = tokio::time::timeout(LIMIT, command).await.unwrap();
    assert_eq!(command.payload, r#"{"cmd":"restart"}"#);
    local_topics.stop(tokio::time::Instant::now() + LIMIT).await;
}
