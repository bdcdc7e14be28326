//! What a hostile model tries.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::process::{Signal, getppid, kill_process};

/// Tries one thing. Returns `done`, what was found out, or the number of the error (`errno 13`).
pub fn attempt(what: &str, on: &str) -> String {
    let outcome = match what {
        "read" => read(on),
        "list" => fs::read_dir(on).map(drop),
        "write" => OpenOptions::new().create(true).append(true).open(on).map(drop),
        "truncate" => OpenOptions::new().write(true).truncate(true).open(on).map(drop),
        "remove" => fs::remove_file(on),
        "make directory" => fs::create_dir(on),
        "rename" => fs::rename(on, format!("{on}.renamed")),
        "change mode" => fs::set_permissions(on, Permissions::from_mode(0o777)),
        "connect by tcp" => TcpStream::connect(on).map(drop),
        "send by udp" => UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", on).map(drop)),
        "connect by unix" => UnixStream::connect(on).map(drop),
        "execute" => Command::new(on).arg("--version").status().map(drop),
        "signal the parent" => parent().and_then(|pid| Ok(kill_process(pid, Signal::CONT)?)),
        "read the parent" => parent().and_then(|pid| read(&format!("/proc/{}/environ", pid.as_raw_nonzero()))),
        "trace the parent" => parent().and_then(|pid| trace(pid.as_raw_nonzero().get())),
        "allocate" => return allocate(on.parse().expect("bytes")),
        "start threads" => return start_threads(on.parse().expect("a number")),
        "limit" => return limit(on),
        "variable" => return std::env::var(on).unwrap_or_default(),
        other => panic!("the attempt {other:?} is not known"),
    };
    match outcome {
        Ok(()) => "done".to_owned(),
        Err(error) => error
            .raw_os_error()
            .map_or_else(|| error.to_string(), |code| format!("errno {code}")),
    }
}

fn read(path: &str) -> io::Result<()> {
    fs::File::open(path)?.read(&mut [0; 16]).map(drop)
}

fn parent() -> io::Result<rustix::process::Pid> {
    getppid().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Not with a parent that could be stopped by it.
fn trace(pid: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    match unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn allocate(bytes: usize) -> String {
    let mut memory: Vec<u8> = Vec::new();
    match memory.try_reserve_exact(bytes) {
        Ok(()) => "done".to_owned(),
        Err(_) => "refused".to_owned(),
    }
}

/// Starts threads that wait until all of them run, or one cannot be started.
fn start_threads(count: usize) -> String {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let receiver = std::sync::Arc::new(std::sync::Mutex::new(receiver));
    let mut outcome = "done".to_owned();
    let mut threads = Vec::new();
    for _ in 0..count {
        let receiver = receiver.clone();
        let wait = move || drop(receiver.lock().map(|receiver| receiver.recv()));
        match std::thread::Builder::new().stack_size(64 << 10).spawn(wait) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                outcome = format!("errno {}", error.raw_os_error().unwrap_or_default());
                break;
            }
        }
    }
    drop(sender);
    for thread in threads {
        let _ = thread.join();
    }
    outcome
}

/// The soft limit of this name in `/proc/self/limits`.
fn limit(name: &str) -> String {
    let limits = fs::read_to_string("/proc/self/limits").expect("limits");
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .expect("the limit");
    line.split_whitespace().next().unwrap_or_default().to_owned()
}
