//! `ei-greengrass stop`: requests a stop and waits until the running component has ended.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;

use super::lock::{read_pid, require_regular};

/// A shutdown script of Greengrass may take 15 s. The three waits together take less.
const WAIT_AFTER_REMOVAL: Duration = Duration::from_millis(500);
/// A normal stop takes at most 4 s.
const WAIT_AFTER_SIGTERM: Duration = Duration::from_secs(6);
const WAIT_AFTER_SIGKILL: Duration = Duration::from_secs(3);
/// Polling interval: there is no event for the release of another process's lock.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How the component ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Termination {
    /// No component was running.
    NotRunning,
    /// It ended by itself after the lock file was removed.
    Ended,
    /// It ended after SIGTERM.
    AfterSigterm,
    /// It was killed.
    Killed,
}

/// Why the component could not be stopped.
#[derive(Debug, Error)]
pub enum TerminateError {
    /// The lock file could not be read or removed.
    #[error("the lock file {} cannot be used: {source}; run `stop` as the user that runs the component", path.display())]
    LockFile {
        /// The lock file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The process may not be signalled by this user, or its pid is not known.
    #[error(
        "the running component ({holder}) cannot be signalled: {reason}; run `stop` as the user that runs the component, or as root"
    )]
    NotAllowed {
        /// Its pid, as text.
        holder: String,
        /// Why it cannot be signalled.
        reason: String,
    },
    /// The process still exists after SIGKILL.
    #[error(
        "pid {pid} still exists after SIGKILL: it hangs in the kernel, probably in a device driver; restart the machine"
    )]
    StillThere {
        /// The process.
        pid: u32,
    },
}

/// Removes the lock file and waits until its holder has ended. Signals the holder if that takes too long.
///
/// The lock shows whether the holder still exists. The pid does not: the system may have given it to another process.
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
    let pid = check_signalable(pid, &file)?;
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

/// The pid of the process that holds the lock file; `None`: no process does. Changes nothing.
///
/// # Errors
/// The file cannot be read, for example because it belongs to another user.
pub fn holder(path: &Path) -> io::Result<Option<u32>> {
    let mut file = match open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    // Testing the lock can disturb a component that is just starting, so it is tested only if a process has the pid.
    match read_pid(&mut file).filter(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
        Some(pid) if !is_free(&file)? => Ok(Some(pid)),
        _ => Ok(None),
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Without NONBLOCK, opening a pipe waits for a writer.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.read(true).custom_flags(flags.bits() as i32);
    options.open(path).and_then(require_regular)
}

/// Returns the pid to signal, if the process belongs to the owner of the lock file. `/tmp` is shared: a lock file with the pid
/// of another user's process must not make root kill that process.
fn check_signalable(pid: Option<u32>, file: &File) -> Result<Pid, TerminateError> {
    let refuse = |holder: String, reason: &str| TerminateError::NotAllowed {
        holder,
        reason: reason.to_owned(),
    };
    let pid = pid.ok_or_else(|| refuse("pid unknown".into(), "its lock file contains no pid"))?;
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
        .ok_or_else(|| refuse(holder(), "the pid is not valid"))
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
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Whether no process holds the lock now.
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
    fn a_lock_file_without_a_holder_is_removed_and_its_pid_is_not_signalled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        // Our own pid: a signal would end this test.
        std::fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        assert_eq!(terminate(&path).unwrap(), Termination::NotRunning);
        assert!(!path.exists());
    }

    #[test]
    fn a_holder_that_ends_after_the_file_is_removed_is_not_signalled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = LockFile::acquire(&path).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while lock.exists_at_path() {
                    std::thread::yield_now();
                }
                drop(lock);
            });
            assert_eq!(terminate(&path).unwrap(), Termination::Ended);
        });
    }

    #[test]
    fn the_holder_is_found_only_while_it_holds_the_lock() {
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
            "no process holds the file, although the process with its pid runs"
        );
    }

    #[test]
    fn a_pid_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("lock")).unwrap();
        assert!(matches!(
            check_signalable(None, &file),
            Err(TerminateError::NotAllowed { .. })
        ));
        assert!(matches!(
            check_signalable(Some(u32::MAX), &file),
            Err(TerminateError::NotAllowed { .. })
        ));
    }
}
