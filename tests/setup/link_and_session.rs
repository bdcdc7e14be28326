//! The link in `ei_bindir`, and the lingering session on Ubuntu.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::fake_machine::FakeMachine;

const LINK: &str = "root/usr/local/bin/ei-greengrass";

#[test]
fn the_binary_is_linked_and_an_old_link_of_the_component_is_replaced() {
    let machine = FakeMachine::new();
    machine.setup(&[]).succeeds();
    let link = machine.path(LINK);
    assert_eq!(fs::read_link(&link).unwrap(), machine.binary());
    fs::remove_file(&link).unwrap();
    let old = "/greengrass/v2/packages/artifacts/EdgeImpulseLinuxRunnerServiceComponent/1.9.0/ei-greengrass";
    symlink(old, &link).unwrap();
    machine.setup(&[]).succeeds();
    assert_eq!(fs::read_link(&link).unwrap(), machine.binary());
    let names = fs::read_dir(link.parent().unwrap()).unwrap().count();
    assert_eq!(names, 1, "nothing temporary is left");
}

#[test]
fn a_foreign_file_or_link_in_place_of_the_link_is_left_alone() {
    let machine = FakeMachine::new();
    let link = machine.write(LINK, "mine");
    machine.setup(&[]).succeeds().warns("left alone");
    assert_eq!(machine.read(LINK), "mine");
    fs::remove_file(&link).unwrap();
    symlink("/opt/other", &link).unwrap();
    machine.setup(&[]).succeeds().warns("left alone");
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("/opt/other"));
}

#[test]
fn white_space_in_the_root_of_greengrass_and_in_ei_bindir_is_kept() {
    let mut machine = FakeMachine::classic("my green grass");
    machine.write(
        "my green grass/config/effectiveConfig.yaml",
        "runWithDefault:\n  posixUser: \"edge:staff\"\n",
    );
    machine.configure("ei_bindir", "/opt/my tools");
    machine.setup(&[]).succeeds().prints("service user edge:staff");
    let link = machine.path("root/opt/my tools/ei-greengrass");
    assert_eq!(fs::read_link(link).unwrap(), machine.binary());
}

#[test]
fn the_user_lingers_on_ubuntu_with_pipewire() {
    let machine = FakeMachine::new();
    machine.write("root/etc/os-release", "NAME=x\nID=\"ubuntu\"\nID_LIKE=debian\n");
    machine.fake("pipewire", "");
    machine.fake(
        "loginctl",
        r#"mkdir -p "$machine/root/var/lib/systemd/linger" && touch "$machine/root/var/lib/systemd/linger/$2""#,
    );
    machine.setup(&[]).succeeds();
    machine.called("timeout -k 30 60 loginctl enable-linger ggc_user\n");
    machine.setup(&[]).succeeds();
    machine.not_called(&["loginctl "]);
}

#[test]
fn ubuntu_with_pipewire_but_without_loginctl_is_a_warning() {
    let machine = FakeMachine::new();
    machine.write("root/etc/os-release", "ID=ubuntu\nID_LIKE=debian\n");
    machine.fake("pipewire", "");
    machine.setup(&[]).succeeds().warns("loginctl is missing");
}
