//! Start and end of the process: the locks, the signals, and the command `stop`.

mod device_dir_lock;
mod flock_holder;
mod foreign_device_dir;
mod foreign_lock;
mod lock;
mod signals;
mod terminate;

pub use device_dir_lock::DeviceDirLock;
pub use foreign_device_dir::{replace_foreign_device_dir, secure_dir};
pub use foreign_lock::{all_lock_paths, objection as lock_objection, own_lock_path};
pub use lock::{LockError, LockFile, lock_path};
pub use signals::StopSignals;
pub use terminate::{TerminateError, Termination, holder, terminate};
