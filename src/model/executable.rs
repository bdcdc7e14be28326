//! Makes a model file executable, or a copy of it.

use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};
use tracing::{info, warn};

use super::file::{ModelFileError, ModelTarget, examine, is_executable};
use crate::util::owners::TrustedOwners;
use crate::util::write_access;

/// Begins the names of copies that are not complete; a random number follows.
const UNFINISHED_COPY: &str = ".copy-";
/// A copy is complete long before.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

/// Checks the file and makes it executable. If that fails, makes an executable copy in `work_dir`.
///
/// # Errors
/// [`ModelFileError`]
pub fn prepare(path: &Path, work_dir: &Path) -> Result<ModelTarget, ModelFileError> {
    match examine(path)? {
        ModelTarget::Program(_) => {
            let meta = fs::metadata(path).map_err(|source| ModelFileError::Unreadable {
                path: path.to_owned(),
                source,
            })?;
            make_executable(path, &meta, work_dir).map(ModelTarget::Program)
        }
        socket => Ok(socket),
    }
}

/// Whether [`prepare`] could make the file executable, or copy it. Changes nothing.
///
/// # Errors
/// [`ModelFileError::NotExecutable`]
pub(super) fn check_can_become_executable(path: &Path, work_dir: &Path) -> Result<(), ModelFileError> {
    let user = rustix::process::geteuid();
    let is_owner = user.is_root() || fs::metadata(path).is_ok_and(|meta| meta.uid() == user.as_raw());
    let forbids = |path: &Path, flags| statvfs(path).is_ok_and(|found| found.f_flag.intersects(flags));
    if is_owner && !forbids(path, StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOEXEC) {
        return Ok(());
    }
    let directory = work_dir.join("models");
    let can_copy = write_access::check_directory(&directory).and_then(|existing| {
        if forbids(existing, StatVfsMountFlags::NOEXEC) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "its file system is mounted with noexec",
            ));
        }
        Ok(())
    });
    can_copy.map_err(|source| ModelFileError::NotExecutable {
        path: path.to_owned(),
        work_dir: work_dir.to_owned(),
        source,
    })
}

/// Makes an executable copy in the directory, next to links to the files whose names begin with the name of the model.
/// A model may read them.
///
/// # Errors
/// Of the operating system; also where the directory is mounted with `noexec`.
pub(super) fn copy_executable(path: &Path, directory: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let name = path.file_name().unwrap_or_default();
    let copy = directory.join(name);
    copy_program(&path, &copy)?;
    let siblings = path.parent().into_iter().filter_map(|parent| fs::read_dir(parent).ok());
    for file in siblings.flatten().flatten() {
        let sibling = file.file_name();
        if sibling != name && sibling.as_encoded_bytes().starts_with(name.as_encoded_bytes()) {
            std::os::unix::fs::symlink(file.path(), directory.join(sibling))?;
        }
    }
    Ok(copy)
}

/// Copies a program into a new file that only this user can use.
///
/// # Errors
/// Of the operating system; also where the copy cannot be executed (`noexec`).
pub(super) fn copy_program(from: &Path, to: &Path) -> io::Result<()> {
    io::copy(&mut File::open(from)?, &mut File::create_new(to)?)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o700))?;
    Ok(access(to, Access::EXEC_OK)?)
}

fn make_executable(path: &Path, meta: &fs::Metadata, work_dir: &Path) -> Result<PathBuf, ModelFileError> {
    if is_executable(path) {
        return Ok(path.to_owned());
    }
    let mode = meta.permissions().mode() | 0o100;
    if fs::set_permissions(path, fs::Permissions::from_mode(mode)).is_ok() && is_executable(path) {
        info!(path = %path.display(), "The model file was made executable");
        return Ok(path.to_owned());
    }
    let failed = |source| ModelFileError::NotExecutable {
        path: path.to_owned(),
        work_dir: work_dir.to_owned(),
        source,
    };
    let copy = copy_into(path, meta, work_dir).map_err(failed)?;
    match access(&copy, Access::EXEC_OK) {
        Ok(()) => {
            warn!(
                path = %path.display(),
                copy = %copy.display(),
                "The model file cannot be made executable; an executable copy is used"
            );
            Ok(copy)
        }
        Err(source) => Err(failed(source.into())),
    }
}

