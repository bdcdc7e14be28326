//! The lock file: it allows one process per device, and its removal requests a stop.

use std::fs::{File, FileTimes, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, OFlags, flock};
use thiserror::Error;

use super::flock_holder::flock_holder;
use crate::util::path_names::with_suffix;
use crate::util::write_access;

/// Most attempts if the file is removed between opening and locking.
const ATTEMPTS: u32 = 10;

/// Why the lock could not be taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process runs for the same device.
    #[error(
        "another ei-greengrass is already running for this device (pid {}, lock file {}): stop it with `ei-greengrass stop`, \
         or give this one another device_name", pid.map_or("unknown".into(), |pid| pid.to_string()), path.display()
    )]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Pid of the holder, if it could be read.
        pid: Option<u32>,
    },
    /// The file could not be opened, locked or written.
    #[error(
        "the lock file {} cannot be used: {source}; remove it if it belongs to another user, or set lock_filename to a path \
         this user can write", path.display()
    )]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// `LOCK = <lock_filename>_<device name>`.
pub fn lock_path(lock_filename: &Path, device: &str) -> PathBuf {
    with_suffix(lock_filename, format!("_{device}"))
}

/// The held lock: an advisory lock on the open file, which contains the pid. Dropping it without [`LockFile::remove`] leaves
/// the file behind; the next start takes it over.
#[derive(Debug)]
pub struct LockFile {
    path: PathBuf,
    file: File,
}

impl LockFile {
    /// Takes the lock. Creates the file, or takes over one that no process holds. Never follows a symbolic link.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let io_error = |source| LockError::Io {
            path: path.to_owned(),
            source,
        };
        for _ in 0..ATTEMPTS {
            let mut file = match open_or_create(path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound && !directory(path).is_dir() => {
                    return Err(io_error(no_directory()));
                }
                // Another process removed or created the file in between.
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => continue,
                Err(e) => {
                    return Err(match flock_holder(path) {
                        Some(pid) => LockError::Held {
                            path: path.to_owned(),
                            pid: Some(pid),
                        },
                        None => io_error(e),
                    });
                }
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(LockError::Held {
                        path: path.to_owned(),
                        pid: read_pid(&mut file),
                    });
                }
                Err(e) => return Err(io_error(e.into())),
            }
            let lock = Self {
                path: path.to_owned(),
                file,
            };
            if lock.exists_at_path() {
                // The lock is held anyway. Without the pid, `stop` can only remove the file.
                if let Err(e) = lock.write_pid() {
                    tracing::warn!(path = %path.display(), error = %e, "The pid could not be written to the lock file");
                }
                return Ok(lock);
            }
        }
        Err(io_error(io::Error::other(
            "another program keeps creating and removing it",
        )))
    }

    /// Whether [`Self::acquire`] can use the file, apart from a process that holds it. Changes nothing.
    ///
    /// # Errors
    /// [`LockError::Io`]
    pub fn check(path: &Path) -> Result<(), LockError> {
        let checked = match options().open(path).and_then(require_regular) {
            Ok(_) => return Ok(()),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            Err(_) if !directory(path).is_dir() => Err(no_directory()),
            Err(_) => write_access::check_directory(directory(path)).map(|_| ()),
        };
        checked.map_err(|source| LockError::Io {
            path: path.to_owned(),
            source,
        })
    }

    /// Why an existing file cannot be opened; `None`: it can be, or it does not exist.
    pub(super) fn open_error(path: &Path) -> Option<io::Error> {
        let opened = options().open(path);
        opened.err().filter(|error| error.kind() != io::ErrorKind::NotFound)
    }

    /// Whether the locked file is still at its path. `false`: it was removed or replaced, which requests a stop.
    pub fn exists_at_path(&self) -> bool {
        match (std::fs::symlink_metadata(&self.path), self.file.metadata()) {
            (Ok(at_path), Ok(ours)) => at_path.ino() == ours.ino() && at_path.dev() == ours.dev(),
            (Err(e), _) if e.kind() == io::ErrorKind::NotFound => false,
            // An error of the disk or the directory does not mean that the file is gone.
            _ => true,
        }
    }

    /// Updates the times of the file: systemd-tmpfiles removes files from `/tmp` that were not used for days.
    ///
    /// # Errors
    /// The error of the system.
    pub fn update_times(&self) -> io::Result<()> {
        let now = SystemTime::now();
        self.file
            .set_times(FileTimes::new().set_accessed(now).set_modified(now))
    }

    /// Removes the file if it is still ours, and releases the lock.
    pub fn remove(self) {
        if self.exists_at_path()
            && let Err(e) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), error = %e, "The lock file could not be removed");
        }
    }

    fn write_pid(&self) -> io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    }
}

