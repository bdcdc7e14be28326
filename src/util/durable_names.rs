//! Makes names of files and directories durable. `fsync` of a file writes its content: after a power cut its name may be missing until its
//! directory is synced too (POSIX leaves this open; ext4 and XFS often write the name earlier, other file systems do not).

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Syncs a directory: the names in it survive a power cut. Some file systems refuse that; they write names at once or not at all.
pub(crate) fn sync(directory: &Path) {
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    if let Err(error) = File::open(directory).and_then(|directory| directory.sync_all()) {
        tracing::debug!(path = %directory.display(), %error, "The directory cannot be synced");
    }
}

/// Syncs the directory that contains `path`: the name of `path`, or that it has none, survives a power cut.
pub(crate) fn sync_parent(path: &Path) {
    if let Some(parent) = path.parent() {
        sync(parent);
    }
}

/// The umask decides who can read a directory with this mode.
pub(crate) const SHARED: u32 = 0o777;

/// Creates `directory` and the directories above it with this mode, as far as the umask permits. Those that were created survive a power
/// cut. Does nothing if it exists.
///
/// # Errors
/// It cannot be created, or its name belongs to something else.
pub(crate) fn create_directories(directory: &Path, mode: u32) -> io::Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<_> = directory.ancestors().take_while(is_missing).collect();
    DirBuilder::new().recursive(true).mode(mode).create(directory)?;
    for created in missing {
        sync_parent(created);
    }
    Ok(())
}
