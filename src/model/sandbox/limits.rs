//! How much of the machine a model may use.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use rustix::process::geteuid;
use rustix::system::sysinfo;
use sandbox_calls::{Limit, limit_child};

/// Open files. Accelerators open one for each buffer that they share.
const OPEN_FILES: u64 = 4096;
/// Processes and threads beside those that the user has when the model starts. The kernel counts those of the user, not
/// those of the model.
const PROCESSES: u64 = 512;

/// Limits the model that `command` starts.
///
/// Memory is limited by what it can write to and shares with nobody, at three quarters of the machine's memory.
/// A limit of the address space would also count what accelerators map, which often is more than the machine has.
pub(super) fn apply(command: &mut Command) {
    let mut limits = vec![(Limit::Core, 0), (Limit::OpenFiles, OPEN_FILES)];
    let machine = sysinfo();
    let memory = (machine.totalram as u64).saturating_mul(u64::from(machine.mem_unit));
    limits.push((Limit::Data, memory / 4 * 3));
    // The kernel does not limit root, who often has thousands of threads.
    if !geteuid().is_root() {
        limits.push((Limit::Processes, tasks_of(geteuid().as_raw()) + PROCESSES));
    }
    limit_child(command, limits);
}

/// Processes and threads of a user.
fn tasks_of(user: u32) -> u64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .first()
                .is_some_and(u8::is_ascii_digit)
        })
        .filter(|entry| entry.metadata().is_ok_and(|process| process.uid() == user))
        // The directory has a subdirectory for each thread.
        .map(|entry| fs::metadata(entry.path().join("task")).map_or(1, |tasks| tasks.nlink().saturating_sub(2)))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_of_this_process_are_counted() {
        let before = tasks_of(geteuid().as_raw());
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let waiting = std::thread::spawn(move || receiver.recv());
        assert!(before >= 1 && tasks_of(geteuid().as_raw()) >= 2);
        drop(sender);
        waiting.join().unwrap().unwrap_err();
    }
}
