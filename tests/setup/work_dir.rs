//! The work directory and its content belong to the service user after the step.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;

use super::fake_machine::FakeMachine;

const DEVICE: &str = "Cam_a1b2c3d4e5f6";
const EDGE: (u32, u32) = (4001, 4002);
const OLD: u32 = 4242;

/// Greengrass Lite, whose deployment has set the user `edge`. The nucleus has given it the work directory, but not the files of
/// the earlier user in it. `None`: only root can give files away.
fn machine_with_earlier_user() -> Option<FakeMachine> {
    if !geteuid().is_root() {
        return None;
    }
    let machine = FakeMachine::lite("gg", "edge", "staff");
    machine.append("root/etc/passwd", "edge:x:4001:4002::/home/edge:/bin/sh");
    machine.append("root/etc/group", "staff:x:4002:");
    let work_dir = machine.work_dir();
    for file in [
        format!("{DEVICE}/spool.redb"),
        format!("{DEVICE}/s3-pending/1.json"),
        "models/m.eim".to_owned(),
    ] {
        let path = work_dir.join(&file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "content").unwrap();
    }
    for path in tree(&work_dir) {
        chown(&path, Some(OLD), Some(OLD)).unwrap();
    }
    chown(&work_dir, Some(EDGE.0), Some(EDGE.1)).unwrap();
    Some(machine)
}

/// Everything below a directory.
fn tree(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            all.extend(tree(&path));
        }
        all.push(path);
    }
    all
}

fn owner(path: &Path) -> (u32, u32) {
    let found = path.symlink_metadata().unwrap();
    (found.uid(), found.gid())
}

#[test]
fn the_files_of_an_earlier_user_are_given_to_the_user_of_the_run_unit() {
    let Some(machine) = machine_with_earlier_user() else {
        return;
    };
    let work_dir = machine.work_dir();
    machine
        .setup(&["--dry-run"])
        .succeeds()
        .prints("would be done: work directory ");
    assert_eq!(owner(&work_dir.join(DEVICE)), (OLD, OLD));
    machine
        .setup(&[])
        .succeeds()
        .prints("given to edge:staff (6 files and directories)");
    for path in tree(&work_dir) {
        assert_eq!(owner(&path), EDGE, "{}", path.display());
    }
    machine
        .setup(&[])
        .succeeds()
        .prints(": belongs to edge:staff")
        .prints("finished, 0 done");
}

#[test]
fn nothing_outside_the_work_directory_is_given_away() {
    let Some(machine) = machine_with_earlier_user() else {
        return;
    };
    let (work_dir, secret) = (machine.work_dir(), machine.write("secret/shadow", "root only"));
    symlink(&secret, work_dir.join("link-to-file")).unwrap();
    symlink(secret.parent().unwrap(), work_dir.join("link-to-directory")).unwrap();
    fs::hard_link(&secret, work_dir.join(DEVICE).join("hard-link")).unwrap();
    machine
        .setup(&[])
        .succeeds()
        .warns("1 entries are not given to edge:staff: Cam_a1b2c3d4e5f6/hard-link has a second name");
    assert_eq!(owner(&secret).0, 0);
    assert_eq!(owner(secret.parent().unwrap()).0, 0);
    assert_eq!(owner(&work_dir.join("link-to-file")), EDGE, "the link itself");
}

#[test]
fn a_run_of_the_earlier_user_is_stopped_first_so_that_it_writes_its_messages() {
    let Some(machine) = machine_with_earlier_user() else {
        return;
    };
    machine.fake("systemctl", "");
    machine.setup(&[]).succeeds();
    machine.not_called(&["systemctl stop"]);

    let device = machine.work_dir().join(DEVICE);
    chown(&device, Some(OLD), Some(OLD)).unwrap();
    let running = File::open(&device).unwrap();
    flock(&running, FlockOperation::NonBlockingLockExclusive).unwrap();
    machine
        .setup(&[])
        .succeeds()
        .prints("done: ggl.EdgeImpulseLinuxRunnerServiceComponent.service of the earlier user stopped");
    machine.called("systemctl stop ggl.EdgeImpulseLinuxRunnerServiceComponent.service\n");
    // A run of the same user goes on.
    machine.setup(&[]).succeeds();
    machine.not_called(&["systemctl stop"]);
}

#[test]
fn a_configured_work_dir_is_given_without_what_is_not_of_the_component() {
    let Some(mut machine) = machine_with_earlier_user() else {
        return;
    };
    let data = machine.path("root/data");
    for file in [&*format!("{DEVICE}/identity"), "models/m.eim", "photos/mine.jpg"] {
        machine.write(&format!("root/data/{file}"), "");
    }
    machine.write("root/data/only/models/m.eim", "");
    machine.configure("work_dir", "/data");
    machine
        .setup(&[])
        .succeeds()
        .prints("work directory /data given to edge:staff (4 files");
    for (path, is_given) in [
        ("", false),
        ("photos", false),
        ("photos/mine.jpg", false),
        ("models/m.eim", true),
        (DEVICE, true),
        (&format!("{DEVICE}/identity"), true),
    ] {
        assert_eq!(owner(&data.join(path)) == EDGE, is_given, "{path}");
    }
    machine.configure("work_dir", "/data/only");
    machine.setup(&[]).succeeds();
    assert_ne!(owner(&data.join("only/models")), EDGE, "models alone is a common name");
}

#[test]
fn a_configured_work_dir_behind_a_link_is_left_alone_with_a_warning() {
    let Some(mut machine) = machine_with_earlier_user() else {
        return;
    };
    let identity = machine.write(&format!("root/private/{DEVICE}/identity"), "");
    symlink(machine.path("root/private"), machine.path("root/data")).unwrap();
    machine.configure("work_dir", "/data");
    machine
        .setup(&[])
        .succeeds()
        .warns("work_dir /data: data is a link or no directory")
        .warns("chown -R edge:staff /data");
    assert_eq!(owner(&identity).0, 0);
}

#[test]
fn the_directory_of_classic_is_left_alone_if_it_belongs_to_a_user_that_was_not_recognised() {
    if !geteuid().is_root() {
        return;
    }
    let machine = FakeMachine::classic("gg");
    let work_dir = machine.work_dir();
    fs::create_dir_all(work_dir.join(DEVICE)).unwrap();
    machine.append("root/etc/passwd", "ggc_user:x:4001:4002::/home/ggc_user:/bin/sh");
    machine.append("root/etc/group", "ggc_group:x:4002:");
    chown(&work_dir, Some(OLD), Some(OLD)).unwrap();
    machine
        .setup(&[])
        .succeeds()
        .warns("belongs to uid 4242 and not to ggc_user:ggc_group; it is left alone");
    assert_eq!(owner(&work_dir), (OLD, OLD));
    // Classic gives it to its user.
    chown(&work_dir, Some(EDGE.0), Some(EDGE.1)).unwrap();
    machine
        .setup(&[])
        .succeeds()
        .prints("given to ggc_user:ggc_group (1 files and directories)");
    assert_eq!(owner(&work_dir.join(DEVICE)), EDGE);
}
