//! Damaged files are renamed, counted and logged in the same way, whatever they contain.

use std::fmt::Display;
use std::path::Path;

use super::stats::Stats;
use crate::util::damaged_files;

/// Renames what is at the path of a directory and is none, such as a file, so that the directory can be created.
pub(crate) fn make_way_for_directory(path: &Path, stats: &Stats) {
    if damaged_files::is_in_the_way(path) {
        set_aside(path, "it is not a directory", stats);
    }
}

/// Renames a damaged file or directory to `<name>.damaged-<time>`, counts and logs it. Returns whether its name is free now.
pub(crate) fn set_aside(path: &Path, error: impl Display, stats: &Stats) -> bool {
    match damaged_files::set_aside(path) {
        Ok(kept_as) => {
            stats.files_damaged.inc();
            tracing::error!(
                path = %path.display(), %error, kept_as = %kept_as.display(),
                "A damaged file was renamed; what was in it is lost, and a new one is created"
            );
            true
        }
        Err(rename_error) => {
            tracing::error!(
                path = %path.display(), %error, %rename_error, advice = "remove it",
                "A damaged file cannot be renamed"
            );
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_is_no_directory_makes_way_for_one() {
        let directory = tempfile::tempdir().unwrap();
        let (path, real) = (directory.path().join("s3-pending"), directory.path().join("real"));
        let stats = Stats::default();
        make_way_for_directory(&path, &stats);
        fs::create_dir(&real).unwrap();
        make_way_for_directory(&real, &stats);
        symlink(&real, &path).unwrap();
        make_way_for_directory(&path, &stats);
        assert_eq!(stats.files_damaged.get(), 0);
        assert!(path.is_dir());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "in the way").unwrap();
        make_way_for_directory(&path, &stats);
        assert_eq!(stats.files_damaged.get(), 1);
        assert!(!path.exists());
        fs::create_dir(&path).unwrap();
    }
}
