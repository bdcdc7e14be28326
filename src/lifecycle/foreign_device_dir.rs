//! Replaces the directory of a device that belongs to another user, and takes up its files when they can be read.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, FlockOperation, access, flock};

use crate::util::foreign_files::{self, all_set_aside, set_aside, set_aside_in};
use crate::util::private_dir;

/// What the spool, the S3 cache and the events take up themselves. Names that follow with a dot are files that were set aside before.
const TAKEN_UP: [&str; 4] = ["spool.redb", "s3-index.redb", "s3-pending", "events.json"];
/// Replaces the one of the new directory: it is known to those who use the live page.
const TOKEN: &str = "preview_token";
/// Can be made again.
const DISPENSABLE: [&str; 4] = [
    "iot-endpoint.json",
    "spool.redb.new",
    "s3-index.redb.new",
    "events.unfinished",
];
/// Clips on their way to S3, which no later start uploads.
const CLIPS: &str = "event-clips";

/// Prepares the directory of a device before it is used. It is called by the only process of the device.
pub fn replace_foreign_device_dir(directory: &Path) {
    if is_foreign(directory) {
        match set_aside(directory) {
            Ok(kept_as) => tracing::error!(
                path = %directory.display(), kept_as = %kept_as.display(), advice = foreign_files::ADVICE,
                "The directory of the device belongs to another user and was renamed; what waits in it for delivery is kept"
            ),
            Err(error) => tracing::error!(
                path = %directory.display(), %error,
                advice = "give it to the user of the component with `chown -R`, and restart",
                "The directory of the device belongs to another user; undelivered messages are kept in memory only"
            ),
        }
    }
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

/// Whether the directory exists and this process cannot use it.
fn is_foreign(directory: &Path) -> bool {
    let used = access(directory, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK);
    directory.is_dir() && used == Err(rustix::io::Errno::ACCESS)
}

/// Moves the files of `aside` into the directory of the device, where each part takes up its own.
fn take_up(aside: &Path, directory: &Path) -> io::Result<()> {
    let opened = File::open(aside)?;
    flock(&opened, FlockOperation::NonBlockingLockExclusive)?;
    let uid = opened.metadata()?.uid();
    private_dir::create(directory)?;
    for entry in fs::read_dir(aside)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if DISPENSABLE.contains(&&*name) {
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
}
