//! Start and end of the process: the locks, the signals, and the command `stop`.

mod device_dir_lock;
mod foreign_device_dir;
mod lock;
mod signals;
mod terminate;

pub use device_dir_lock::DeviceDirLock;
pub use foreign_device_dir::replace_foreign_device_dir;
pub use lock::{LockError, LockFile, lock_path};
pub use signals::StopSignals;
pub use terminate::{TerminateError, Termination, holder, terminate};
