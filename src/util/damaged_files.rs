//! Damaged files and directories: they are renamed, so that new ones can be created and somebody can look at the old ones.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::durable_names;
use super::path_names;

/// Between the name and the time in seconds since 1970.
const INFIX: &str = ".damaged-";

/// Renames a damaged file, or what has its name, to `<name>.damaged-<time>`, and removes what was renamed earlier, so that damage does
/// not fill the disk. Returns the new path.
///
/// # Errors
/// It cannot be renamed.
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let earlier = all_set_aside(path);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let aside = path_names::first_free(path, &format!("{INFIX}{}", now.as_secs()))?;
    fs::rename(path, &aside)?;
    durable_names::sync_parent(path);
    for old in earlier {
        if let Err(error) = remove(&old) {
            tracing::debug!(path = %old.display(), %error, "An old damaged file cannot be removed");
        }
    }
    Ok(aside)
}

/// Whether something that is no directory has the path of one.
pub(crate) fn is_in_the_way(path: &Path) -> bool {
    // A link may lead to a directory.
    let is_directory = |metadata: fs::Metadata| metadata.is_dir();
    fs::symlink_metadata(path).is_ok() && matches!(fs::metadata(path).map(is_directory), Ok(false))
}

/// Removes a file, a link, or a directory with all that is in it. It is no error if there is nothing.
///
/// # Errors
/// It cannot be removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn all_set_aside(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let mut prefix = name.to_owned();
    prefix.push(INFIX);
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_aside = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes())
    };
    entries.filter(is_aside).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_damaged_file_is_kept_and_earlier_ones_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool.redb");
        fs::create_dir_all(path.join("in the way")).unwrap();
        let first = set_aside(&path).unwrap();
        assert!(first.join("in the way").is_dir() && !path.exists());
        fs::write(&path, "second").unwrap();
        let second = set_aside(&path).unwrap();
        assert_ne!(first, second);
        assert_eq!(fs::read_to_string(&second).unwrap(), "second");
        assert!(!first.exists());
        assert!(set_aside(&path).is_err(), "there is nothing to rename");
        assert!(second.exists());
    }
}
