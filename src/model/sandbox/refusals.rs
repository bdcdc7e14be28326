//! Refused files in the log, so that what a new accelerator needs can be allowed.
//!
//! Landlock refuses without a word. So each system call of the model that opens, creates or executes a file waits until a
//! thread has seen its path; then it goes on in the kernel, which alone decides. What the thread finds out is for the log
//! only.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use sandbox_calls::{Listener, WaitingCall, sock_filter};
use tracing::warn;

use super::filter;
use super::paths::{Access, Grant};

/// Paths that are logged; more are not.
const MAX_PATHS: usize = 100;
/// `PATH_MAX` of Linux.
const MAX_PATH: usize = 4096;

/// The refused paths that the log has already. Shared by all starts of a model.
#[derive(Debug, Clone, Default)]
pub(super) struct LoggedPaths(Arc<Mutex<HashSet<PathBuf>>>);

/// What a system call wants of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
enum Wish {
    Read,
    Write,
    Execute,
}

/// A system call with the place of its path among the arguments.
struct Watched {
    number: libc::c_long,
    /// The argument with the directory to which the path is relative.
    directory: Option<usize>,
    path: usize,
    wish: WishOf,
}

/// Where the wish of a system call stands.
#[derive(Clone, Copy)]
enum WishOf {
    Call(Wish),
    /// In the flags of this argument.
    Flags(usize),
    /// In the first field of the structure at this argument.
    Structure(usize),
}

const WATCHED: &[Watched] = &[
    #[cfg(target_arch = "x86_64")]
    Watched {
        number: libc::SYS_open,
        directory: None,
        path: 0,
        wish: WishOf::Flags(1),
    },
    #[cfg(target_arch = "x86_64")]
    Watched {
        number: libc::SYS_creat,
        directory: None,
        path: 0,
        wish: WishOf::Call(Wish::Write),
    },
    #[cfg(target_arch = "x86_64")]
    Watched {
        number: libc::SYS_mkdir,
        directory: None,
        path: 0,
        wish: WishOf::Call(Wish::Write),
    },
    Watched {
        number: libc::SYS_openat,
        directory: Some(0),
        path: 1,
        wish: WishOf::Flags(2),
    },
    Watched {
        number: libc::SYS_openat2,
        directory: Some(0),
        path: 1,
        wish: WishOf::Structure(2),
    },
    Watched {
        number: libc::SYS_mkdirat,
        directory: Some(0),
        path: 1,
        wish: WishOf::Call(Wish::Write),
    },
    Watched {
        number: libc::SYS_execve,
        directory: None,
        path: 0,
        wish: WishOf::Call(Wish::Execute),
    },
];

/// The filter that lets these calls wait; `None`: none can be built for this instruction set.
pub(super) fn program() -> Option<Vec<sock_filter>> {
    let numbers: Vec<_> = WATCHED.iter().map(|call| call.number).collect();
    filter::waiting(&numbers)
}

/// Starts a thread that logs what the grants refuse, until the last process of the model has ended. It takes one listener
/// from the returned channel.
///
/// # Errors
/// The system cannot start a thread.
pub(super) fn start_logging(grants: Vec<Grant>, logged: LoggedPaths) -> io::Result<Sender<Listener>> {
    let (sender, listeners) = mpsc::channel();
    thread::Builder::new().name("model-access".into()).spawn(move || {
        // Rules name what a path leads to.
        let resolve = |grant: Grant| Some((fs::canonicalize(&grant.path).ok()?, grant.access));
        let grants: Vec<_> = grants.into_iter().filter_map(resolve).collect();
        if let Ok(listener) = listeners.recv() {
            log(&listener, &grants, &logged);
        }
    })?;
    Ok(sender)
}

fn log(listener: &Listener, grants: &[(PathBuf, Access)], logged: &LoggedPaths) {
    while let Some(call) = next_call(listener) {
        let seen = see(&call);
        if listener.proceed(&call).is_err() {
            continue;
        }
        if let Some((path, wish)) = seen.and_then(|(path, wish)| Some((refused(&path, wish, grants)?, wish))) {
            logged.add(path, wish);
        }
    }
}

/// The next system call; `None`: there is no process left.
fn next_call(listener: &Listener) -> Option<WaitingCall> {
    loop {
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut ready, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
            Ok(_) => {}
        }
        if !ready[0].revents().contains(PollFlags::IN) {
            return None;
        }
        // An error: its process has ended meanwhile.
        if let Ok(call) = listener.receive() {
            return Some(call);
        }
    }
}

/// The absolute path of a call, and what it wants of it.
fn see(call: &WaitingCall) -> Option<(PathBuf, Wish)> {
    let watched = WATCHED.iter().find(|watched| watched.number == call.number)?;
    let memory = File::open(format!("/proc/{}/mem", call.pid)).ok()?;
    let path = read_path(&memory, call.arguments[watched.path])?;
    let path = match (path.is_absolute(), watched.directory) {
        (true, _) => path,
        (false, directory) => {
            let directory = directory.map_or(libc::AT_FDCWD, |argument| call.arguments[argument] as i32);
            let link = match directory {
                libc::AT_FDCWD => format!("/proc/{}/cwd", call.pid),
                fd => format!("/proc/{}/fd/{fd}", call.pid),
            };
            fs::read_link(link).ok()?.join(path)
        }
    };
    let wish = match watched.wish {
        WishOf::Call(wish) => wish,
        WishOf::Flags(argument) => wish(call.arguments[argument]),
        WishOf::Structure(argument) => {
            let mut flags = [0; 8];
            memory.read_exact_at(&mut flags, call.arguments[argument]).ok()?;
            wish(u64::from_ne_bytes(flags))
        }
    };
    Some((path, wish))
}

