//! The network address that a device took its name from, kept across starts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
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
    let directory = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let temporary = directory.join(format!(".identity.{}", std::process::id()));
    let written = write_new(&temporary, mac).and_then(|()| fs::rename(&temporary, file));
    if written.is_err() {
        // What is left behind is of no use; that it cannot be removed either adds nothing to the first error.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_new(path: &Path, mac: &Mac) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{mac}")?;
    file.sync_all()
}
