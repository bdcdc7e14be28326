//! The network address that a device took its name from, kept across starts.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::network::Mac;

/// The kept address; `None` when there is none, or the file holds something else.
pub(super) fn read(file: &Path) -> Option<Mac> {
    let mut text = String::new();
    File::open(file).ok()?.take(256).read_to_string(&mut text).ok()?;
    Mac::parse(&text)
}

/// Keeps the address: readable by the service's user only, complete or not there at all.
pub(super) fn write(file: &Path, mac: &Mac) -> io::Result<()> {
    crate::util::atomic_file::replace(file, format!("{mac}\n").as_bytes())
}
