//! The task that sends the summaries in their order, each once.

use std::sync::Arc;

use tokio::sync::Notify;

use super::recorder::MonitorState;
use crate::studio::channel::{ChannelHandle, Outgoing};

/// Sends summaries for as long as it is polled. `sent_all` is notified when none waits.
pub(super) async fn run(state: Arc<MonitorState>, channel: ChannelHandle, sent_all: Arc<Notify>) {
    loop {
        channel.connected().await;
        let Some((number, text)) = oldest(&state).await else {
            sent_all.notify_one();
            state.has_summary.notified().await;
            continue;
        };
        // If the connection ends first, the summary is sent on the next one.
        if channel.confirm(Outgoing::InferenceSummary(text)).await.is_ok() {
            state.stats.monitor_summaries_sent.inc();
            let state = state.clone();
            let removed = tokio::task::spawn_blocking(move || state.pending.lock().remove(number));
            // Fails only if the runtime ends.
            let _ = removed.await;
        }
    }
}

async fn oldest(state: &Arc<MonitorState>) -> Option<(u64, bytes::Bytes)> {
    let state = state.clone();
    let read = move || {
        let mut dropped = 0;
        let oldest = state.pending.lock().oldest(&mut dropped);
        state.stats.monitor_summaries_dropped.add(dropped);
        oldest
    };
    tokio::task::spawn_blocking(read).await.ok().flatten()
}