/// Never follows a symbolic link.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .mode(0o600)
        // Without NONBLOCK, opening a device can wait.
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    options
}

/// The directory of the file; a bare file name is in the current one.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn no_directory() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "its directory does not exist")
}

/// Opens an existing file, else creates one. These are two steps because Linux forbids `O_CREAT` on another user's file in a
/// sticky directory such as /tmp (`fs.protected_regular`), even for root.
fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = options();
    let file = match options.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => options.create_new(true).open(path),
        opened => opened,
    }?;
    require_regular(file)
}

/// Returns the file if it is a regular one: in `/tmp` another user may have created a pipe or directory with this name.
pub(super) fn require_regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}

/// The pid in the file, if there is one.
pub(super) fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(dir: &tempfile::TempDir) -> PathBuf {
        lock_path(&dir.path().join("lock"), "cam_aabbcc")
    }

    #[test]
    fn the_device_name_is_part_of_the_path() {
        assert_eq!(
            lock_path(Path::new("/tmp/ei_lockfile_runner"), "d_1"),
            Path::new("/tmp/ei_lockfile_runner_d_1")
        );
    }

    #[test]
    fn the_lock_is_exclusive_and_contains_the_pid_of_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let held = LockFile::acquire(&path(&dir)).unwrap();
        match LockFile::acquire(&path(&dir)) {
            Err(LockError::Held { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        held.remove();
        assert!(!path(&dir).exists());
        LockFile::acquire(&path(&dir)).unwrap();
    }

    #[test]
    fn files_that_no_process_holds_are_taken_over() {
        for content in ["", "999999999\n", "not a pid"] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(path(&dir), content).unwrap();
            let lock = LockFile::acquire(&path(&dir)).unwrap();
            assert!(lock.exists_at_path());
            assert_eq!(
                std::fs::read_to_string(path(&dir)).unwrap(),
                format!("{}\n", std::process::id())
            );
        }
    }

    #[test]
    fn removing_or_replacing_the_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let lock = LockFile::acquire(&path(&dir)).unwrap();
        std::fs::remove_file(path(&dir)).unwrap();
        assert!(!lock.exists_at_path());
        std::fs::write(path(&dir), "").unwrap();
        assert!(!lock.exists_at_path());
        lock.remove();
        assert!(path(&dir).exists(), "a file that is not ours stays");
    }

    #[test]
    fn a_path_that_cannot_be_read_does_not_request_a_stop() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, aside) = (dir.path().join("run"), dir.path().join("aside"));
        std::fs::create_dir(&inside).unwrap();
        let lock = LockFile::acquire(&lock_path(&inside.join("lock"), "cam")).unwrap();
        std::fs::rename(&inside, &aside).unwrap();
        // A link to itself: reading it fails with ELOOP, also for root.
        std::os::unix::fs::symlink(&inside, &inside).unwrap();
        assert!(lock.exists_at_path());
        std::fs::remove_file(&inside).unwrap();
        assert!(!lock.exists_at_path(), "the file was removed");
        std::fs::rename(&aside, &inside).unwrap();
        lock.remove();
    }

    #[test]
    fn the_check_has_the_verdict_of_the_start_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing/lock");
        let (directory, link) = (dir.path().join("directory"), dir.path().join("link"));
        std::fs::create_dir(&directory).unwrap();
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        for path in [&missing, &directory, &link] {
            let checked = LockFile::check(path).unwrap_err().to_string();
            assert_eq!(checked, LockFile::acquire(path).unwrap_err().to_string());
        }
        LockFile::check(&path(&dir)).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        let held = LockFile::acquire(&path(&dir)).unwrap();
        LockFile::check(&path(&dir)).unwrap();
        assert!(held.exists_at_path());
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("precious");
        std::fs::write(&target, "text").unwrap();
        std::os::unix::fs::symlink(&target, path(&dir)).unwrap();
        assert!(matches!(LockFile::acquire(&path(&dir)), Err(LockError::Io { .. })));
        assert_eq!(std::fs::read_to_string(target).unwrap(), "text");
    }
}
