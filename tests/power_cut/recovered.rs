//! What the spool of the library gives back after a power cut.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ei_greengrass::config::Qos;
use ei_greengrass::device::Topics;
use ei_greengrass::status::stats::Stats;
use ei_greengrass::uplink::outbox::OutboxBounds;
use ei_greengrass::uplink::{Message, Outbox, Spool, SpoolPolicy, SpoolSettings};

use crate::support::daemon::LIMIT;

/// Published after the start; it comes after everything that is on disk.
const MARKER: &str = "the first message of the new run";

/// Opens the spool at `path`, and returns its messages in the order in which they are delivered. All of them are delivered then.
pub async fn deliver(path: &Path) -> Vec<String> {
    let outbox = Arc::new(Outbox::new(OutboxBounds::default(), Arc::new(Stats::default())));
    let settings = SpoolSettings {
        path: path.to_owned(),
        max_bytes: 64 << 20,
        policy: SpoolPolicy {
            grace: Duration::ZERO,
            group_interval: Duration::ZERO,
            ..SpoolPolicy::default()
        },
    };
    let spool = Spool::start(settings, Arc::clone(&outbox)).expect("a thread");
    outbox.push(Message::inference(&Topics::new("cam"), MARKER, Qos::AtLeastOnce));
    outbox.connected();
    let mut delivered = Vec::new();
    loop {
        match outbox.next_to_send() {
            Some((token, message)) => {
                assert!(outbox.acked(token));
                let payload = String::from_utf8_lossy(&message.payload).into_owned();
                if payload == MARKER {
                    break;
                }
                delivered.push(payload);
            }
            None => tokio::time::timeout(LIMIT, outbox.pushed())
                .await
                .expect("another message"),
        }
    }
    let left = spool.finish(tokio::time::Instant::now() + LIMIT).await;
    assert_eq!((left.on_disk, left.in_memory), (0, 0), "everything is delivered");
    delivered
}
