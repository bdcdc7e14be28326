//! Writes files as a whole or not at all, with a temporary file and a rename. Only the user of the service can read them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const MODE: u32 = 0o600;

/// What a power cut may lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: the content is synced to disk before the rename.
    PowerCut,
    /// The last seconds: the content is not synced, because syncs wear out SD cards.
    Restart,
}

/// Replaces `file` (mode 0600) by `content` and syncs it to disk. Creates its directory if it is missing.
///
/// # Errors
/// Those of the file system; the file keeps its old content.
pub fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    fs::create_dir_all(directory)?;
    let unfinished = directory.join(format!(".{name}.{}", std::process::id()));
    replace_by_way_of(&unfinished, file, content, Durability::PowerCut)
}

/// Writes `content` to `unfinished` (mode 0600) and renames it to `file`. For callers that recognise by the name what a SIGKILL
/// left behind. Both paths are in the same existing directory. After a failure `unfinished` is removed.
///
/// # Errors
/// Those of the file system; `file` keeps its old content.
pub fn replace_by_way_of(unfinished: &Path, file: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    let written = write_new(unfinished, content, durability).and_then(|()| fs::rename(unfinished, file));
    if written.is_err() {
        // An error here would add nothing to the first one.
        let _ = fs::remove_file(unfinished);
    }
    written
}

fn write_new(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // `create_new` does not follow a symbolic link of that name.
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
    fn a_file_is_replaced_as_a_whole_and_for_the_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("below/kept");
        replace(&file, b"old and long").unwrap();
        replace(&file, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(directory.path().join("below")).unwrap().count(),
            1,
            "nothing temporary stays"
        );
    }

    #[test]
    fn a_failed_rename_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let (unfinished, file) = (directory.path().join("a.part"), directory.path().join("a"));
        fs::create_dir_all(file.join("in the way")).unwrap();
        fs::write(&unfinished, "left behind by a SIGKILL").unwrap();
        for durability in [Durability::PowerCut, Durability::Restart] {
            assert!(replace_by_way_of(&unfinished, &file, b"new", durability).is_err());
            assert!(!unfinished.exists() && file.is_dir());
        }
    }
}
