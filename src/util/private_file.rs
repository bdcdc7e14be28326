//! Reads small files of the work directory, in which others may be able to write.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};

use super::owners::{TrustedOwners, not_accepted};
use super::private_dir;

/// Larger states are damaged: the largest has some thousand numbers.
const MAX_STATE_BYTES: u64 = 1 << 20;

/// Reads a file that holds a state as JSON, in one piece; of a larger one the first 1 MiB, which is no JSON then.
///
/// # Errors
/// As [`open`].
pub fn read_state(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    open(path)?.take(MAX_STATE_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

/// Opens `<work_dir>/<directory>/<file>` for reading, if directory and file are trusted ([`TrustedOwners`]): no symbolic or hard
/// link, no pipe or device, and not of another user.
///
/// # Errors
/// It does not exist, it cannot be read, or it is not trusted; then
/// [`is_foreign`](super::foreign_files::is_foreign) holds for the error.
pub fn open(path: &Path) -> io::Result<File> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = private_dir::open_trusted(above)?;
    // Without NONBLOCK, opening a pipe waits for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(&directory, name, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(rustix::io::Errno::ISDIR.into());
    }
    match TrustedOwners::of(above.parent().unwrap_or(above)).objection(&metadata) {
        Some(objection) => Err(not_accepted(&objection)),
        None => Ok(file),
    }
}
