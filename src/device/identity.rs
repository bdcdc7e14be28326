//! Stores the network address that is part of the device's name, so that it stays the same across starts.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::network::Mac;

/// Reads the stored address; `None` if there is none or if the file is damaged.
pub(super) fn read(file: &Path) -> Option<Mac> {
    let mut text = String::new();
    File::open(file).ok()?.take(256).read_to_string(&mut text).ok()?;
    Mac::parse(&text)
}

/// Stores the address in a file that only the service user can read. The file is complete or missing.
pub(super) fn write(file: &Path, mac: &Mac) -> io::Result<()> {
    crate::util::atomic_file::replace(file, format!("{mac}\n").as_bytes())
}
