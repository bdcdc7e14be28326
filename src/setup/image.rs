//! Checks an image without a package manager for what the component needs.

use std::process::Stdio;

use super::machine::{Host, PackageManager};
use super::report::StepReport;

/// Elements that every pipeline needs, each with its package.
const ELEMENTS: [(&str, &str); 6] = [
    ("videoconvert", "plugins-base"),
    ("decodebin", "plugins-base"),
    ("appsink", "plugins-base"),
    ("alsasrc", "plugins-base"),
    ("v4l2src", "plugins-good"),
    ("jpegdec", "plugins-good"),
];

pub(super) fn check(machine: &Host, report: &mut StepReport) {
    let manager = machine.package_manager();
    if manager == Some(PackageManager::None) {
        check_elements(machine, report);
    }
    // With apt, `install.sh` installs the package ca-certificates.
    let certificates = ["/etc/ssl/certs", "/etc/pki/tls/certs"];
    if manager != Some(PackageManager::Apt) && !certificates.iter().any(|path| machine.path(path).exists()) {
        report.warning("no CA certificates in /etc/ssl/certs: connections to AWS will be refused; add ca-certificates");
    }
}

/// Uses the tool and not this process, because a broken plugin crashes the process that loads it.
fn check_elements(machine: &Host, report: &mut StepReport) {
    if !machine.has("gst-inspect-1.0") {
        report.warning("gst-inspect-1.0 is not on this image, so its GStreamer elements cannot be checked");
        return;
    }
    let exists = |element: &str| {
        let mut command = machine.command("gst-inspect-1.0");
        command.args(["--exists", element]).stdout(Stdio::null());
        machine.query(&mut command).is_some()
    };
    let missing: String = ELEMENTS
        .iter()
        .filter(|(element, _)| !exists(element))
        .map(|(element, package)| format!(" {element} (gstreamer1.0-{package})"))
        .collect();
    if missing.is_empty() {
        report.skipped("packages: no package manager here; the GStreamer elements needed are in the image");
    } else {
        report.warning(format_args!(
            "the image lacks GStreamer elements:{missing}; add these packages to the image"
        ));
    }
}
