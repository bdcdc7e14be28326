//! Replaces the directory of a device that belongs to another user, takes up its files when they are trusted, and sets aside
//! what others have put into it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, FlockOperation, access, flock};

use crate::util::damaged_files;
use crate::util::foreign_files::{self, all_set_aside, original, set_aside, set_aside_in};
use crate::util::owners::TrustedOwners;
use crate::util::private_dir;

/// What the spool, the S3 cache and the events take up themselves. Names that follow with a dot are files that were set aside before.
const TAKEN_UP: [&str; 4] = ["spool.redb", "s3-index.redb", "s3-pending", "events.json"];
/// Replaces the one of the new directory: it is known to those who use the live page.
const TOKEN: &str = "preview_token";
/// Can be made again.
const DISPENSABLE: [&str; 5] = [
    "iot-endpoint.json",
    "spool.redb.new",
    "s3-index.redb.new",
    "events.unfinished",
    "events.recent.json",
];
/// Clips on their way to S3, which no later start uploads.
const CLIPS: &str = "event-clips";

/// Prepares the directory of a device before it is used. It is called by the only process of the device.
pub fn replace_foreign_device_dir(directory: &Path) {
    if damaged_files::is_in_the_way(directory) {
        let kept_as = damaged_files::set_aside(directory);
        tracing::error!(
            path = %directory.display(), ?kept_as,
            "Something else has the name of the device's directory and was renamed"
        );
    }
    if let Some(reason) = objection(directory) {
        match set_aside(directory) {
            Ok(kept_as) => tracing::error!(
                path = %directory.display(), reason, kept_as = %kept_as.display(), advice = foreign_files::ADVICE,
                "The directory of the device belongs to another user and was renamed; what waits in it for delivery is kept"
            ),
            Err(error) => tracing::error!(
                path = %directory.display(), reason, %error,
                advice = "give it to the user of the component with `chown -R`, and restart",
                "The directory of the device belongs to another user; undelivered messages are kept in memory only"
            ),
        }
    }
    set_aside_planted(directory, true);
    for aside in all_set_aside(directory) {
        match take_up(&aside, directory) {
            Ok(()) => tracing::info!(path = %aside.display(), "Took up the directory of another user"),
            Err(error) => tracing::error!(
                path = %aside.display(), %error, advice = foreign_files::ADVICE,
                "A directory of another user cannot be taken up; what waits in it for delivery is kept"
            ),
        }
    }
}

/// Makes a directory in the work directory that the component is about to use private, if it exists; one that is not trusted is
/// renamed. One that this process cannot read stays: an administrator gives it to the user of the component.
pub fn secure_dir(directory: &Path) {
    let result = match objection(directory) {
        Some(_) if access(directory, Access::READ_OK | Access::EXEC_OK) == Err(rustix::io::Errno::ACCESS) => return,
        None if directory.exists() => private_dir::create_trusted(directory).map(|()| None),
        None => return,
        Some(reason) => set_aside(directory).map(|kept_as| Some((reason, kept_as))),
    };
    match result {
        Ok(None) => {}
        Ok(Some((reason, kept_as))) => tracing::error!(
            path = %directory.display(), reason, kept_as = %kept_as.display(),
            "A directory of the component is not trusted and was renamed"
        ),
        Err(error) => tracing::error!(
            path = %directory.display(), %error,
            advice = "give it to the user of the component with `chown -R`, and restart",
            "A directory of the component is not trusted and is not used"
        ),
    }
}

/// Why the directory is not used: it is not trusted, or this process has no access. `None`: it is used, or it is missing.
fn objection(directory: &Path) -> Option<String> {
    let metadata = fs::symlink_metadata(directory).ok()?;
    let owners = TrustedOwners::of(directory.parent().unwrap_or(directory));
    if let Some(objection) = owners.objection(&metadata) {
        return Some(objection);
    }
    let used = access(directory, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK);
    (metadata.is_dir() && used == Err(rustix::io::Errno::ACCESS)).then(|| "this process cannot use it".to_owned())
}

/// Takes the access of others to the directory, and renames what is in it and not trusted. Each part of the program then begins
/// without it. `always`: also if others have no access, because of earlier versions.
fn set_aside_planted(directory: &Path, always: bool) {
    let Ok(opened) = private_dir::open_trusted(directory) else {
        return;
    };
    let is_private = opened.metadata().is_ok_and(|metadata| metadata.mode() & 0o077 == 0);
    if is_private && !always {
        return;
    }
    // A failure is reported by the part that uses the directory.
    let _ = private_dir::create_trusted(directory);
    let owners = TrustedOwners::of(directory.parent().unwrap_or(directory));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        match owners.objection(&metadata) {
            // What was set aside before is taken up when it is trusted.
            Some(_) if original(&path).is_some() => {}
            Some(reason) => match set_aside(&path) {
                Ok(kept_as) => tracing::error!(
                    path = %path.display(), reason, kept_as = %kept_as.display(),
                    "A file in the directory of the device is not trusted and was renamed"
                ),
                Err(error) => tracing::error!(
                    path = %path.display(), reason, %error,
                    "A file in the directory of the device is not trusted and cannot be renamed"
                ),
            },
            None if metadata.is_dir() => set_aside_planted(&path, false),
            None => {}
        }
    }
}

