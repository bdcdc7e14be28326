//! The service that does what the install step leaves to it: packages that took too long, and the build of `kvssink`.
//!
//! Greengrass Lite fails a deployment whose install step takes 300 s. `install.sh --start-service` starts the service, which
//! runs `install.sh --finish`.

use std::path::Path;

use super::machine::Host;
use super::report::StepReport;

/// The unit; `artifacts/install.sh` has the same name.
const SERVICE: &str = "ei-greengrass-install";
/// Time limit for its start, in seconds.
const START_LIMIT: u64 = 30;

/// What the step leaves to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unfinished {
    pub packages: bool,
    pub kvssink: bool,
}

/// Starts the service if anything is unfinished.
pub(super) fn start(machine: &Host, report: &mut StepReport, binary: &Path, unfinished: Unfinished) {
    let work = match unfinished {
        Unfinished {
            packages: false,
            kvssink: false,
        } => return,
        Unfinished {
            packages: true,
            kvssink: false,
        } => "installs the packages that are missing",
        Unfinished {
            packages: false,
            kvssink: true,
        } => "builds kvssink",
        Unfinished {
            packages: true,
            kvssink: true,
        } => "installs the packages that are missing and builds kvssink",
    };
    let active = machine.query(machine.command("systemctl").args(["is-active", "--quiet", SERVICE]));
    if active.is_some() {
        report.skipped(format_args!(
            "service {SERVICE}: at work (journalctl -u {SERVICE}); the component uses what is new after its next start"
        ));
        return;
    }
    let mut command = machine.command("sh");
    command.arg(binary.with_file_name("install.sh")).arg("--start-service");
    if unfinished.kvssink {
        command.arg("--kvssink");
    }
    match machine.change_within(START_LIMIT, &mut command, report) {
        Ok(()) => report.done(format_args!(
            "service {SERVICE} started: it {work} (journalctl -u {SERVICE}); the component uses what is new after its next start"
        )),
        Err(reason) if unfinished.kvssink => report.warning(format_args!(
            "kvssink is not built ({reason}); build it by hand, as root: {} setup --kvssink",
            binary.display()
        )),
        Err(reason) => report.warning(format_args!(
            "packages are missing ({reason}); deploy again, or install them by hand"
        )),
    }
}
