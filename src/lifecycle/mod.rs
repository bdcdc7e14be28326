//! Beginning and end of the daemon: the lock file, the signals, and `stop` from outside.

mod lock;
mod place;
mod signals;
mod terminate;

pub use lock::{LockError, LockFile, lock_path};
pub use place::Place;
pub use signals::StopSignals;
pub use terminate::{TerminateError, Termination, holder, terminate};
