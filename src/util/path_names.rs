//! Names of files beside another file: its name with something added.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Most files with the same name before the number.
const MAX_COPIES: u32 = 100;

/// The greatest number in the name of a file of this program: there is always a next one.
pub const MAX_FILE_NUMBER: u64 = u64::MAX >> 1;

/// Reads the number in the name of a file that this program numbers. `None`: another program has named the file.
pub fn file_number(text: &str) -> Option<u64> {
    let number = text.parse().ok().filter(|number| *number <= MAX_FILE_NUMBER)?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(number)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_up_to_the_greatest_number_are_the_number_of_a_file() {
        assert_eq!(file_number("007"), Some(7));
        assert_eq!(file_number("9223372036854775807"), Some(MAX_FILE_NUMBER));
        for other in [
            "",
            "+7",
            "-7",
            " 7",
            "7a",
            "9223372036854775808",
            "18446744073709551616",
        ] {
            assert_eq!(file_number(other), None, "{other}");
        }
    }
}
