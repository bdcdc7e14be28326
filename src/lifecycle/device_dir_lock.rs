//! The directory of a device, held as long as a process works for it: longer than the lock file, whose removal asks for the end.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// A device's directory. Held from [`DeviceDirLock::try_hold`] until it is dropped.
#[derive(Debug)]
pub struct DeviceDirLock(File);

impl DeviceDirLock {
    /// Opens the directory; makes it when it is missing. `None`: it cannot be used, and holds nobody off.
    pub fn open(directory: &Path) -> Option<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        match made.and_then(|()| File::open(directory)) {
            Ok(opened) => Some(Self(opened)),
            Err(e) => {
                tracing::debug!("the directory {} cannot be used: {e}", directory.display());
                None
            }
        }
    }

    /// Holds it. `false`: another process does.
    pub fn try_hold(&self) -> bool {
        // A file system without locks holds nobody off.
        flock(&self.0, FlockOperation::NonBlockingLockExclusive) != Err(rustix::io::Errno::WOULDBLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_held_by_one_until_it_is_dropped() {
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
    fn one_that_cannot_be_made_holds_nobody_off() {
        assert!(DeviceDirLock::open(Path::new("/dev/null/cam")).is_none());
    }
}
