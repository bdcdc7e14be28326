//! The token for requests that change settings, if none is configured. It is created once and stored in a file.

use std::fs::Permissions;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::util::atomic_file;
use crate::util::damaged_files;
use crate::util::foreign_files;
use crate::util::private_dir;
use crate::util::private_file;
use crate::util::secret::Secret;

/// Name of the file in the device's directory.
const FILE: &str = "preview_token";
/// Hexadecimal digits of a token: 128 bits.
const DIGITS: usize = 32;

/// Reads the token from the device's directory (`<work_dir>/<device>`), or creates one in a file that only its owner can
/// read. Also returns the path of the file.
///
/// # Errors
/// The file cannot be read or written.
pub(super) fn load_or_create(directory: &Path) -> io::Result<(Secret, PathBuf)> {
    let path = directory.join(FILE);
    if let Some(token) = read(&path)? {
        return Ok((token, path));
    }
    private_dir::create_trusted(directory)?;
    if path.is_dir() {
        let kept_as = damaged_files::set_aside(&path)?;
        tracing::warn!(path = %path.display(), kept_as = %kept_as.display(), "A directory has the name of the token's file and was renamed");
    }
    let token = format!("{:0DIGITS$x}", rand::random::<u128>());
    atomic_file::replace(&path, format!("{token}\n").as_bytes())?;
    Ok((Secret::new(token), path))
}

/// Reads the token; `None` if the file is missing or contains no token.
fn read(path: &Path) -> io::Result<Option<Secret>> {
    let file = match private_file::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => return Ok(None),
        Err(e) if foreign_files::is_foreign(&e) => {
            tracing::warn!(path = %path.display(), error = %e, "The token of the live page is not accepted; a new one is created");
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    (&file).take(4096).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim();
    if text.len() != DIGITS || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(None);
    }
    // Others may have read a token that they could read.
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(Some(Secret::new(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_token_is_created_once_and_readable_only_by_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("device");
        let (first, path) = load_or_create(&device).unwrap();
        assert_eq!((first.reveal().len(), mode(&path)), (DIGITS, 0o600));
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let (second, _) = load_or_create(&device).unwrap();
        assert_eq!((second, mode(&path)), (first, 0o600));
    }

    #[test]
    fn an_invalid_token_is_replaced_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        for nonsense in ["", "short", &"x".repeat(DIGITS), &"0".repeat(5000)] {
            std::fs::write(&path, nonsense).unwrap();
            let (token, _) = load_or_create(dir.path()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), token.reveal());
        }
        let secret = dir.path().join("elsewhere");
        std::fs::write(&secret, "0".repeat(DIGITS)).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        assert!(load_or_create(dir.path()).is_err());
    }
}