fn wish(flags: u64) -> Wish {
    let changes = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
    if flags & changes as u64 == 0 {
        Wish::Read
    } else {
        Wish::Write
    }
}

/// A path in the memory of a process, up to its NUL.
fn read_path(memory: &File, address: u64) -> Option<PathBuf> {
    let mut bytes = vec![0; MAX_PATH];
    // The memory may end behind the path.
    let mut length = 0;
    while length < MAX_PATH {
        // To the end of the page.
        let part = (4096 - (address + length as u64) % 4096).min((MAX_PATH - length) as u64) as usize;
        let read = memory
            .read_at(&mut bytes[length..length + part], address + length as u64)
            .ok()?;
        if let Some(end) = bytes[length..length + read].iter().position(|byte| *byte == 0) {
            bytes.truncate(length + end);
            return String::from_utf8(bytes).ok().map(PathBuf::from);
        }
        if read < part {
            return None;
        }
        length += part;
    }
    None
}

/// What the path leads to, if it is there and no grant allows the wish.
fn refused(path: &Path, wish: Wish, grants: &[(PathBuf, Access)]) -> Option<PathBuf> {
    // These lead to the model itself, and from here to this program.
    if ["/proc/self", "/proc/thread-self"]
        .iter()
        .any(|own| path.starts_with(own))
    {
        return None;
    }
    let found = match fs::canonicalize(path) {
        Ok(found) => found,
        // A file that is to be created.
        Err(_) if wish == Wish::Write => fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?),
        Err(_) => return None,
    };
    let allowed = grants.iter().filter(|(granted, _)| found.starts_with(granted));
    let is_directory = found.is_dir();
    let allows = |access: Access| match (wish, access) {
        (_, Access::Everything) => true,
        (Wish::Read, Access::List) => is_directory,
        (Wish::Read, Access::Unpack | Access::SharedMemory | Access::Socket) => !is_directory,
        (Wish::Read, _) => true,
        (Wish::Write, access) => {
            matches!(
                access,
                Access::Device | Access::Unpack | Access::SharedMemory | Access::Keep
            )
        }
        (Wish::Execute, access) => access == Access::Execute,
    };
    let mut allowed = allowed.map(|(_, access)| *access);
    (!allowed.any(allows)).then_some(found)
}

impl LoggedPaths {
    /// Logs a path once.
    fn add(&self, path: PathBuf, wish: Wish) {
        let mut paths = self.0.lock();
        if paths.len() < MAX_PATHS && !paths.contains(&path) {
            warn!(
                path = %path.display(),
                access = %wish,
                "The sandbox refused the model a file; if the model does not work without it, add the path to model_allow"
            );
            paths.insert(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_grant_allows_is_refused_and_named_by_what_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let (read, kept) = (root.join("read"), root.join("kept"));
        for directory in [&read, &kept] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("file"), "").unwrap();
        }
        std::os::unix::fs::symlink("..", kept.join("up")).unwrap();
        let grants = [(read.clone(), Access::Read), (kept.clone(), Access::Keep)];
        let refused = |path: &Path, wish| refused(path, wish, &grants);
        assert_eq!(refused(&read.join("file"), Wish::Read), None);
        assert_eq!(refused(&read.join("file"), Wish::Write), Some(read.join("file")));
        assert_eq!(refused(&read.join("file"), Wish::Execute), Some(read.join("file")));
        assert_eq!(refused(&kept.join("new"), Wish::Write), None);
        assert_eq!(refused(&read.join("new"), Wish::Write), Some(read.join("new")));
        assert_eq!(
            refused(&kept.join("up/read/file"), Wish::Write),
            Some(read.join("file"))
        );
        assert_eq!(refused(&root, Wish::Read), Some(root.clone()));
        // The model gets "no such file", whatever is allowed.
        assert_eq!(refused(&root.join("nothing"), Wish::Read), None);
        assert_eq!(refused(Path::new("/proc/self/maps"), Wish::Read), None);
    }

    #[test]
    fn a_path_is_read_from_memory_up_to_its_end() {
        let memory = File::open("/proc/self/mem").unwrap();
        let path = std::ffi::CString::new(format!("/{}", "a".repeat(4000))).unwrap();
        let found = read_path(&memory, path.as_ptr() as u64).unwrap();
        assert_eq!(found.as_os_str().len(), 4001);
        let endless = vec![b'a'; 2 * MAX_PATH];
        assert_eq!(read_path(&memory, endless.as_ptr() as u64), None);
        assert_eq!(read_path(&memory, 0), None);
    }
}
