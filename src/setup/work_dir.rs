//! Gives the component's work directory, with its content, to the service user.
//!
//! The nucleus gives a new `posixUser` only the directory itself. What the earlier user left in it could not be read: the spool
//! with its messages, the pairs for S3, the models.
//!
//! Root must not be led elsewhere: no link is followed, no other file system is entered, and a file with a second name (a hard
//! link) is left alone.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Gid, Mode, OFlags, Stat, Uid, chownat, flock, fstat, openat, statat,
};

use super::machine::Host;
use super::nucleus::Nucleus;
use super::report::StepReport;
use super::service_user::ServiceUser;

/// Deeper directories are left alone. The component makes three levels.
const MAX_DEPTH: u32 = 16;
/// Most names of entries in a warning.
const MAX_NAMED: usize = 5;
/// Time limit of `systemctl stop`, in seconds. The component stops within 4 s.
const STOP_LIMIT: u64 = 30;
/// What a directory of a device contains.
const DEVICE_FILES: [&CStr; 6] = [
    c"identity",
    c"spool.redb",
    c"s3-index.redb",
    c"s3-pending",
    c"iot-endpoint.json",
    c"preview_token",
];
const MODELS: &str = "models";

/// `configured`: the key `work_dir`, if it is set.
pub(super) fn give(
    machine: &Host,
    report: &mut StepReport,
    nucleus: &Nucleus,
    user: &ServiceUser,
    configured: Option<&Path>,
) {
    // In a dry run the user may not exist yet.
    let Some((uid, gid)) = user.ids(machine) else { return };
    let owner = Owner {
        uid,
        gid,
        name: format!("{}:{}", user.name, user.group),
    };
    let own = nucleus.work_dir();
    if let Some(directory) = &own
        && let Err(error) = give_own(machine, report, nucleus, &owner, directory)
    {
        report.warning(format_args!("work directory {}: {error}", directory.display()));
    }
    if let Some(configured) = configured
        && own.is_none_or(|own| !machine.path(configured).starts_with(own))
        && let Err(error) = give_configured(machine, report, &owner, configured)
    {
        report.warning(format_args!(
            "work_dir {}: {error}; if it belongs to another user: chown -R {} {}",
            configured.display(),
            owner.name,
            configured.display()
        ));
    }
}

struct Owner {
    uid: Uid,
    gid: Gid,
    name: String,
}

impl Owner {
    fn owns(&self, found: &Stat) -> bool {
        found.st_uid == self.uid.as_raw() && found.st_gid == self.gid.as_raw()
    }
}

/// The directory that the nucleus made.
fn give_own(
    machine: &Host,
    report: &mut StepReport,
    nucleus: &Nucleus,
    owner: &Owner,
    directory: &Path,
) -> io::Result<()> {
    let top = open_directory(CWD, directory)?;
    let found = fstat(&top)?;
    // The nucleus has given it to the user. Without the run unit, another owner means that the user was not recognised.
    if nucleus.run_unit().is_none() && ![0, owner.uid.as_raw()].contains(&found.st_uid) {
        report.warning(format_args!(
            "work directory {} belongs to uid {} and not to {}; it is left alone",
            directory.display(),
            found.st_uid,
            owner.name
        ));
        return Ok(());
    }
    stop_earlier_user(machine, report, nucleus, owner, &top);
    let mut gift = Gift::new(owner, machine.is_dry_run(), &found);
    gift.give(&top, &found)?;
    gift.give_content(&top, Path::new(""), 0)?;
    gift.report(report, directory);
    Ok(())
}

