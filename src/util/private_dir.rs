//! Creates directories that only the service user can read.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::umask;

use super::durable_names;
use super::owners::{TrustedOwners, not_accepted};

/// Only the service user can read the directory.
const MODE: u32 = 0o700;

/// Creates `directory` (mode 0700, whatever the umask is) and the directories above it, so that they survive a power cut. Does nothing if it
/// exists.
///
/// # Errors
/// It cannot be created, or its name belongs to something else.
pub fn create(directory: &Path) -> io::Result<()> {
    durable_names::create_directories(directory, MODE)
}

/// As [`create`], in a directory in which others may write: a directory there is accepted only if it is trusted
/// ([`TrustedOwners`]), and others lose their access to it.
///
/// # Errors
/// It cannot be created, it is a symbolic link or no directory, or it belongs to another user, whom the error names.
pub fn create_trusted(directory: &Path) -> io::Result<()> {
    create(directory)?;
    let opened = open_trusted(directory)?;
    let metadata = opened.metadata()?;
    if metadata.mode() & 0o077 != 0 {
        // The file system may have no permissions, or the directory may be that of root.
        let _ = opened.set_permissions(Permissions::from_mode(MODE));
    }
    Ok(())
}

/// Files and directories that this process creates from now on cannot be written by others, whatever the umask was.
pub fn deny_writing_by_others() {
    let denied = Mode::WGRP | Mode::WOTH;
    let before = umask(denied);
    umask(before | denied);
}

/// Opens a directory that is trusted.
///
/// # Errors
/// As [`create_trusted`]; it may be missing too.
pub fn open_trusted(directory: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::DIRECTORY;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(directory);
    let metadata = match &opened {
        Ok(opened) => opened.metadata()?,
        // The error of the system does not say that it is a link.
        Err(_) => fs::symlink_metadata(directory)?,
    };
    let above = directory.parent().filter(|above| !above.as_os_str().is_empty());
    match TrustedOwners::of(above.unwrap_or(Path::new("."))).objection(&metadata) {
        Some(objection) => Err(not_accepted(&objection)),
        None => opened,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn others_lose_their_access_to_a_directory_and_links_are_not_followed() {
        let work_dir = tempfile::tempdir().unwrap();
        let mode = |directory: &Path| directory.metadata().unwrap().permissions().mode() & 0o777;
        let directory = work_dir.path().join("cam");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        create_trusted(&directory).unwrap();
        assert_eq!(mode(&directory), 0o700);
        let link = work_dir.path().join("link");
        symlink(&directory, &link).unwrap();
        assert!(create_trusted(&link).unwrap_err().to_string().contains("symbolic link"));
        assert!(create_trusted(&work_dir.path().join("new/below")).is_ok());
    }
}
