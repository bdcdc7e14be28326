//! Names of files beside another file: its name with something added.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Most files with the same name before the number.
const MAX_COPIES: u32 = 100;

/// `<path><suffix>`
pub fn with_suffix(path: &Path, suffix: impl AsRef<OsStr>) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// `<path><suffix>` for the first copy, and `<path><suffix>-2`, `-3`, ... for further ones.
pub fn numbered(path: &Path, suffix: &str, copy: u32) -> PathBuf {
    if copy > 1 {
        with_suffix(path, format!("{suffix}-{copy}"))
    } else {
        with_suffix(path, suffix)
    }
}

/// The first of these names that nothing has.
///
/// # Errors
/// There are too many.
pub fn first_free(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let names = (1..=MAX_COPIES).map(|copy| numbered(path, suffix, copy));
    let mut free = names.filter(|name| fs::symlink_metadata(name).is_err());
    free.next().ok_or_else(|| io::ErrorKind::AlreadyExists.into())
}
