//! The step as a whole: `setup` alone, and `install.sh` with the real binary.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use super::fake_machine::FakeMachine;
use super::kvssink::{add_systemd, machine_with_kvssink};

const CHANGES: &[&str] = &[
    "apt-get ",
    "groupadd ",
    "useradd ",
    "usermod ",
    "chown ",
    "timeout ",
    "git ",
    "cmake ",
];

/// Type, mode, owner, size and time of everything below a directory.
fn listing(directory: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let facts = (metadata.mode(), metadata.uid(), metadata.size(), metadata.mtime_nsec());
        all.push(format!("{} {facts:?}", path.display()));
        if metadata.is_dir() {
            all.extend(listing(&path));
        }
    }
    all.sort();
    all
}

/// apt-get and dpkg-query that keep the installed packages in a file.
fn add_apt(machine: &FakeMachine) {
    machine.fake("sleep", "");
    machine.fake(
        "dpkg-query",
        r#"grep -qx -e "$3" "$machine/installed" && echo installed"#,
    );
    machine.fake(
        "apt-get",
        r#"case " $* " in
        *" install "*)
            while [ "$1" != install ]; do shift; done
            shift
            for name in "$@"; do echo "$name" >>"$machine/installed"; done ;;
        esac"#,
    );
}

#[test]
fn a_second_run_changes_nothing() {
    let machine = FakeMachine::new();
    machine.setup(&[]).succeeds();
    machine
        .setup(&[])
        .succeeds()
        .prints("finished, 0 done")
        .prints("0 warnings");
    machine.not_called(CHANGES);
}

#[test]
fn a_dry_run_prints_what_would_be_done_and_changes_nothing() {
    let machine = machine_with_kvssink();
    let root = machine.path("root");
    let before = listing(&root);
    machine
        .setup(&["--dry-run"])
        .succeeds()
        .prints("would be done: user ggc_user created")
        .prints("would be done: service ei-greengrass-install started: it builds kvssink")
        .prints("would be done: /usr/local/bin/ei-greengrass links to ");
    assert_eq!(listing(&root), before);
    machine.not_called(CHANGES);
}

#[test]
fn a_tool_that_hangs_does_not_stop_the_step() {
    let machine = FakeMachine::new();
    machine.write("root/etc/nv_tegra_release", "");
    machine.append("root/etc/group", "render:x:105:");
    machine.fake("usermod", r#"case "$2" in render) exec sleep 600 ;; esac"#);
    symlink("/bin/sleep", machine.path("bin/sleep")).unwrap();
    machine
        .setup(&["--time-limit", "0"])
        .succeeds()
        .warns("ggc_user could not join the group render (it did not end within 5 s)");
}

#[test]
fn without_root_the_step_ends_with_the_reason() {
    let machine = FakeMachine::new();
    machine.fake("id", "echo 1000");
    machine
        .setup(&[])
        .fails()
        .warns("error: must run as root")
        .warns("RequiresPrivilege");
}

#[test]
fn an_image_without_package_manager_is_checked_for_gstreamer_elements() {
    let mut machine = FakeMachine::new();
    machine.set_package_manager("none");
    machine
        .setup(&[])
        .succeeds()
        .warns("gst-inspect-1.0 is not on this image");
    machine.fake("gst-inspect-1.0", r#"[ "$2" != v4l2src ]"#);
    machine
        .setup(&[])
        .succeeds()
        .warns("the image lacks GStreamer elements: v4l2src (gstreamer1.0-plugins-good); add");
    machine.fake("gst-inspect-1.0", "");
    fs::remove_dir(machine.path("root/etc/ssl/certs")).unwrap();
    machine
        .setup(&[])
        .succeeds()
        .prints("the GStreamer elements needed are in the image")
        .warns("no CA certificates in /etc/ssl/certs");
}

#[test]
fn the_install_script_installs_packages_and_then_sets_the_machine_up() {
    let machine = machine_with_kvssink();
    add_apt(&machine);
    add_systemd(&machine);
    // The service runs at once, and ends before the step.
    machine.fake("systemd-run", r#"while [ "$1" != /bin/sh ]; do shift; done; exec "$@""#);
    let finished = machine.install(&[]).succeeds();
    for line in [
        "install: package manager apt",
        "done: packages for GStreamer: ",
        "skipped: the binary: ei-greengrass ",
        "install: board other, service user ggc_user:ggc_group",
        "done: user ggc_user created",
        "done: service ei-greengrass-install started: it builds kvssink ",
    ] {
        assert!(finished.out.contains(line), "{line:?} is not in\n{}", finished.out);
    }
    let count = |start: &str| finished.out.lines().filter(|line| line.starts_with(start)).count();
    let counts = format!(
        "finished, {} done, {} skipped, 0 warnings",
        count("done: "),
        count("skipped: ")
    );
    assert!(finished.out.contains(&counts), "{counts:?} is not in\n{}", finished.out);
    let installed = machine.read("installed");
    assert!(
        installed.contains("liblog4cplus-dev") && installed.contains("gstreamer1.0-libav"),
        "{installed}"
    );

    machine
        .install(&[])
        .succeeds()
        .prints("skipped: kvssink: built")
        .prints("finished, 0 done")
        .prints("0 warnings");
    machine.not_called(CHANGES);
    assert_eq!(fs::read_dir(machine.path("temporary")).unwrap().count(), 0);
}

#[test]
fn a_dry_run_of_the_install_script_changes_nothing() {
    let machine = machine_with_kvssink();
    add_apt(&machine);
    let root = machine.path("root");
    let before = listing(&root);
    machine
        .install(&["--dry-run"])
        .succeeds()
        .prints("would be done: packages for GStreamer")
        .prints("would be done: user ggc_user created")
        .prints("would be done: service ei-greengrass-install started: it builds kvssink");
    assert_eq!(listing(&root), before);
    machine.not_called(CHANGES);
}
