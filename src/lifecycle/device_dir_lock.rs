//! A lock on the directory of a device. A process holds it until it ends; the lock file is gone earlier, because its removal
//! requests a stop.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// The directory of a device. Locked from [`DeviceDirLock::try_hold`] until it is dropped.
#[derive(Debug)]
pub struct DeviceDirLock(File);

impl DeviceDirLock {
    /// Opens the directory, and creates it if it is missing. `None`: it cannot be used, so there is no lock.
    pub fn open(directory: &Path) -> Option<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        match made.and_then(|()| File::open(directory)) {
            Ok(opened) => Some(Self(opened)),
            Err(error) => {
                tracing::debug!(path = %directory.display(), %error, "The directory of the device cannot be used");
                None
            }
        }
    }

    /// Takes the lock. `false`: another process holds it.
    pub fn try_hold(&self) -> bool {
        // On a file system without locks every process succeeds.
        flock(&self.0, FlockOperation::NonBlockingLockExclusive) != Err(rustix::io::Errno::WOULDBLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_the_lock_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("work/cam");
        let (first, second) = (
            DeviceDirLock::open(&below).unwrap(),
            DeviceDirLock::open(&below).unwrap(),
        );
        assert!(first.try_hold());
        assert!(!second.try_hold());
        drop(first);
        assert!(second.try_hold());
    }

    #[test]
    fn a_directory_that_cannot_be_created_gives_no_lock() {
        assert!(DeviceDirLock::open(Path::new("/dev/null/cam")).is_none());
    }
}
