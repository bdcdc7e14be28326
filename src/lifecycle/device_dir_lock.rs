//! The lock on the directory of a device. A process holds it until it ends, longer than the lock file.

use std::fs::File;
use std::path::Path;

use crate::util::private_dir;
use rustix::fs::{FlockOperation, flock};

/// The directory of a device. It is locked from [`DeviceDirLock::try_lock`] until this is dropped.
#[derive(Debug)]
pub struct DeviceDirLock(File);

impl DeviceDirLock {
    /// Opens the directory, and creates it if it is missing. `None`: it cannot be used, so there is no lock.
    pub fn open(directory: &Path) -> Option<Self> {
        let made = private_dir::create_trusted(directory);
        match made.and_then(|()| private_dir::open_trusted(directory)) {
            Ok(opened) => Some(Self(opened)),
            Err(e) => {
                tracing::debug!(path = %directory.display(), error = %e, "The device directory cannot be used");
                None
            }
        }
    }

    /// Takes the lock. Returns `false` if another process holds it.
    pub fn try_lock(&self) -> bool {
        // On a file system without locks, this always succeeds.
        flock(&self.0, FlockOperation::NonBlockingLockExclusive) != Err(rustix::io::Errno::WOULDBLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holder_has_the_lock_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("work/cam");
        let (first, second) = (
            DeviceDirLock::open(&below).unwrap(),
            DeviceDirLock::open(&below).unwrap(),
        );
        assert!(first.try_lock());
        assert!(!second.try_lock());
        drop(first);
        assert!(second.try_lock());
    }

    #[test]
    fn a_directory_that_cannot_be_created_is_not_locked() {
        assert!(DeviceDirLock::open(Path::new("/dev/null/cam")).is_none());
    }
}
