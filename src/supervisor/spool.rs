//! The spool that keeps undelivered messages of the outbox on disk.

use std::sync::Arc;

use tokio::time::Instant;

use super::setup::{Setup, SinkTarget};
use crate::uplink::{Outbox, Spool, SpoolPolicy, SpoolSettings};

/// Starts the spool if messages go to a broker. Without it the outbox works in memory.
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

/// Writes undelivered messages to disk until the deadline, and logs how many are left and where.
pub(super) async fn finish(spool: Option<Spool>, outbox: &Outbox, deadline: Instant) {
    let rest = match spool {
        Some(spool) => spool.finish(deadline).await,
        None => outbox.rest(),
    };
    if rest.on_disk > 0 {
        tracing::warn!(
            messages = rest.on_disk,
            "Messages could not be delivered and wait on disk for the next start; nothing of them is lost"
        );
    }
    if rest.in_memory > 0 {
        tracing::error!(
            messages = rest.in_memory,
            "Messages are lost: the broker did not take them before the end, and they could not be written to disk"
        );
    }
    if rest.others > 0 {
        tracing::warn!(
            messages = rest.others,
            "Messages that are no inferences (metrics, answers, states) were not delivered before the end"
        );
    }
}
