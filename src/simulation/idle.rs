//! Tells a simulation when nothing can happen any more without the next moment of virtual time.
//!
//! tokio advances paused time whenever no task is ready, even if a socket has become readable a moment before. So the simulation
//! first gets the turn before each park of the runtime, until the sockets were polled and nothing more happens.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// The moments before the runtime parks.
#[derive(Debug, Clone, Default)]
pub(super) struct Idle(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    waker: Option<Waker>,
    /// The runtime was about to park since the last question.
    reached: bool,
    /// The next park is not interrupted: time goes on.
    time_may_pass: bool,
}

impl Idle {
    /// For [`tokio::runtime::Builder::on_thread_park`].
    pub fn before_park(&self) {
        let mut state = self.0.lock();
        if std::mem::take(&mut state.time_may_pass) {
            return;
        }
        state.reached = true;
        if let Some(waker) = state.waker.take() {
            drop(state);
            waker.wake();
        }
    }

    /// Waits until all tasks are waiting. The runtime then polls its sockets once, without time passing.
    pub async fn reached(&self) {
        self.0.lock().reached = false;
        std::future::poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.reached {
            return Poll::Ready(());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Lets time pass until a timer of any task fires, at the latest until `then`.
    pub async fn pass_time(&self, start: Instant, then: Duration) {
        {
            let mut state = self.0.lock();
            state.time_may_pass = true;
            state.reached = false;
        }
        tokio::select! {
            biased;
            () = sleep_until(start + then) => {}
            () = std::future::poll_fn(|context| self.poll(context)) => {}
        }
        self.0.lock().time_may_pass = false;
    }
}
