//! The directory of one model process, and its removal after a daemon was killed with SIGKILL.
//!
//! `<base>/ei-greengrass.<uid>.<device>.<random>/` contains `model.sock` and `state.json`, which names what the next
//! start has to clean up. The base is `/dev/shm`, so that nothing outlives a reboot, else `$TMPDIR`.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, unlinkat};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::shm;
use crate::util::atomic_file::{self, Durability};

const SOCKET: &str = "model.sock";
const STATE_FILE: &str = "state.json";
/// `sun_path` of a unix socket address, without the final NUL.
const MAX_SOCKET_PATH: usize = 107;
/// No state file of this program is larger, in bytes.
const MAX_STATE: u64 = 256 << 10;

/// A process, distinguished from later processes with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid.
    pub pid: i32,
    /// Its start time in clock ticks since boot (`/proc/<pid>/stat`).
    pub started: u64,
}

impl ProcessId {
    /// The process that has this pid now.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may contain anything. Field 3 follows the last parenthesis, the start time is field
        // 22.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(Self { pid, started })
    }

    fn is_running(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// The content of `state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RuntimeDirState {
    /// The daemon.
    owner: Option<ProcessId>,
    /// The model, once it is started.
    model: Option<ProcessId>,
    /// Shared-memory segments of the model.
    segments: Vec<String>,
}

/// The directory. Dropping it removes it and the segments in its state.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    state: RuntimeDirState,
}

impl RuntimeDir {
    /// Creates a new directory (mode 0700) in the first of `bases` where that works.
    ///
    /// # Errors
    /// That of the last base.
    pub fn create(bases: &[PathBuf], device: &str) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no directory for temporary files");
        for base in bases {
            let path = base.join(format!("{}{:016x}", prefix(device), rand::random::<u64>()));
            if path.as_os_str().len() + 1 + SOCKET.len() > MAX_SOCKET_PATH {
                last = io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{} is too long for a socket", path.display()),
                );
                continue;
            }
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let owner = i32::try_from(std::process::id()).ok().and_then(ProcessId::of);
                    let directory = Self {
                        path,
                        state: RuntimeDirState {
                            owner,
                            model: None,
                            segments: Vec::new(),
                        },
                    };
                    match directory.save() {
                        Ok(()) => return Ok(directory),
                        Err(error) => last = error,
                    }
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket on which the model has to listen.
    pub fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// Records the model process.
    pub fn record_model(&mut self, pid: u32) {
        self.state.model = i32::try_from(pid).ok().and_then(ProcessId::of);
        self.save_or_warn();
    }

    /// Records shared-memory segments of the model, which are removed with the directory.
    pub fn record_segments(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            if shm::is_valid(&name) && !self.state.segments.contains(&name) {
                self.state.segments.push(name);
            }
        }
        self.save_or_warn();
    }

    fn save_or_warn(&self) {
        if let Err(error) = self.save() {
            warn!(
                path = %self.path.display(),
                %error,
                "The state of the model process cannot be saved; after a crash of this program it may not be cleaned up"
            );
        }
    }

    fn save(&self) -> io::Result<()> {
        let content = serde_json::to_vec(&self.state)?;
        let (unfinished, file) = (self.path.join("state.new"), self.path.join(STATE_FILE));
        atomic_file::replace_via(&unfinished, &file, &content, Durability::Restart)
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        for name in &self.state.segments {
            shm::remove(name);
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            warn!(path = %self.path.display(), %error, "The directory of the model process cannot be removed");
        }
    }
}

/// The bases: `/dev/shm` if it is writable, else `$TMPDIR`, else `/tmp`.
pub fn default_bases() -> Vec<PathBuf> {
    let temporary = env::var_os("TMPDIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let mut bases: Vec<PathBuf> = [Some("/dev/shm".into()), temporary, Some("/tmp".into())]
        .into_iter()
        .flatten()
        .collect();
    bases.dedup();
    bases
}

/// Wait for a process to react to SIGSTOP.
const STOP_TIMEOUT: Duration = Duration::from_millis(50);

/// Sends a model process a signal to end it, and returns the segments that it has open. This finds the segments of a
/// process that has not named them in a hello. The process is stopped meanwhile: otherwise it could create another
/// segment afterwards.
///
/// # Errors
/// The signal could not be sent.
pub fn signal_to_end(pid: Pid, signal: Signal) -> io::Result<Vec<String>> {
    kill_process(pid, Signal::STOP)?;
    let deadline = Instant::now() + STOP_TIMEOUT;
    while !is_stopped(pid) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let segments = open_segments(pid);
    kill_process(pid, signal)?;
    kill_process(pid, Signal::CONT)?;
    Ok(segments)
}

/// Whether the process is stopped, or has ended.
fn is_stopped(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, None | Some('T' | 't' | 'Z' | 'X'))
}

