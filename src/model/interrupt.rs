//! Ends a blocking wait on the model from another thread.

use std::fmt;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A handle with which another thread ends a blocking [`Model::start`](super::Model::start) or
/// [`Model::receive`](super::Model::receive): both return [`ModelError::Interrupted`](super::ModelError::Interrupted)
/// soon after [`trip`](Self::trip). It cannot be reset.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<InterruptInner>);

#[derive(Default)]
struct InterruptInner {
    state: Mutex<InterruptState>,
    tripped: Condvar,
}

#[derive(Default)]
struct InterruptState {
    tripped: bool,
    /// The connection to shut down. Weak: a handle must not keep the model's socket open.
    socket: Weak<UnixStream>,
}

impl Interrupt {
    /// A new handle.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the current wait and all later ones.
    pub fn trip(&self) {
        let mut state = self.0.state.lock();
        state.tripped = true;
        if let Some(socket) = state.socket.upgrade() {
            // Fails only when the model has closed the connection, which ends the wait as well.
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.0.tripped.notify_all();
    }

    /// Whether [`trip`](Self::trip) was called.
    pub fn is_tripped(&self) -> bool {
        self.0.state.lock().tripped
    }

    /// Sets the connection that `trip` shuts down. Shuts it down at once after a `trip`.
    pub(super) fn watch(&self, socket: &Arc<UnixStream>) {
        let mut state = self.0.state.lock();
        if state.tripped {
            let _ = socket.shutdown(Shutdown::Both);
        }
        state.socket = Arc::downgrade(socket);
    }

    /// Sleeps for `pause`, or until `trip`; returns [`is_tripped`](Self::is_tripped).
    pub(crate) fn pause(&self, pause: Duration) -> bool {
        let mut state = self.0.state.lock();
        if !state.tripped {
            self.0.tripped.wait_for(&mut state, pause);
        }
        state.tripped
    }
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Interrupt").field(&self.is_tripped()).finish()
    }
}
