//! The file with the network address in the device name, kept across starts.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::network::Mac;

/// Reads the address; `None` if the file is missing or contains something else.
pub(super) fn read(file: &Path) -> Option<Mac> {
    let mut text = String::new();
    File::open(file).ok()?.take(256).read_to_string(&mut text).ok()?;
    Mac::parse(&text)
}

/// Writes the address.
pub(super) fn write(file: &Path, mac: &Mac) -> io::Result<()> {
    crate::util::atomic_file::replace(file, format!("{mac}\n").as_bytes())
}