/// A process of an earlier user would lose its last messages if its files were given away. Its unit is stopped, so that it
/// writes them; the nucleus starts it again after this step.
fn stop_earlier_user(machine: &Host, report: &mut StepReport, nucleus: &Nucleus, owner: &Owner, top: &OwnedFd) {
    let is_of_earlier_user = |entry: Entry| entry.found.st_uid != owner.uid.as_raw() && entry.is_held();
    let runs = || entries(top).is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(is_of_earlier_user)));
    if !nucleus.is_lite() || !machine.has("systemctl") || !runs() {
        return;
    }
    let unit = nucleus.run_unit_name();
    match machine.change_within(STOP_LIMIT, machine.command("systemctl").args(["stop", &unit]), report) {
        Ok(()) => report.done(format_args!(
            "{unit} of the earlier user stopped, so that it writes its messages; Greengrass starts it as {}",
            owner.name
        )),
        Err(reason) => report.warning(format_args!(
            "{unit} of the earlier user could not be stopped ({reason}); messages that it could not send may be lost"
        )),
    }
}

/// A directory of the key `work_dir`, which may contain other things too.
fn give_configured(machine: &Host, report: &mut StepReport, owner: &Owner, configured: &Path) -> io::Result<()> {
    let Some(top) = open_without_links(&machine.path("/"), configured)? else {
        return Ok(());
    };
    let found = fstat(&top)?;
    let (mut has_device, mut has_others) = (false, false);
    for entry in entries(&top)? {
        let entry = entry?;
        has_device |= entry.is_of_device();
        has_others |= !entry.is_of_component();
    }
    // `models` is a common name: it is ours only beside the directory of a device.
    if !has_device {
        return Ok(());
    }
    let mut gift = Gift::new(owner, machine.is_dry_run(), &found);
    if !has_others && !is_home(machine, configured) {
        gift.give(&top, &found)?;
    }
    for entry in entries(&top)? {
        let entry = entry?;
        if entry.is_of_component() {
            gift.give_entry(&entry, Path::new(""), 0)?;
        }
    }
    gift.report(report, configured);
    Ok(())
}

fn is_home(machine: &Host, directory: &Path) -> bool {
    let accounts = machine.text("/etc/passwd");
    let mut homes = accounts.lines().filter_map(|line| line.split(':').nth(5));
    homes.any(|home| Path::new(home) == directory)
}

fn open_directory(parent: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, path, flags, Mode::empty())?)
}

/// Opens an absolute path below `root` step by step. `None`: it does not exist.
fn open_without_links(root: &Path, path: &Path) -> io::Result<Option<OwnedFd>> {
    let mut directory = open_directory(CWD, root)?;
    for component in path.components() {
        match component {
            Component::RootDir => {}
            Component::Normal(name) => match open_directory(&directory, Path::new(name)) {
                Ok(next) => directory = next,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => {
                    return Err(io::Error::other(format!(
                        "{} is a link or no directory ({error})",
                        name.display()
                    )));
                }
            },
            _ => return Err(io::Error::other("it is not an absolute path without ..")),
        }
    }
    Ok(Some(directory))
}

/// An entry of a directory. The descriptor stays on this entry, whatever happens to its name.
struct Entry {
    name: PathBuf,
    path: OwnedFd,
    found: Stat,
    /// Its content, if it is a directory.
    directory: Option<OwnedFd>,
}

impl Entry {
    /// `None`: it is gone.
    fn open(parent: &OwnedFd, name: &CStr) -> io::Result<Option<Self>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = match openat(parent, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            opened => opened?,
        };
        let found = fstat(&path)?;
        let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        Ok(Some(Self {
            name: PathBuf::from(String::from_utf8_lossy(name.to_bytes()).into_owned()),
            directory: is_directory
                .then(|| open_directory(&path, Path::new(".")))
                .transpose()?,
            path,
            found,
        }))
    }

    /// Whether a running component holds the directory of its device.
    fn is_held(&self) -> bool {
        let lock = |directory| flock(directory, FlockOperation::NonBlockingLockExclusive);
        let result = self.directory.as_ref().map(lock);
        if result == Some(Ok(())) {
            let _ = self
                .directory
                .as_ref()
                .map(|directory| flock(directory, FlockOperation::Unlock));
        }
        result == Some(Err(rustix::io::Errno::WOULDBLOCK))
    }

    /// Whether it is the directory of a device.
    fn is_of_device(&self) -> bool {
        let has = |name: &&CStr| {
            let directory = self.directory.as_ref();
            directory.is_some_and(|directory| statat(directory, *name, AtFlags::SYMLINK_NOFOLLOW).is_ok())
        };
        DEVICE_FILES.iter().any(has)
    }

    /// Whether the component makes such an entry in `work_dir`.
    fn is_of_component(&self) -> bool {
        self.is_of_device() || (self.name == Path::new(MODELS) && self.directory.is_some())
    }
}

