//! Stores the network address that is part of the device's name, so that it stays the same across starts.

use std::io::{self, Read};
use std::path::Path;

use super::network::Mac;
use crate::util::private_file;

/// Reads the stored address; `None` if there is none or if the file is damaged.
///
/// # Errors
/// The file is there and cannot be read, or it is not trusted: another user may have planted it.
pub(super) fn read(file: &Path) -> io::Result<Option<Mac>> {
    let mut text = Vec::new();
    match private_file::open(file) {
        Ok(file) => file.take(256).read_to_end(&mut text)?,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    Ok(Mac::parse(&String::from_utf8_lossy(&text)))
}

/// Stores the address in a file that only the service user can read. The file is complete or missing.
pub(super) fn write(file: &Path, mac: &Mac) -> io::Result<()> {
    crate::util::atomic_file::replace(file, format!("{mac}\n").as_bytes())
}
