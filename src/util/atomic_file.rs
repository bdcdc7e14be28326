//! Files that only the service's user reads, there as a whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Only the component's user reads what it keeps.
const MODE: u32 = 0o600;

/// What a power cut may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: the content is on the disk before it gets its name.
    PowerCut,
    /// The last seconds: nothing is forced to the disk, which wears out SD cards.
    Restart,
}

/// Puts `content` into `file` (mode 0600), complete or not at all; makes its directory when that is missing. It is on the
/// disk afterwards.
///
/// # Errors
/// Of the file system; the old content is still there then.
pub fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    fs::create_dir_all(directory)?;
    let unfinished = directory.join(format!(".{name}.{}", std::process::id()));
    replace_by_way_of(&unfinished, file, content, Durability::PowerCut)
}

/// Puts `content` into `unfinished` (mode 0600), which becomes `file` when it is complete: for who recognises by the name what a
/// SIGKILL left behind. Both are in one directory, which is there. On failure nothing is left of `unfinished`.
///
/// # Errors
/// Of the file system; the old content of `file` is still there then.
pub fn replace_by_way_of(unfinished: &Path, file: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    let written = write_new(unfinished, content, durability).and_then(|()| fs::rename(unfinished, file));
    if written.is_err() {
        // What is left behind is of no use; that it cannot be removed either adds nothing to the first error.
        let _ = fs::remove_file(unfinished);
    }
    written
}

fn write_new(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // `create_new` follows no link that waits under that name.
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
    fn what_cannot_get_its_name_leaves_nothing_behind() {
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
