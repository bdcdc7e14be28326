//! Lock files that the service user cannot open, because another user left them behind.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::machine::Machine;
use super::report::Report;

/// Only the default of `lock_filename`: another value could name any file.
const DIRECTORY: &str = "/tmp";
const PREFIX: &str = "ei_lockfile_runner_";

enum Outcome {
    Removed,
    InUse,
}

/// A run by hand as root, or as an earlier `posixUser`, may have left its lock file: the component would end with exit
/// code 2 and be BROKEN.
pub(super) fn free(machine: &Machine, report: &mut Report, user: &str) {
    let owner = machine.query(machine.command("id").args(["-u", user]));
    for path in lock_files(machine) {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        let uid = metadata.uid();
        if !metadata.is_file() || owner.as_deref() == Some(uid.to_string().as_str()) {
            continue;
        }
        let file = path.display();
        match remove_unless_held(&path, machine.is_dry_run()) {
            Ok(Outcome::Removed) => report.done(format_args!(
                "lock file {file} of uid {uid} removed: {user} could not use it"
            )),
            Ok(Outcome::InUse) => report.skipped(format_args!(
                "lock file {file} of uid {uid}: in use by a component that runs"
            )),
            Err(error) => report.warning(format_args!(
                "lock file {file} of uid {uid}, which {user} cannot use, could not be removed ({error}); \
                 remove it by hand unless its component runs"
            )),
        }
    }
}

fn lock_files(machine: &Machine) -> Vec<PathBuf> {
    let entries = fs::read_dir(machine.path(DIRECTORY)).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

/// Removes the file while holding its lock. It is opened for reading, because Linux forbids even root to open the files of
/// others in /tmp with O_CREAT (fs.protected_regular); what somebody puts under the name meanwhile is not followed.
fn remove_unless_held(path: &Path, dry_run: bool) -> io::Result<Outcome> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Outcome::InUse),
        other => other?,
    }
    let (held, named) = (file.metadata()?, fs::symlink_metadata(path)?);
    if (held.dev(), held.ino()) != (named.dev(), named.ino()) {
        return Err(io::Error::other("it was replaced meanwhile"));
    }
    if !dry_run {
        fs::remove_file(path)?;
    }
    Ok(Outcome::Removed)
}
