//! A lock file that another user's process left behind. In `/tmp` only that user and root can remove it.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::flock_holder::flock_holder;
use super::lock::{LockFile, lock_path};
use crate::util::foreign_files;

/// The lock file that this user uses: [`lock_path`], or with `.<uid>` added if that file belongs to another user whose process
/// has ended.
pub fn own_lock_path(lock_filename: &Path, device: &str) -> PathBuf {
    let path = lock_path(lock_filename, device);
    let is_foreign = LockFile::open_error(&path).is_some_and(|error| foreign_files::is_foreign(&error));
    if !is_foreign || flock_holder(&path).is_some() {
        return path;
    }
    with_uid(&path, geteuid().as_raw())
}

/// All lock files of a device that exist: that of [`lock_path`], then those with a uid.
pub fn all_lock_paths(lock_filename: &Path, device: &str) -> Vec<PathBuf> {
    let path = lock_path(lock_filename, device);
    let prefix = path
        .file_name()
        .map(|name| format!("{}.", name.to_string_lossy()))
        .unwrap_or_default();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let entries = fs::read_dir(directory.unwrap_or(Path::new(".")))
        .into_iter()
        .flatten()
        .flatten();
    let mut all: Vec<PathBuf> = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok())
        .map(|uid| with_uid(&path, uid))
        .collect();
    all.sort();
    all.insert(0, path);
    all
}

fn with_uid(path: &Path, uid: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{uid}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_files_of_all_users_are_found() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "lock_cam",
            "lock_cam.1000",
            "lock_cam.x",
            "lock_camera.1000",
            "lock_cam.2",
        ] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let names = ["lock_cam", "lock_cam.1000", "lock_cam.2"].map(|name| directory.path().join(name));
        assert_eq!(all_lock_paths(&directory.path().join("lock"), "cam"), names);
        assert_eq!(own_lock_path(&directory.path().join("lock"), "cam"), names[0]);
    }
}
