//! Ends a blocking wait on the model from another thread.

use std::fmt;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A handle another thread keeps to end a blocking [`Model::start`](super::Model::start) or
/// [`Model::receive`](super::Model::receive): both return [`ModelError::Interrupted`](super::ModelError::Interrupted)
/// promptly once it is tripped. It cannot be reset: each start gets a new one, or shares one with everything that
/// shall end together.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    tripped: Condvar,
}

#[derive(Default)]
struct State {
    tripped: bool,
    /// The connection to shut down. Weak: a forgotten handle must not keep the model's socket open.
    socket: Weak<UnixStream>,
}

impl Interrupt {
    /// A handle that is not tripped.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the waiting of the model's thread, now and from now on.
    pub fn trip(&self) {
        let mut state = self.0.state.lock();
        state.tripped = true;
        if let Some(socket) = state.socket.upgrade() {
            // Fails only when the other side has already gone, which ends the waiting as well.
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.0.tripped.notify_all();
    }

    /// Whether [`trip`](Self::trip) was called.
    pub fn is_tripped(&self) -> bool {
        self.0.state.lock().tripped
    }

    /// Makes `trip` shut down this connection; one that comes too late is shut down at once.
    pub(super) fn watch(&self, socket: &Arc<UnixStream>) {
        let mut state = self.0.state.lock();
        if state.tripped {
            let _ = socket.shutdown(Shutdown::Both);
        }
        state.socket = Arc::downgrade(socket);
    }

    /// Waits for `pause`, or less when tripped; returns whether it is tripped.
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
