//! Starting and stopping the uplink.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::command_inbox::{MAX_PENDING, ReceivedCommand};
use super::driver::{Driver, StopOrder};
use super::link_state::LinkState;
use super::message::Message;
use super::outbox::Outbox;
use super::settings::Settings;
use crate::status::stats::Stats;
use crate::util::backoff::BackoffPolicy;
use crate::util::panics::PanicRestart;

/// How the uplink ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopReport {
    /// Messages the broker has not acknowledged; they are still in the outbox.
    pub undelivered: usize,
}

/// The running uplink. Dropping it ends the connection at once, with the last will.
#[derive(Debug)]
pub struct Uplink {
    state: watch::Receiver<LinkState>,
    stop: Option<oneshot::Sender<StopOrder>>,
    driver: JoinHandle<()>,
    commands: mpsc::Sender<ReceivedCommand>,
    outbox: Arc<Outbox>,
}

/// Starts the driver on the current tokio runtime. The first connection attempt begins at once.
///
/// The receiver returns cleared commands in their order. When it is full or dropped, the uplink answers with an error.
pub fn start(settings: Settings, outbox: Arc<Outbox>, stats: Arc<Stats>) -> (Uplink, mpsc::Receiver<ReceivedCommand>) {
    let (commands, received) = mpsc::channel(MAX_PENDING);
    let (state_sender, state) = watch::channel(LinkState::Connecting { attempt: 1 });
    let (stop, stop_order) = oneshot::channel();
    let waits = settings.limits.backoff;
    let driver_commands = commands.clone();
    let start = {
        let outbox = Arc::clone(&outbox);
        move || {
            let (settings, outbox, stats) = (settings.clone(), outbox.clone(), stats.clone());
            Driver::new(settings, outbox, stats, driver_commands.clone(), state_sender.clone())
        }
    };
    let uplink = Uplink {
        state,
        stop: Some(stop),
        driver: tokio::spawn(run_driver(start, waits, Arc::clone(&outbox), stop_order)),
        commands,
        outbox,
    };
    (uplink, received)
}

/// Runs the driver until the stop; after a panic it starts another one.
async fn run_driver(
    start: impl Fn() -> Driver,
    waits: BackoffPolicy,
    outbox: Arc<Outbox>,
    mut stop_order: oneshot::Receiver<StopOrder>,
) {
    let mut restart = PanicRestart::with_policy("the connection to the broker", waits);
    while let Err(wait) = restart.attempt(start().run(&mut stop_order)).await {
        outbox.connection_lost();
        if stop_order.is_terminated() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // The connection is already closed, and the broker has sent the last will.
            _ = &mut stop_order => return,
        }
    }
}

impl Uplink {
    /// The state of the connection.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// The sender of the channel of commands, for commands from elsewhere.
    pub fn commands(&self) -> mpsc::Sender<ReceivedCommand> {
        self.commands.clone()
    }

    /// Stops in an orderly way within `limit`: delivers the waiting messages, then `final_notice`, waits for its
    /// acknowledgement, and disconnects so that no last will follows. Half of the time is for the waiting messages; then
    /// the notice is sent beside them. Without its acknowledgement there is no DISCONNECT, so the broker sends the last will.
    pub async fn stop(mut self, final_notice: Option<Message>, limit: Duration) -> StopReport {
        if let Some(stop) = self.stop.take() {
            // Sending fails only after the driver panicked; the wait below then ends at once.
            let _ = stop.send(StopOrder {
                notice: final_notice,
                limit,
            });
        }
        if tokio::time::timeout(limit, &mut self.driver).await.is_err() {
            self.driver.abort();
        }
        StopReport {
            undelivered: self.outbox.depth(),
        }
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
