//! Who holds the lock of a file.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The name of this program. A process that has replaced itself is called `exe`.
const PROGRAM: &str = env!("CARGO_PKG_NAME");

/// The pid of the process that holds the lock of a file. The kernel lists all locks for everybody (`proc_locks(5)`).
pub(super) fn flock_holder(path: &Path) -> Option<u32> {
    let inode = fs::symlink_metadata(path).ok()?.ino();
    let locks = io::read_to_string(File::open("/proc/locks").ok()?).ok()?;
    locks.lines().find_map(|line| holder_in(line, inode))
}

/// Whether a process is this program, according to its name or its first argument. `true` if that is not known: the processes of
/// other users may be hidden (`hidepid`).
pub(super) fn is_component(pid: u32) -> bool {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}"));
    let (Ok(name), Ok(arguments)) = (read("comm"), read("cmdline")) else {
        return true;
    };
    let program = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
    let program = Path::new(std::ffi::OsStr::from_bytes(program)).file_name();
    name.trim_ascii() == PROGRAM.as_bytes() || program.is_some_and(|program| program == PROGRAM || program == "exe")
}

/// The user of a process.
pub(super) fn owner_of(pid: u32) -> Option<u32> {
    Some(fs::metadata(format!("/proc/{pid}")).ok()?.uid())
}

/// `1: FLOCK  ADVISORY  WRITE 4847 fe:00:7618575 0 EOF`. The device is not compared: on some file systems it is not that of
/// the file.
fn holder_in(line: &str, inode: u64) -> Option<u32> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, _, pid, file, ..] = fields.as_slice() else {
        return None;
    };
    let (_, number) = file.rsplit_once(':')?;
    (number.parse() == Ok(inode)).then(|| pid.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FlockOperation, flock};

    #[test]
    fn the_holder_of_a_file_is_found_in_the_locks_of_the_kernel() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(flock_holder(file.path()), None);
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(flock_holder(file.path()), Some(std::process::id()));
    }

    #[test]
    fn another_program_that_holds_the_lock_is_not_the_component() {
        assert!(!is_component(std::process::id()), "a test program");
        assert!(is_component(u32::MAX), "not known");
        assert_eq!(owner_of(std::process::id()), Some(rustix::process::geteuid().as_raw()));
    }

    #[test]
    fn only_an_flock_of_the_same_file_counts() {
        for (line, holder) in [
            ("1: FLOCK  ADVISORY  WRITE 4847 fe:00:761 0 EOF", Some(4847)),
            ("1: -> FLOCK  ADVISORY  WRITE 4847 fe:00:761 0 EOF", None),
            ("1: POSIX  ADVISORY  WRITE 4847 fe:00:761 0 EOF", None),
            ("1: FLOCK  ADVISORY  WRITE 4847 fe:00:762 0 EOF", None),
            ("", None),
        ] {
            assert_eq!(holder_in(line, 761), holder, "{line}");
        }
    }
}
