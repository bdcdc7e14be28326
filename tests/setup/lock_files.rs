//! Lock files that another user left behind.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};

use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, mknodat};

use super::fake_machine::FakeMachine;

const LOCK: &str = "root/tmp/ei_lockfile_runner_cam";

/// A machine with a lock file, and the uid of its owner, who runs the tests. The service user's uid is as given.
fn machine_with_lock_file(service_uid: impl Fn(u32) -> u32) -> (FakeMachine, u32) {
    let machine = FakeMachine::new();
    let uid = machine.write(LOCK, "4711\n").metadata().unwrap().uid();
    machine.append("root/etc/group", "ggc_group:x:900:");
    machine.append(
        "root/etc/passwd",
        &format!("ggc_user:x:{}:900::/home/ggc_user:/bin/sh", service_uid(uid)),
    );
    (machine, uid)
}

#[test]
fn a_lock_file_of_another_user_is_removed_and_links_and_other_files_are_kept() {
    let (machine, uid) = machine_with_lock_file(|_| 4242);
    let directory = machine.path("root/tmp");
    machine.write("root/tmp/ei_lockfile_runner_my cam", "");
    machine.write("root/tmp/other", "");
    let precious = machine.write("precious", "precious");
    symlink(precious, directory.join("ei_lockfile_runner_link")).unwrap();
    fs::create_dir(directory.join("ei_lockfile_runner_directory")).unwrap();
    let pipe = directory.join("ei_lockfile_runner_pipe");
    mknodat(CWD, pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let lock = machine.path(LOCK);
    machine
        .setup(&["--dry-run"])
        .succeeds()
        .prints(&format!("would be done: lock file {}", lock.display()));
    assert!(lock.exists(), "a dry run changes nothing");
    machine.setup(&[]).succeeds().prints(&format!(
        "done: lock file {} of uid {uid} removed: ggc_user could not use it",
        lock.display()
    ));
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut left: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    left.sort();
    assert_eq!(
        left,
        [
            "ei_lockfile_runner_directory",
            "ei_lockfile_runner_link",
            "ei_lockfile_runner_pipe",
            "other"
        ]
    );
    assert_eq!(machine.read("precious"), "precious");
}

#[test]
fn a_lock_file_that_a_process_holds_is_kept() {
    let (machine, uid) = machine_with_lock_file(|_| 4242);
    let lock = machine.path(LOCK);
    let held = File::open(&lock).unwrap();
    flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
    machine
        .setup(&[])
        .succeeds()
        .prints(&format!("skipped: lock file {} of uid {uid}: in use", lock.display()));
    assert_eq!(machine.read(LOCK), "4711\n");
}

#[test]
fn the_service_users_own_lock_file_is_kept() {
    let (machine, _) = machine_with_lock_file(|owner| owner);
    let finished = machine.setup(&[]).succeeds();
    assert_eq!(machine.read(LOCK), "4711\n");
    assert!(!finished.out.contains("lock file"), "{}", finished.out);
}
