//! Access to the DRP-AI and video devices of Renesas boards. By default only root can use them.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::machine::Host;
use super::report::StepReport;

const DEVICES: [&str; 6] = ["drpai0", "rgnmm", "rgnmmbuf", "uvcs", "vspm_if", "udmabuf0"];
const RULES: &str = "/etc/udev/rules.d/99-ei-greengrass.rules";
/// Read and write.
const READ_WRITE: u32 = 0o6;

/// Gives the group access now, and with a udev rule after the next restart.
pub(super) fn open(machine: &Host, report: &mut StepReport, group: &str) {
    let gid = machine
        .lookup("group", group)
        .and_then(|fields| fields.get(2)?.parse().ok());
    let mut rules = String::new();
    for device in DEVICES {
        let node = machine.path("/dev").join(device);
        let Ok(metadata) = fs::metadata(&node) else { continue };
        let mode = metadata.mode();
        if mode & READ_WRITE == READ_WRITE {
            report.skipped(format_args!("/dev/{device}: open to everybody"));
            continue;
        }
        if (mode >> 3) & READ_WRITE == READ_WRITE && gid == Some(metadata.gid()) {
            report.skipped(format_args!("/dev/{device}: open to {group}"));
        } else {
            match open_to(machine, group, &node) {
                Ok(()) => report.done(format_args!("/dev/{device} opened to {group}")),
                Err(reason) => report.warning(format_args!(
                    "/dev/{device} could not be opened to {group} ({reason}); the DRP-AI model may not start"
                )),
            }
        }
        let _ = writeln!(rules, r#"KERNEL=="{device}", GROUP="{group}", MODE="0660""#);
    }
    let file = machine.path(RULES);
    if rules.is_empty() || !file.parent().is_some_and(Path::is_dir) {
        return;
    }
    if machine.text(RULES) == rules {
        report.skipped(format_args!("{RULES}: up to date"));
    } else if machine.is_dry_run() || fs::write(&file, rules).is_ok() {
        report.done(format_args!("{RULES} written"));
    } else {
        report.warning(format_args!(
            "{RULES} could not be written; the devices are closed again after the next restart"
        ));
    }
}

fn open_to(machine: &Host, group: &str, node: &Path) -> Result<(), String> {
    machine.change(machine.command("chgrp").arg(group).arg(node))?;
    if machine.is_dry_run() {
        return Ok(());
    }
    fs::set_permissions(node, Permissions::from_mode(0o660)).map_err(|e| e.to_string())
}
