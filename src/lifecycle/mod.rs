//! Beginning and end of the daemon: the lock file, the signals, and `stop` from outside.

mod device_dir_lock;
mod lock;
mod signals;
mod terminate;

pub use device_dir_lock::DeviceDirLock;
pub use lock::{LockError, LockFile, lock_path};
pub use signals::StopSignals;
pub use terminate::{TerminateError, Termination, holder, terminate};