/// Names of the segments that a process has mapped or open.
fn open_segments(pid: Pid) -> Vec<String> {
    const SHM: &str = "/dev/shm";
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mapped = maps
        .lines()
        .filter_map(|line| line.split_once(SHM).map(|(_, name)| name.to_owned()));
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let open = files.filter_map(|entry| {
        let target = fs::read_link(entry.ok()?.path()).ok()?;
        Some(target.to_str()?.strip_prefix(SHM)?.to_owned())
    });
    mapped.chain(open).filter(|name| shm::is_valid(name)).collect()
}

/// Cleans up after a daemon of the same device and user that was killed with SIGKILL: ends its model, removes its
/// shared memory and its directory. Does not touch anything of another user, another device or a running daemon.
/// Returns the number of removed directories.
pub fn sweep(device: &str) -> usize {
    sweep_in(&default_bases(), device)
}

/// [`sweep`] in these bases.
pub fn sweep_in(bases: &[PathBuf], device: &str) -> usize {
    bases.iter().map(|base| sweep_base(base, device).unwrap_or(0)).sum()
}

fn sweep_base(base: &Path, device: &str) -> io::Result<usize> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base_fd = rustix::fs::open(base, flags, Mode::empty())?;
    let prefix = prefix(device);
    let mut removed = 0;
    for entry in Dir::read_from(&base_fd)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let Some(random) = name.strip_prefix(&prefix) else {
            continue;
        };
        if random.len() != 16 || !random.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            continue;
        }
        match sweep_directory(&base_fd, name, &base.join(name)) {
            Ok(true) => {
                info!(path = %base.join(name).display(), "Removed the directory of an earlier run");
                removed += 1;
            }
            Ok(false) => {}
            Err(error) => {
                warn!(path = %base.join(name).display(), %error, "The directory of an earlier run cannot be removed");
            }
        }
    }
    Ok(removed)
}

fn sweep_directory(base: &OwnedFd, name: &str, path: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Fails for a file or a link, which this program did not create.
    let Ok(directory) = openat(base, name, flags, Mode::empty()) else {
        return Ok(false);
    };
    if fstat(&directory)?.st_uid != geteuid().as_raw() {
        return Ok(false);
    }
    if let Some(state) = read_state(&directory) {
        if state.owner.is_some_and(ProcessId::is_running) {
            return Ok(false);
        }
        let mut segments = state.segments;
        if let Some(model) = state.model {
            segments.extend(end_model(model, &path.join(SOCKET)));
        }
        for segment in &segments {
            shm::remove(segment);
        }
    }
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") && entry.file_type() != FileType::Directory {
            unlinkat(&directory, entry.file_name(), AtFlags::empty())?;
        }
    }
    unlinkat(base, name, AtFlags::REMOVEDIR)?;
    Ok(true)
}

fn read_state(directory: &OwnedFd) -> Option<RuntimeDirState> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, STATE_FILE, flags, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_uid != geteuid().as_raw() {
        return None;
    }
    let mut text = Vec::new();
    File::from(file).take(MAX_STATE).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Ends a model whose daemon is gone, if it is the process that was started on this socket. Returns its segments.
fn end_model(model: ProcessId, socket: &Path) -> Vec<String> {
    let was_started_on_socket = || {
        let command = fs::read(format!("/proc/{}/cmdline", model.pid)).unwrap_or_default();
        command
            .split(|byte| *byte == 0)
            .any(|argument| argument == socket.as_os_str().as_encoded_bytes())
    };
    let Some(pid) = Pid::from_raw(model.pid).filter(|_| model.is_running() && was_started_on_socket()) else {
        return Vec::new();
    };
    let mut segments = Vec::new();
    info!(pid = model.pid, "Ending the model process of an earlier run");
    for (signal, wait) in [
        (Signal::INT, Duration::from_secs(1)),
        (Signal::KILL, Duration::from_secs(1)),
    ] {
        if !model.is_running() {
            break;
        }
        match signal_to_end(pid, signal) {
            Ok(found) => segments.extend(found),
            Err(_) => break,
        }
        let deadline = Instant::now() + wait;
        while model.is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    segments
}

/// The beginning of the directory's name. A device name that is long or has other characters than letters, digits, `-`
/// and `_` is shortened and gets a hash.
fn prefix(device: &str) -> String {
    const MAX_DEVICE: usize = 24;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let device = if device.len() <= MAX_DEVICE && !device.is_empty() && device.chars().all(is_plain) {
        device.to_owned()
    } else {
        // FNV-1a, which never changes: a later version must find the directories of this one.
        let hash = device.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        let start: String = device.chars().filter(|c| is_plain(*c)).take(MAX_DEVICE - 9).collect();
        format!("{start}~{hash:08x}")
    };
    format!("ei-greengrass.{}.{device}.", geteuid().as_raw())
}

#[cfg(test)]
#[path = "runtime_dir_tests.rs"]
mod tests;
