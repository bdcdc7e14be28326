//! Files and directories in the work directory that belong to another user and cannot be read, for example after a change of
//! `posixUser`, or after a run as root by hand.
//!
//! They are renamed, so that new ones can be created, and taken up at a later start when they can be read: the install step gives
//! them to the user of the component.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::path_names;

/// Between the name and the number of the owner.
const INFIX: &str = ".of-uid-";

/// What an operator must do with a file or directory that was renamed.
pub const ADVICE: &str = "deploy again (the install step gives it to the user of the component), or give it to that user with \
                          `chown -R`; it is taken up at the next start";

/// Whether an error means that the file belongs to another user.
pub fn is_foreign(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Renames a file or directory to `<name>.of-uid-<owner>`, or with `-2`, `-3`, ... added. Returns the new path.
///
/// # Errors
/// It cannot be renamed: the directory that contains it cannot be written either.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let uid = fs::symlink_metadata(path)?.uid();
    set_aside_in(path, path, uid)
}

/// Moves `path` to the name under which `as_if` would be set aside.
pub fn set_aside_in(path: &Path, as_if: &Path, uid: u32) -> io::Result<PathBuf> {
    let aside = path_names::first_free(as_if, &format!("{INFIX}{uid}"))?;
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// What was set aside for `path` in earlier runs, the first one first.
pub fn all_set_aside(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let entry_name = entry.file_name();
            let number = copy_number(entry_name.to_str()?.strip_prefix(name)?)?;
            Some((number, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// The path for which something was set aside; `None`: it was not.
pub fn original(aside: &Path) -> Option<PathBuf> {
    let name = aside.file_name()?.to_str()?;
    let at = name.rfind(INFIX)?;
    copy_number(name.get(at..)?)?;
    Some(aside.with_file_name(name.get(..at)?))
}

/// Parses what follows the name: `.of-uid-1000` or `.of-uid-1000-2`. Returns owner and copy.
fn copy_number(suffix: &str) -> Option<(u32, u32)> {
    let numbers = suffix.strip_prefix(INFIX)?;
    match numbers.split_once('-') {
        Some((uid, copy)) => Some((uid.parse().ok()?, copy.parse().ok()?)),
        None => Some((numbers.parse().ok()?, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_found_again_in_its_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool.redb");
        let mut aside = Vec::new();
        for content in ["first", "second", "third"] {
            fs::write(&path, content).unwrap();
            aside.push(set_aside(&path).unwrap());
        }
        assert!(!path.exists());
        assert_eq!(all_set_aside(&path), aside);
        assert!(aside.iter().all(|aside| original(aside).as_ref() == Some(&path)));
        assert_eq!(original(&path), None);
        assert_eq!(fs::read_to_string(&aside[1]).unwrap(), "second");
        for other in [
            "spool.redb",
            "spool.redb.of-uid-",
            "spool.redb.of-uid-1.damaged-2",
            "a-spool.redb.of-uid-1",
        ] {
            fs::write(directory.path().join(other), "").unwrap();
        }
        assert_eq!(all_set_aside(&path).len(), 3);
    }
}
