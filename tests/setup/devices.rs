//! Device nodes of Renesas boards.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::fake_machine::FakeMachine;

const RULES: &str = "root/etc/udev/rules.d/99-ei-greengrass.rules";
const RULE: &str = "KERNEL==\"drpai0\", GROUP=\"ggc_group\", MODE=\"0660\"\n";

fn renesas() -> FakeMachine {
    let machine = FakeMachine::new();
    fs::create_dir_all(machine.path("root/etc/udev/rules.d")).unwrap();
    for (name, mode) in [("drpai0", 0o600), ("udmabuf0", 0o666)] {
        let device = machine.write(&format!("root/dev/{name}"), "");
        fs::set_permissions(device, Permissions::from_mode(mode)).unwrap();
    }
    machine
}

#[test]
fn renesas_devices_are_opened_to_the_group_now_and_after_a_restart() {
    let machine = renesas();
    machine
        .setup(&["--dry-run"])
        .succeeds()
        .prints("would be done: /dev/drpai0 opened to ggc_group");
    let device = machine.path("root/dev/drpai0");
    let mode = || device.metadata().unwrap().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    machine
        .setup(&[])
        .succeeds()
        .prints("done: /dev/drpai0 opened to ggc_group")
        .prints("skipped: /dev/udmabuf0: open to everybody");
    machine.called(&format!("chgrp ggc_group {}\n", device.display()));
    assert_eq!(mode(), 0o660);
    assert_eq!(machine.read(RULES), RULE);
    machine
        .setup(&[])
        .succeeds()
        .prints("99-ei-greengrass.rules: up to date");
}

#[test]
fn a_device_that_is_open_to_the_group_is_not_changed() {
    let machine = renesas();
    let device = machine.path("root/dev/drpai0");
    fs::set_permissions(&device, Permissions::from_mode(0o660)).unwrap();
    let gid = device.metadata().unwrap().gid();
    machine.append("root/etc/group", &format!("ggc_group:x:{gid}:"));
    machine
        .setup(&[])
        .succeeds()
        .prints("skipped: /dev/drpai0: open to ggc_group");
    machine.not_called(&["chgrp "]);
    assert_eq!(machine.read(RULES), RULE, "another kernel may not open it");
}