/// Moves the files of `aside` into the directory of the device, where each part takes up its own.
fn take_up(aside: &Path, directory: &Path) -> io::Result<()> {
    let opened = private_dir::open_trusted(aside)?;
    flock(&opened, FlockOperation::NonBlockingLockExclusive)?;
    let uid = opened.metadata()?.uid();
    private_dir::create_trusted(directory)?;
    let owners = TrustedOwners::of(aside.parent().unwrap_or(aside));
    for entry in fs::read_dir(aside)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if owners.objection(&entry.metadata()?).is_some() {
            // It stays, and so does the directory.
        } else if DISPENSABLE.contains(&&*name) {
            fs::remove_file(&path)?;
        } else if name == CLIPS {
            fs::remove_dir_all(&path)?;
        } else if name == TOKEN {
            fs::rename(&path, directory.join(TOKEN))?;
        } else if let Some(part) = TAKEN_UP.iter().find(|part| is_part(&name, part)) {
            set_aside_in(&path, &directory.join(part), uid)?;
        }
    }
    fs::remove_dir(aside)
}

/// Whether an entry is this part, or was set aside for it before.
fn is_part(name: &str, part: &str) -> bool {
    name.strip_prefix(part)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(".of-uid-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_files_of_a_directory_that_was_set_aside_are_moved_to_where_they_are_taken_up() {
        let work_dir = tempfile::tempdir().unwrap();
        let directory = work_dir.path().join("cam");
        fs::create_dir_all(directory.join("s3-pending")).unwrap();
        for file in [
            "spool.redb",
            "spool.redb.of-uid-7",
            "events.json",
            "iot-endpoint.json",
            "preview_token",
        ] {
            fs::write(directory.join(file), "old").unwrap();
        }
        let aside = set_aside(&directory).unwrap();
        fs::create_dir(&directory).unwrap();
        for file in ["spool.redb", "preview_token"] {
            fs::write(directory.join(file), "new").unwrap();
        }
        replace_foreign_device_dir(&directory);
        assert!(!aside.exists());
        let uid = directory.metadata().unwrap().uid();
        let expected = [
            format!("events.json.of-uid-{uid}"),
            "preview_token".to_owned(),
            format!("s3-pending.of-uid-{uid}"),
            "spool.redb".to_owned(),
            format!("spool.redb.of-uid-{uid}"),
            format!("spool.redb.of-uid-{uid}-2"),
        ];
        assert_eq!(names(&directory), expected);
        assert_eq!(fs::read_to_string(directory.join("preview_token")).unwrap(), "old");
        assert_eq!(fs::read_to_string(directory.join("spool.redb")).unwrap(), "new");
    }

    #[test]
    fn a_directory_with_other_content_is_kept() {
        let work_dir = tempfile::tempdir().unwrap();
        let directory = work_dir.path().join("cam");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("mine"), "").unwrap();
        let aside = set_aside(&directory).unwrap();
        replace_foreign_device_dir(&directory);
        assert_eq!(names(&aside), ["mine"]);
    }

    #[test]
    fn links_and_pipes_in_the_directory_are_set_aside_and_others_lose_their_access() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let work_dir = tempfile::tempdir().unwrap();
        let directory = work_dir.path().join("cam");
        fs::create_dir_all(directory.join("s3-pending")).unwrap();
        fs::write(directory.join("preview_token"), "mine").unwrap();
        symlink("/etc/passwd", directory.join("iot-endpoint.json")).unwrap();
        symlink("/etc", directory.join("s3-pending/link")).unwrap();
        for below in [directory.clone(), directory.join("s3-pending")] {
            fs::set_permissions(&below, fs::Permissions::from_mode(0o777)).unwrap();
        }
        replace_foreign_device_dir(&directory);
        let uid = directory.metadata().unwrap().uid();
        let expected = [
            format!("iot-endpoint.json.of-uid-{uid}"),
            "preview_token".to_owned(),
            "s3-pending".to_owned(),
        ];
        assert_eq!(names(&directory), expected);
        assert_eq!(names(&directory.join("s3-pending")), [format!("link.of-uid-{uid}")]);
        for below in [directory.clone(), directory.join("s3-pending")] {
            assert_eq!(below.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_link_in_place_of_the_directory_is_not_followed() {
        let work_dir = tempfile::tempdir().unwrap();
        let (directory, elsewhere) = (work_dir.path().join("cam"), work_dir.path().join("elsewhere"));
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &directory).unwrap();
        replace_foreign_device_dir(&directory);
        assert!(fs::symlink_metadata(&directory).is_err());
        secure_dir(&directory);
        fs::write(elsewhere.join("preview_token"), "").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &directory).unwrap();
        secure_dir(&directory);
        assert!(fs::symlink_metadata(&directory).is_err());
        assert_eq!(names(&elsewhere), ["preview_token"]);
    }
}
