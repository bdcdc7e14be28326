//! `ei-greengrass stop`: ask the running daemon to end, and make sure it did.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;

use super::lock::{read_pid, regular};

/// Greengrass gives a shutdown script 15 s; removal, SIGTERM and SIGKILL share them.
const WAIT_AFTER_REMOVAL: Duration = Duration::from_millis(500);
/// An orderly stop takes at most 4 s.
const WAIT_AFTER_SIGTERM: Duration = Duration::from_secs(6);
const WAIT_AFTER_SIGKILL: Duration = Duration::from_secs(3);
/// There is no event for the release of somebody else's lock; look at this interval.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How the daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Termination {
    /// There was none.
    NotRunning,
    /// It ended by itself after the lock file was removed.
    Ended,
    /// It ended after SIGTERM.
    AfterSigterm,
    /// It had to be killed.
    Killed,
}

/// Why the daemon could not be ended.
#[derive(Debug, Error)]
pub enum TerminateError {
    /// The lock file could not be read or removed.
    #[error("the lock file {} cannot be used: {source}; run `stop` as the user that runs the component", path.display())]
    LockFile {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process may not be signalled by this user, or its pid is not known.
    #[error(
        "the running daemon ({holder}) cannot be signalled: {reason}; run `stop` as the user that runs the component, or as root"
    )]
    NotAllowed {
        /// Its pid in words.
        holder: String,
        /// What is in the way.
        reason: String,
    },
    /// It is still there after SIGKILL.
    #[error(
        "pid {pid} is still there after SIGKILL: it hangs in the kernel, probably in a device driver; restart the machine"
    )]
    StillThere {
        /// The process.
        pid: u32,
    },
}

/// Removes the lock file and waits until its holder is gone; signals it when it takes too long.
///
/// The holder's lock, not its pid, tells whether it is still there: a pid can belong to somebody else by now.
pub fn terminate(path: &Path) -> Result<Termination, TerminateError> {
    let lock_error = |source| TerminateError::LockFile {
        path: path.to_owned(),
        source,
    };
    let mut file = match open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Termination::NotRunning),
        Err(e) => return Err(lock_error(e)),
    };
    let held = !is_free(&file).map_err(lock_error)?;
    let pid = read_pid(&mut file);
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(lock_error(e)),
        _ => {}
    }
    if !held {
        return Ok(Termination::NotRunning);
    }
    if released_within(&file, WAIT_AFTER_REMOVAL).map_err(lock_error)? {
        return Ok(Termination::Ended);
    }
    let pid = signalable(pid, &file)?;
    for (signal, wait, ended) in [
        (Signal::TERM, WAIT_AFTER_SIGTERM, Termination::AfterSigterm),
        (Signal::KILL, WAIT_AFTER_SIGKILL, Termination::Killed),
    ] {
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(e) => {
                let holder = format!("pid {}", pid.as_raw_nonzero());
                return Err(TerminateError::NotAllowed {
                    holder,
                    reason: io::Error::from(e).to_string(),
                });
            }
        }
        if released_within(&file, wait).map_err(lock_error)? {
            return Ok(ended);
        }
    }
    Err(TerminateError::StillThere {
        pid: pid.as_raw_nonzero().get().unsigned_abs(),
    })
}

/// The pid of the daemon that holds the lock file; `None`: none does. Changes nothing.
///
/// # Errors
/// The file cannot be read, as another user's.
pub fn holder(path: &Path) -> io::Result<Option<u32>> {
    let mut file = match open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    // Asking for the lock would be in the way of a daemon that starts now: only when the pid is somebody's.
    match read_pid(&mut file).filter(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
        Some(pid) if !is_free(&file)? => Ok(Some(pid)),
        _ => Ok(None),
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Nobody may ever write into a pipe.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.read(true).custom_flags(flags.bits() as i32);
    options.open(path).and_then(regular)
}

/// The pid to signal, if the process with it belongs to the owner of the lock file: `/tmp` is shared, and a file with
/// somebody else's pid in it must not make root kill that process.
fn signalable(pid: Option<u32>, file: &File) -> Result<Pid, TerminateError> {
    let refuse = |holder: String, reason: &str| TerminateError::NotAllowed {
        holder,
        reason: reason.to_owned(),
    };
    let pid = pid.ok_or_else(|| refuse("pid unknown".into(), "its lock file holds no pid"))?;
    let holder = || format!("pid {pid}");
    let owner = std::fs::metadata(format!("/proc/{pid}"))
        .map_err(|e| refuse(holder(), &e.to_string()))?
        .uid();
    let file_owner = file.metadata().map_err(|e| refuse(holder(), &e.to_string()))?.uid();
    if owner != file_owner {
        return Err(refuse(
            holder(),
            "the process does not belong to the owner of the lock file",
        ));
    }
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| refuse(holder(), "that is no valid pid"))
}

fn released_within(file: &File, limit: Duration) -> io::Result<bool> {
    let end = Instant::now() + limit;
    loop {
        if is_free(file)? {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whether nobody holds the lock now.
fn is_free(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            flock(file, FlockOperation::Unlock)?;
            Ok(true)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::LockFile;
    use super::*;

    #[test]
    fn without_a_lock_file_nothing_is_running() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(terminate(&dir.path().join("lock")).unwrap(), Termination::NotRunning);
    }

    #[test]
    fn a_stale_file_is_removed_and_its_pid_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        // Our own pid: were it signalled, this test would die.
        std::fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        assert_eq!(terminate(&path).unwrap(), Termination::NotRunning);
        assert!(!path.exists());
    }

    #[test]
    fn a_daemon_that_leaves_when_the_file_goes_is_not_signalled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = LockFile::acquire(&path).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while lock.still_there() {
                    std::thread::yield_now();
                }
                drop(lock);
            });
            assert_eq!(terminate(&path).unwrap(), Termination::Ended);
        });
    }

    #[test]
    fn the_holder_is_named_only_while_it_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(holder(&path).unwrap(), None);
        let lock = LockFile::acquire(&path).unwrap();
        assert_eq!(holder(&path).unwrap(), Some(std::process::id()));
        drop(lock);
        assert!(path.exists());
        assert_eq!(
            holder(&path).unwrap(),
            None,
            "stale, with the pid of a process that runs"
        );
    }

    #[test]
    fn a_pid_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("lock")).unwrap();
        assert!(matches!(
            signalable(None, &file),
            Err(TerminateError::NotAllowed { .. })
        ));
        assert!(matches!(
            signalable(Some(u32::MAX), &file),
            Err(TerminateError::NotAllowed { .. })
        ));
    }
}
