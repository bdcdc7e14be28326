//! The spool behind the outbox: where it is, and what is said of it at the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;

use super::setup::{LinkTarget, Setup};
use crate::uplink::{Outbox, Policy, Spool, SpoolSettings};

/// The spool of a device.
pub(super) fn spool_path(work_dir: &Path, device: &str) -> PathBuf {
    work_dir.join(device).join("spool.redb")
}

/// Starts the spool, if messages go to a broker. Without one the outbox works in memory.
pub(super) fn open_spool(setup: &Setup, device: &str, outbox: &Arc<Outbox>) -> Option<Spool> {
    if matches!(setup.link, LinkTarget::Screen) {
        return None;
    }
    let settings = SpoolSettings {
        path: spool_path(&setup.config.work_dir, device),
        max_bytes: setup.config.spool_max_bytes,
        policy: Policy::default(),
    };
    Spool::start(settings, outbox.clone())
        .inspect_err(|e| {
            tracing::error!("the system gives no thread for the spool, messages wait in memory alone: {e}")
        })
        .ok()
}

/// Puts on disk what was not delivered, until the deadline, and says what is left and where.
pub(super) async fn report_rest(spool: Option<Spool>, outbox: &Outbox, deadline: Instant) {
    let rest = match spool {
        Some(spool) => spool.finish(deadline).await,
        None => outbox.rest(),
    };
    if rest.on_disk > 0 {
        tracing::warn!(
            "{} messages could not be delivered and wait on disk for the next start; nothing of them is lost",
            rest.on_disk
        );
    }
    if rest.in_memory > 0 {
        tracing::error!(
            "{} messages are lost: the broker did not take them before the end, and they could not be written to disk",
            rest.in_memory
        );
    }
    if rest.others > 0 {
        tracing::warn!(
            "{} messages that are no inferences (metrics, answers, states) were not delivered before the end",
            rest.others
        );
    }
}
