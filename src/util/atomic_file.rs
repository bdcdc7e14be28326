//! Writes files that only the service user can read, completely or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Only the service user can read the files.
const MODE: u32 = 0o600;

/// What a written file survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A power cut: the content is synced to the disk before the file gets its name.
    PowerCut,
    /// A restart of the process: the content is not synced, because that wears out SD cards. A power cut loses the last seconds.
    Restart,
}

/// Replaces `file` (mode 0600) by `content`, completely or not at all, and syncs it to the disk. Creates its directory if
/// it is missing.
///
/// # Errors
/// The file cannot be written. It keeps its old content.
pub fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    fs::create_dir_all(directory)?;
    let unfinished = directory.join(format!(".{name}.{}", std::process::id()));
    replace_via(&unfinished, file, content, Durability::PowerCut)
}

/// Like [`replace`], with a given name for the temporary file, so that the caller can recognise files that a SIGKILL left
/// behind. Both files must be in the same existing directory. After a failure `unfinished` does not exist.
///
/// # Errors
/// The file cannot be written. `file` keeps its old content.
pub fn replace_via(unfinished: &Path, file: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    let written = write_new(unfinished, content, durability).and_then(|()| fs::rename(unfinished, file));
    if written.is_err() {
        // If the temporary file cannot be removed either, the first error is enough.
        let _ = fs::remove_file(unfinished);
    }
    written
}

fn write_new(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // `create_new` does not follow a link with this name.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(content)?;
    match durability {
        Durability::PowerCut => file.sync_all(),
        Durability::Restart => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_completely_and_only_its_owner_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("below/kept");
        replace(&file, b"old and long").unwrap();
        replace(&file, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(directory.path().join("below")).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn a_failed_rename_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let (unfinished, file) = (directory.path().join("a.part"), directory.path().join("a"));
        fs::create_dir_all(file.join("in the way")).unwrap();
        fs::write(&unfinished, "left behind by a SIGKILL").unwrap();
        for durability in [Durability::PowerCut, Durability::Restart] {
            assert!(replace_via(&unfinished, &file, b"new", durability).is_err());
            assert!(!unfinished.exists() && file.is_dir());
        }
    }
}
