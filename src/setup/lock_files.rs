//! Removes lock files of other users, which the service user cannot open.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::machine::Host;
use super::report::StepReport;

/// Only the default of `lock_filename` is handled: another value could be the path of any file.
const DIRECTORY: &str = "/tmp";
const PREFIX: &str = "ei_lockfile_runner_";

enum LockFileOutcome {
    Removed,
    InUse,
}

/// A run as root, or as an earlier `posixUser`, may have left its lock file behind. The component would then exit with code 2
/// and become BROKEN.
pub(super) fn remove_unusable(machine: &Host, report: &mut StepReport, user: &str) {
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
            Ok(LockFileOutcome::Removed) => report.done(format_args!(
                "lock file {file} of uid {uid} removed: {user} could not use it"
            )),
            Ok(LockFileOutcome::InUse) => report.skipped(format_args!(
                "lock file {file} of uid {uid}: in use by a component that runs"
            )),
            Err(error) => report.warning(format_args!(
                "lock file {file} of uid {uid}, which {user} cannot use, could not be removed ({error}); \
                 remove it by hand unless its component runs"
            )),
        }
    }
}

fn lock_files(machine: &Host) -> Vec<PathBuf> {
    let entries = fs::read_dir(machine.path(DIRECTORY)).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

/// Removes the file while holding its lock. The file is opened for reading, because Linux forbids even root to open another
/// user's file in /tmp with O_CREAT (fs.protected_regular). A link that replaces it meanwhile is not followed.
fn remove_unless_held(path: &Path, dry_run: bool) -> io::Result<LockFileOutcome> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(LockFileOutcome::InUse),
        other => other?,
    }
    let (held, named) = (file.metadata()?, fs::symlink_metadata(path)?);
    if (held.dev(), held.ino()) != (named.dev(), named.ino()) {
        return Err(io::Error::other("it was replaced meanwhile"));
    }
    if !dry_run {
        fs::remove_file(path)?;
    }
    Ok(LockFileOutcome::Removed)
}
