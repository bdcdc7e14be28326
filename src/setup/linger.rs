//! Enables a lingering session: on Ubuntu PipeWire owns cameras and microphones, and it runs only for users with a session.

use std::path::Path;

use super::machine::Host;
use super::report::StepReport;

/// Time limit of `loginctl`, in seconds.
const LIMIT: u64 = 60;

pub(super) fn enable(machine: &Host, report: &mut StepReport, user: &str) {
    if !machine.is_distribution("ubuntu") || !machine.has("pipewire") {
        return;
    }
    if !machine.has("loginctl") {
        report.warning(format_args!(
            "loginctl is missing, so {user} gets no lingering session; pipewire devices may be out of reach"
        ));
        return;
    }
    if machine.path(Path::new("/var/lib/systemd/linger").join(user)).exists() {
        report.skipped(format_args!("lingering session of {user}: enabled"));
        return;
    }
    match machine.change_within(LIMIT, machine.command("loginctl").args(["enable-linger", user]), report) {
        Ok(()) => report.done(format_args!("lingering session of {user} enabled, for pipewire")),
        Err(reason) => report.warning(format_args!(
            "loginctl enable-linger {user} failed ({reason}); pipewire devices may be out of reach"
        )),
    }
}
