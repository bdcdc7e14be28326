//! Writes files that only the service user can read, completely or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::durable_names;
use super::private_dir;

/// Only the service user can read the files.
const MODE: u32 = 0o600;
/// A temporary file exists for moments.
const ABANDONED_AFTER: Duration = Duration::from_secs(600);

/// What a written file survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A power cut: the content is synced to the disk before the file gets its name, and the name after it.
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
    private_dir::create(directory)?;
    let unfinished = directory.join(format!(".{name}.{}", std::process::id()));
    replace_via(&unfinished, file, content, Durability::PowerCut)
}

/// Removes the temporary files of [`replace`] that processes left behind in these directories, each at a power cut or a SIGKILL.
pub fn remove_leftovers<'a>(directories: impl IntoIterator<Item = &'a Path>) {
    let entries = directories
        .into_iter()
        .filter_map(|directory| fs::read_dir(directory).ok());
    for entry in entries.flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(is_unfinished) && is_abandoned(&entry) {
            // It is tried again at the next start.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether the name is one of a temporary file: `.NAME.PID`.
fn is_unfinished(name: &str) -> bool {
    let parts = name.strip_prefix('.').and_then(|name| name.rsplit_once('.'));
    parts
        .is_some_and(|(name, pid)| !name.is_empty() && !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether the file is so old that no process, of this container or another one, is still writing it.
fn is_abandoned(entry: &fs::DirEntry) -> bool {
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| {
        SystemTime::now()
            .duration_since(modified)
            .is_ok_and(|age| age > ABANDONED_AFTER)
    })
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
    } else if durability == Durability::PowerCut {
        durable_names::sync_parent(file);
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
    fn temporary_files_of_killed_processes_are_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let old = fs::FileTimes::new().set_modified(SystemTime::now() - 2 * ABANDONED_AFTER);
        for (name, is_old) in [
            (".versions.json.4711", true),
            (".versions.json.4712", false),
            ("versions.json", true),
            (".versions.json", true),
            ("versions.json.4711", true),
            (".4711", true),
        ] {
            let file = fs::File::create(directory.path().join(name)).unwrap();
            if is_old {
                file.set_times(old).unwrap();
            }
        }
        remove_leftovers([directory.path(), Path::new("/nowhere")]);
        let mut left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                ".4711",
                ".versions.json",
                ".versions.json.4712",
                "versions.json",
                "versions.json.4711"
            ]
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