/// Removes copies that a power cut or a SIGKILL left behind incomplete.
fn remove_abandoned_copies(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_unfinished = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(UNFINISHED_COPY.as_bytes());
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if is_unfinished && age().is_some_and(|age| age > ABANDONED_AFTER) {
            // It is tried again before the next copy.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Makes an executable copy in `models/`, unless there is one of the same size and modification time.
fn copy_into(path: &Path, meta: &fs::Metadata, work_dir: &Path) -> io::Result<PathBuf> {
    let directory = work_dir.join("models");
    fs::create_dir_all(&directory)?;
    let name = path.file_name().unwrap_or_default();
    let target = directory.join(
        [std::ffi::OsStr::new("copy-of-"), name]
            .into_iter()
            .collect::<std::ffi::OsString>(),
    );
    let modified = meta.modified()?;
    if fs::symlink_metadata(&target).is_ok_and(|old| {
        // Others may have planted one.
        let is_trusted = TrustedOwners::of(&directory).objection(&old).is_none();
        is_trusted && old.is_file() && old.len() == meta.len() && old.modified().is_ok_and(|time| time == modified)
    }) {
        return Ok(target);
    }
    remove_abandoned_copies(&directory);
    let unfinished = directory.join(format!("{UNFINISHED_COPY}{:016x}", rand::random::<u64>()));
    let copied = (|| {
        let mut file = File::create_new(&unfinished)?;
        io::copy(&mut File::open(path)?, &mut file)?;
        file.set_permissions(fs::Permissions::from_mode(0o700))?;
        file.set_times(FileTimes::new().set_modified(modified))?;
        drop(file);
        fs::rename(&unfinished, &target)
    })();
    if copied.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    copied.map(|()| target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_executable_is_made_executable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.eim");
        fs::copy("/proc/self/exe", &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(prepare(&path, dir.path()).unwrap(), ModelTarget::Program(path.clone()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o744);
    }

    #[test]
    fn a_temporary_copy_is_executable_and_changes_nothing_beside_the_model() {
        let (dir, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = dir.path().join("model.eim");
        fs::copy("/proc/self/exe", &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(dir.path().join("model.eim.json"), "{}").unwrap();
        fs::write(dir.path().join("other"), "").unwrap();
        check_can_become_executable(&path, dir.path()).unwrap();
        let copy = copy_executable(&path, temporary.path()).unwrap();
        assert!(is_executable(&copy));
        assert_eq!(fs::read(temporary.path().join("model.eim.json")).unwrap(), b"{}");
        assert!(!temporary.path().join("other").exists());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn an_executable_copy_is_made_again_only_when_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.eim");
        fs::write(&path, b"first").unwrap();
        let copy = copy_into(&path, &fs::metadata(&path).unwrap(), dir.path()).unwrap();
        let first = fs::metadata(&copy).unwrap();
        assert_eq!(first.permissions().mode() & 0o777, 0o700);
        assert_eq!(
            copy_into(&path, &fs::metadata(&path).unwrap(), dir.path()).unwrap(),
            copy
        );
        assert_eq!(fs::metadata(&copy).unwrap().ino(), first.ino());
        fs::write(&path, b"other").unwrap();
        copy_into(&path, &fs::metadata(&path).unwrap(), dir.path()).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), b"other");
    }

    #[test]
    fn a_copy_that_a_power_cut_left_behind_is_removed_before_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.eim");
        fs::write(&path, b"first").unwrap();
        fs::create_dir(dir.path().join("models")).unwrap();
        let [abandoned, current] = [".copy-0123456789abcdef", ".copy-fedcba9876543210"].map(|name| {
            let path = dir.path().join("models").join(name);
            (File::create(&path).unwrap(), path)
        });
        let old = std::time::SystemTime::now() - 2 * ABANDONED_AFTER;
        abandoned.0.set_times(FileTimes::new().set_modified(old)).unwrap();
        copy_into(&path, &fs::metadata(&path).unwrap(), dir.path()).unwrap();
        assert!(!abandoned.1.exists() && current.1.exists());
    }
}