/// The entries of a directory, opened one after the other: there may be more than a process may open.
fn entries(directory: &OwnedFd) -> io::Result<impl Iterator<Item = io::Result<Entry>>> {
    let names = Dir::read_from(directory)?;
    Ok(names.filter_map(move |name| match name {
        Ok(name) if name.file_name() == c"." || name.file_name() == c".." => None,
        Ok(name) => Entry::open(directory, name.file_name()).transpose(),
        Err(error) => Some(Err(error.into())),
    }))
}

/// The change of owner of one tree.
struct Gift<'a> {
    owner: &'a Owner,
    dry_run: bool,
    /// The file system of the tree.
    device: u64,
    changed: u64,
    left_alone: Vec<String>,
}

impl<'a> Gift<'a> {
    fn new(owner: &'a Owner, dry_run: bool, top: &Stat) -> Self {
        Self {
            owner,
            dry_run,
            device: top.st_dev,
            changed: 0,
            left_alone: Vec::new(),
        }
    }

    fn give(&mut self, entry: &OwnedFd, found: &Stat) -> io::Result<()> {
        if self.owner.owns(found) {
            return Ok(());
        }
        if !self.dry_run {
            chownat(
                entry,
                c"",
                Some(self.owner.uid),
                Some(self.owner.gid),
                AtFlags::EMPTY_PATH,
            )?;
        }
        self.changed += 1;
        Ok(())
    }

    fn give_content(&mut self, directory: &OwnedFd, path: &Path, depth: u32) -> io::Result<()> {
        for entry in entries(directory)? {
            self.give_entry(&entry?, path, depth)?;
        }
        Ok(())
    }

    fn give_entry(&mut self, entry: &Entry, path: &Path, depth: u32) -> io::Result<()> {
        let path = path.join(&entry.name);
        let refusal = match FileType::from_raw_mode(entry.found.st_mode) {
            _ if entry.found.st_dev != self.device => Some("is on another file system"),
            FileType::Directory if depth >= MAX_DEPTH => Some("is too deep"),
            FileType::RegularFile if entry.found.st_nlink > 1 => Some("has a second name"),
            FileType::RegularFile | FileType::Directory | FileType::Symlink | FileType::Fifo | FileType::Socket => None,
            _ => Some("is a device"),
        };
        if let Some(refusal) = refusal {
            if !self.owner.owns(&entry.found) {
                self.left_alone.push(format!("{} {refusal}", path.display()));
            }
            return Ok(());
        }
        self.give(&entry.path, &entry.found)?;
        match &entry.directory {
            Some(directory) => self.give_content(directory, &path, depth + 1),
            None => Ok(()),
        }
    }

    fn report(&self, report: &mut StepReport, directory: &Path) {
        let (directory, owner) = (directory.display(), &self.owner.name);
        match self.changed {
            0 => report.skipped(format_args!("work directory {directory}: belongs to {owner}")),
            changed => report.done(format_args!(
                "work directory {directory} given to {owner} ({changed} files and directories)"
            )),
        }
        if !self.left_alone.is_empty() {
            let named: Vec<_> = self.left_alone.iter().take(MAX_NAMED).map(String::as_str).collect();
            report.warning(format_args!(
                "in the work directory {directory}, {} entries are not given to {owner}: {}",
                self.left_alone.len(),
                named.join(", ")
            ));
        }
    }
}
