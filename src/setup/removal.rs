//! Two systemd units that remove the link in `ei_bindir`, the man page and the completions after Greengrass has removed the component.
//!
//! Neither nucleus has a step for a removal that runs as root: Greengrass Lite has no step at all. Both delete the binary, so a
//! path unit watches it. The units remove themselves too.

use std::fs;
use std::path::Path;

use super::machine::Host;
use super::nucleus::is_artifact;
use super::report::StepReport;
use super::shell_files::{self, SHELL_FILE_MARK, ShellFile};

const UNITS: &str = "/etc/systemd/system";
const PATH_UNIT: &str = "ei-greengrass-removal.path";
const SERVICE_UNIT: &str = "ei-greengrass-removal.service";
/// Time limit of each `systemctl`, in seconds.
const LIMIT: u64 = 30;
/// Arguments: the link, the binary, the names of the man page and the completions in one word, their directory, their mark, and
/// the directory of the units. Another link with the same name is kept, and then the man page and the completions too.
const SCRIPT: &str = "if [ \"$(readlink \"$1\")\" = \"$2\" ]; then rm -f \"$1\"; \
     for name in $3; do if grep -qsF \"$5\" \"$4/$name\"; then rm -f \"$4/$name\"; fi; done; fi; \
     systemctl disable ei-greengrass-removal.path; \
     rm -f \"$6/ei-greengrass-removal.path\" \"$6/ei-greengrass-removal.service\"; \
     systemctl daemon-reload; systemctl --no-block stop ei-greengrass-removal.path";

/// Writes and starts the units for a link to an artifact of the component.
pub(super) fn prepare(machine: &Host, report: &mut StepReport, link: &Path, binary: &Path, shell_files: &[ShellFile]) {
    if !is_artifact(binary) || !machine.path("/run/systemd/system").is_dir() || !machine.has("systemctl") {
        return;
    }
    let shell_directory = machine.path(shell_files::DIRECTORY);
    let texts = (unit_text(link), unit_text(binary), unit_text(&shell_directory));
    let (Some(link_text), Some(binary_text), Some(shell_directory)) = texts else {
        return;
    };
    let names: Vec<_> = shell_files.iter().map(|file| file.path).collect();
    let path_unit = format!(
        "# Written by the install step of ei-greengrass.\n\
         [Unit]\nDescription=Notices the removal of the Edge Impulse component\nRequiresMountsFor={quoted}\n\
         [Path]\nPathChanged={binary_text}\n\
         [Install]\nWantedBy=multi-user.target\n",
        quoted = quoted(&binary_text),
    );
    let arguments = [
        SCRIPT.to_owned(),
        "ei-greengrass".to_owned(),
        link_text,
        binary_text.clone(),
        names.join(" "),
        shell_directory,
        SHELL_FILE_MARK.to_owned(),
        UNITS.to_owned(),
    ];
    let arguments: Vec<_> = arguments
        .iter()
        .map(|argument| quoted(argument).replace('$', "$$"))
        .collect();
    let service_unit = format!(
        "# Written by the install step of ei-greengrass.\n\
         [Unit]\nDescription=Removes the link of the Edge Impulse component, which was removed\n\
         ConditionPathExists=!{binary_text}\n\
         [Service]\nType=oneshot\nExecStart=/bin/sh -c {}\n",
        arguments.join(" ")
    );
    let is_written = |unit: &str, text: &str| machine.text(&format!("{UNITS}/{unit}")) == text;
    let active = || machine.query(machine.command("systemctl").args(["is-active", "--quiet", PATH_UNIT]));
    if is_written(PATH_UNIT, &path_unit) && is_written(SERVICE_UNIT, &service_unit) && active().is_some() {
        report.skipped(format_args!("{UNITS}/{PATH_UNIT}: up to date"));
        return;
    }
    let written = write(machine, &[(PATH_UNIT, &path_unit), (SERVICE_UNIT, &service_unit)]);
    let mut systemctl =
        |arguments: &[&str]| machine.change_within(LIMIT, machine.command("systemctl").args(arguments), report);
    let started = written
        .and_then(|()| systemctl(&["daemon-reload"]))
        .and_then(|()| systemctl(&["enable", PATH_UNIT]))
        .and_then(|()| systemctl(&["restart", PATH_UNIT]));
    match started {
        Ok(()) => report.done(format_args!(
            "{UNITS}/{PATH_UNIT} started: it removes {} when Greengrass removes the component",
            link.display()
        )),
        Err(reason) => report.warning(format_args!(
            "{PATH_UNIT} could not be started ({reason}); {} stays when Greengrass removes the component",
            link.display()
        )),
    }
}

fn write(machine: &Host, units: &[(&str, &str)]) -> Result<(), String> {
    if machine.is_dry_run() {
        return Ok(());
    }
    let directory = machine.path(UNITS);
    fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    for (name, text) in units {
        fs::write(directory.join(name), text).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A path as a unit file takes it. `None` for one that cannot stand in a line.
fn unit_text(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    (!text.contains(char::is_control)).then(|| text.replace('%', "%%"))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
