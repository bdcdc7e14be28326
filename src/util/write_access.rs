//! Whether this process may create something in a directory, found out without creating anything.

use std::io;
use std::path::Path;

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

/// Whether this process can create files in the directory, and the directory itself if it is missing. Returns the directory, or
/// the nearest one above it that exists.
///
/// # Errors
/// Of the operating system. A disk can still be full.
pub fn check_directory(directory: &Path) -> io::Result<&Path> {
    for path in directory.ancestors() {
        // The last ancestor of a relative path.
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                access(path, Access::WRITE_OK | Access::EXEC_OK)?;
                if statvfs(path).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY)) {
                    return Err(io::ErrorKind::ReadOnlyFilesystem.into());
                }
                return Ok(path);
            }
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_missing_is_created_in_the_nearest_one_that_exists() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("a/b");
        assert_eq!(check_directory(&missing).unwrap(), dir.path());
        assert!(!dir.path().join("a").exists());
        assert_eq!(check_directory(Path::new("relative")).unwrap(), Path::new("."));
    }

    #[test]
    fn nothing_is_created_below_a_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let error = check_directory(&dir.path().join("file/below")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }
}
