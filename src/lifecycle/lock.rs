//! The lock file: one daemon per device, and the handle by which it is stopped.

use std::fs::{File, FileTimes, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, OFlags, flock};
use thiserror::Error;

use crate::util::write_access;

/// How often the lock is tried anew when the file vanishes between opening and locking it.
const ATTEMPTS: u32 = 10;

/// Why the lock could not be taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another daemon for the same device is running.
    #[error(
        "another ei-greengrass is already running for this device (pid {}, lock file {}): stop it with `ei-greengrass stop`, \
         or give this one another device_name", pid.map_or("unknown".into(), |pid| pid.to_string()), path.display()
    )]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The holder, when its pid could be read.
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
        /// What the system said.
        source: io::Error,
    },
}

/// `LOCK = <lock_filename>_<device name>`.
pub fn lock_path(lock_filename: &Path, device: &str) -> PathBuf {
    let mut name = lock_filename.as_os_str().to_owned();
    name.push("_");
    name.push(device);
    PathBuf::from(name)
}

/// The held lock: an advisory lock on the open file, the pid written inside. Dropping it without [`LockFile::remove`]
/// leaves a stale file, which the next start takes over.
#[derive(Debug)]
pub struct LockFile {
    path: PathBuf,
    file: File,
}

impl LockFile {
    /// Takes the lock, creating the file or taking over a stale one. Never follows a symbolic link.
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
                // Removed, or created by somebody else, in between.
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => continue,
                Err(e) => return Err(io_error(e)),
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
            if lock.still_there() {
                // The lock is held all the same; without a pid inside, `stop` can only remove the file.
                if let Err(e) = lock.write_pid() {
                    tracing::warn!("the pid cannot be written into the lock file {}: {e}", path.display());
                }
                return Ok(lock);
            }
        }
        Err(io_error(io::Error::other(
            "it is created and removed over and over by somebody else",
        )))
    }

    /// Whether [`Self::acquire`] can use the file, apart from a process that holds it. Changes nothing.
    ///
    /// # Errors
    /// [`LockError::Io`]
    pub fn check(path: &Path) -> Result<(), LockError> {
        let checked = match options().open(path).and_then(regular) {
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

    /// Whether the path still names the file that is locked, as far as one can see. `false`: somebody removed or replaced it,
    /// and so asked the daemon to stop.
    pub fn still_there(&self) -> bool {
        match (std::fs::symlink_metadata(&self.path), self.file.metadata()) {
            (Ok(at_path), Ok(ours)) => at_path.ino() == ours.ino() && at_path.dev() == ours.dev(),
            (Err(e), _) if e.kind() == io::ErrorKind::NotFound => false,
            // A disk or a directory that cannot be read for the moment says nothing about the file.
            _ => true,
        }
    }

    /// Makes the file look new: what cleans `/tmp` (systemd-tmpfiles) removes files that nobody touched for days.
    ///
    /// # Errors
    /// The system's reason.
    pub fn keep_fresh(&self) -> io::Result<()> {
        let now = SystemTime::now();
        self.file
            .set_times(FileTimes::new().set_accessed(now).set_modified(now))
    }

    /// Removes the file, if it is still ours, and gives the lock back.
    pub fn remove(self) {
        if self.still_there()
            && let Err(e) = std::fs::remove_file(&self.path)
        {
            tracing::warn!("the lock file {} could not be removed: {e}", self.path.display());
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
        .custom_flags(OFlags::NOFOLLOW.bits() as i32);
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

/// Opens an existing file, else creates one. Two steps, because Linux forbids `O_CREAT` on another user's file in a
/// sticky directory such as /tmp (`fs.protected_regular`) even for root.
fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = options();
    let file = match options.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => options.create_new(true).open(path),
        opened => opened,
    }?;
    regular(file)
}

/// The file, if it is one: others put pipes and directories under the names they find in `/tmp`.
pub(super) fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}

/// The pid written inside, when there is one.
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
    fn the_lock_is_exclusive_and_names_the_holder() {
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
    fn stale_and_empty_files_are_taken_over() {
        for content in ["", "999999999\n", "not a pid"] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(path(&dir), content).unwrap();
            let lock = LockFile::acquire(&path(&dir)).unwrap();
            assert!(lock.still_there());
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
        assert!(!lock.still_there());
        std::fs::write(path(&dir), "").unwrap();
        assert!(!lock.still_there());
        lock.remove();
        assert!(path(&dir).exists(), "a file that is not ours stays");
    }

    #[test]
    fn a_path_that_cannot_be_looked_at_is_no_wish_to_stop() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, aside) = (dir.path().join("run"), dir.path().join("aside"));
        std::fs::create_dir(&inside).unwrap();
        let lock = LockFile::acquire(&lock_path(&inside.join("lock"), "cam")).unwrap();
        std::fs::rename(&inside, &aside).unwrap();
        // A link to itself: every look ends in ELOOP, also for root.
        std::os::unix::fs::symlink(&inside, &inside).unwrap();
        assert!(lock.still_there());
        std::fs::remove_file(&inside).unwrap();
        assert!(!lock.still_there(), "now it is gone");
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
        assert!(held.still_there());
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
