//! Starts and stops the spool, which keeps undelivered messages on disk.

use std::sync::Arc;

use tokio::time::Instant;

use super::setup::{Setup, SinkTarget};
use crate::uplink::{Outbox, Spool, SpoolPolicy, SpoolSettings};

/// Starts the spool if messages go to a broker. Without it, the outbox keeps messages in memory only.
pub(super) fn start(setup: &Setup, device: &str, outbox: &Arc<Outbox>) -> Option<Spool> {
    if matches!(setup.sink, SinkTarget::Stdout) {
        return None;
    }
    let settings = SpoolSettings {
        path: setup.config.work_dir.join(device).join("spool.redb"),
        max_bytes: setup.config.spool_max_bytes,
        policy: SpoolPolicy::default(),
    };
    Spool::start(settings, outbox.clone())
        .inspect_err(|error| {
            tracing::error!(%error, "The spool thread cannot be started; undelivered messages are kept in memory only");
        })
        .ok()
}

/// Writes undelivered messages to disk until the deadline, and logs how many are on disk and how many are lost.
pub(super) async fn finish(spool: Option<Spool>, outbox: &Outbox, deadline: Instant) {
    let undelivered = match spool {
        Some(spool) => spool.finish(deadline).await,
        None => outbox.undelivered(),
    };
    if undelivered.on_disk > 0 {
        tracing::warn!(
            messages = undelivered.on_disk,
            "Undelivered messages wait on disk for the next start; none of them is lost"
        );
    }
    if undelivered.in_memory > 0 {
        tracing::error!(
            messages = undelivered.in_memory,
            "Messages are lost: the broker did not acknowledge them before the stop, and they could not be written to disk"
        );
    }
    if undelivered.others > 0 {
        tracing::warn!(
            messages = undelivered.others,
            "Metrics, answers or notices were not delivered before the stop"
        );
    }
}
