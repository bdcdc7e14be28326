//! Creates directories that only the service user can read.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Only the service user can read the directory.
const MODE: u32 = 0o700;

/// Creates `directory` (mode 0700) and the directories above it. Does nothing if it exists.
///
/// # Errors
/// It cannot be created, or its name belongs to something else.
pub fn create(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(MODE).create(directory)
}
