//! A lock file that another user's process left behind, or that another user has created and locked. In `/tmp` only that user and
//! root can remove it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::flock_holder::{flock_holder, is_component, owner_of};
use super::lock::{LockFile, lock_path};
use crate::util::foreign_files;
use crate::util::owners::user_name;
use crate::util::path_names::numbered;

/// Most lock files of one user for a device: others may create those as well.
const MAX_COPIES: u32 = 9;

/// The lock file that this user uses: [`lock_path`], or with `.<uid>` (`.<uid>-2`, ...) added if that file belongs to another user
/// and no component holds it.
pub fn own_lock_path(lock_filename: &Path, device: &str) -> PathBuf {
    let path = lock_path(lock_filename, device);
    if objection(&path).is_none() {
        return path;
    }
    let uid = geteuid().as_raw();
    let mut copies = (1..=MAX_COPIES).map(|copy| with_uid(&path, uid, copy));
    copies
        .find(|copy| objection(copy).is_none())
        .unwrap_or_else(|| with_uid(&path, uid, 1))
}

/// Why a lock file is not used: it is that of another user, and no component of that user holds it. The text names the user.
/// `None`: it is used, or it does not exist.
pub fn objection(path: &Path) -> Option<String> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let uid = metadata.uid();
    let is_trusted = uid == geteuid().as_raw() || uid == 0;
    let holder = flock_holder(path);
    if holder.is_some_and(is_component) || (is_trusted && !is_foreign(path)) {
        return None;
    }
    let owner = user_name(uid);
    Some(match holder {
        Some(pid) => {
            let user = owner_of(pid).map_or_else(|| "unknown".to_owned(), user_name);
            format!("it belongs to {owner}, and the process {pid} of {user}, which is not this program, locks it")
        }
        None => format!("it belongs to {owner}"),
    })
}

fn is_foreign(path: &Path) -> bool {
    LockFile::open_error(path).is_some_and(|error| foreign_files::is_foreign(&error))
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
        .filter(|entry| {
            let name = entry.file_name();
            let suffix = name.to_str().and_then(|name| name.strip_prefix(&prefix));
            suffix.is_some_and(is_uid)
        })
        .map(|entry| path.with_file_name(entry.file_name()))
        .collect();
    all.sort();
    all.insert(0, path);
    all
}

/// `1000` or `1000-2`.
fn is_uid(suffix: &str) -> bool {
    let (uid, copy) = suffix.split_once('-').unwrap_or((suffix, "1"));
    uid.parse::<u32>().is_ok() && copy.parse::<u32>().is_ok()
}

fn with_uid(path: &Path, uid: u32, copy: u32) -> PathBuf {
    numbered(path, &format!(".{uid}"), copy)
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
            "lock_cam.1000-2",
            "lock_cam.1000-x",
            "lock_cam.x",
            "lock_camera.1000",
            "lock_cam.2",
        ] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let names =
            ["lock_cam", "lock_cam.1000", "lock_cam.1000-2", "lock_cam.2"].map(|name| directory.path().join(name));
        assert_eq!(all_lock_paths(&directory.path().join("lock"), "cam"), names);
        assert_eq!(own_lock_path(&directory.path().join("lock"), "cam"), names[0]);
    }
}
