//! Whose files a component accepts in its work directory: others may be able to write there.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::statfs;
use rustix::process::geteuid;

/// Types of file systems on which the owner of a file is not a user of this machine: FAT, exFAT, NTFS, FUSE, NFS, SMB and 9P
/// (`statfs(2)`).
const WITHOUT_OWNERS: [u32; 9] = [
    0x4d44,
    0x2011_bab0,
    0x5346_544e,
    0x7366_746e,
    0x6573_5546,
    0x6969,
    0xff53_4d42,
    0xfe53_4d42,
    0x0102_1997,
];

/// The users whose files are accepted: this one and root. Root also accepts those of the owner of the work directory, because an
/// administrator runs the program by hand.
#[derive(Debug, Clone, Copy)]
pub struct TrustedOwners {
    own: u32,
    of_work_dir: Option<u32>,
    /// The file system does not keep owners.
    is_anybody: bool,
}

impl TrustedOwners {
    /// The trusted owners of what is in `work_dir`, which may be a symbolic link.
    pub fn of(work_dir: &Path) -> Self {
        let own = geteuid();
        let is_anybody = statfs(work_dir).is_ok_and(|found| WITHOUT_OWNERS.contains(&(found.f_type as u32)));
        let of_work_dir = fs::metadata(work_dir).ok().filter(|_| own.is_root());
        Self {
            own: own.as_raw(),
            of_work_dir: of_work_dir.map(|metadata| metadata.uid()),
            is_anybody,
        }
    }

    /// Why a directory or file is not accepted; `None`: it is. `metadata` is that of the entry itself, not of what a link names.
    pub fn objection(&self, metadata: &Metadata) -> Option<String> {
        let kind = metadata.file_type();
        let uid = metadata.uid();
        if kind.is_symlink() {
            Some("it is a symbolic link".to_owned())
        } else if !kind.is_dir() && !kind.is_file() {
            let name = if kind.is_fifo() { "pipe" } else { "device or socket" };
            Some(format!("it is a {name}"))
        } else if !self.is_anybody && uid != 0 && uid != self.own && Some(uid) != self.of_work_dir {
            Some(format!("it belongs to {}", user_name(uid)))
        } else if kind.is_file() && metadata.nlink() > 1 {
            Some("it has a second name (a hard link)".to_owned())
        } else {
            None
        }
    }
}

/// `alice (uid 1001)`, or `uid 1001` if `/etc/passwd` does not name the user.
pub fn user_name(uid: u32) -> String {
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next(), fields.next()?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    });
    match name {
        Some(name) => format!("{name} (uid {uid})"),
        None => format!("uid {uid}"),
    }
}

/// The error for an entry that is not accepted. It counts as one that belongs to another user
/// ([`is_foreign`](super::foreign_files::is_foreign)).
pub(crate) fn not_accepted(objection: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, objection.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_and_pipes_are_not_accepted_and_own_files_are() {
        let work_dir = tempfile::tempdir().unwrap();
        let path = |name: &str| work_dir.path().join(name);
        fs::write(path("file"), "").unwrap();
        fs::write(path("two names"), "").unwrap();
        fs::hard_link(path("two names"), path("second name")).unwrap();
        fs::create_dir(path("directory")).unwrap();
        symlink("directory", path("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let owners = TrustedOwners::of(work_dir.path());
        let objection = |name: &str| owners.objection(&fs::symlink_metadata(path(name)).unwrap());
        assert_eq!((objection("file"), objection("directory")), (None, None));
        for (name, reason) in [
            ("link", "symbolic link"),
            ("pipe", "a pipe"),
            ("two names", "hard link"),
        ] {
            let found = objection(name).unwrap();
            assert!(found.contains(reason), "{name}: {found}");
        }
    }

    #[test]
    fn a_user_is_named_with_its_number() {
        assert_eq!(user_name(0), "root (uid 0)");
        assert_eq!(user_name(4_000_000_001), "uid 4000000001");
    }
}
