//! Finds the user that runs the component, creates it, and adds it to groups.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};

use super::error::InstallError;
use super::machine::{Host, is_valid_name};
use super::nucleus::{Nucleus, NucleusKind, PosixUsers, read_change_log, read_unit, read_yaml};
use super::report::StepReport;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServiceUser {
    pub name: String,
    pub group: String,
}

/// A `posixUser` and the file that contains it.
struct Configured {
    posix_user: Option<String>,
    file: String,
}

impl ServiceUser {
    /// Finds the user that the nucleus runs the component as.
    ///
    /// On Greengrass Lite its run unit names it, also when a deployment set it; else, as on classic, the configuration does.
    pub(super) fn find(machine: &Host, report: &mut StepReport, nucleus: &Nucleus) -> Self {
        let (default, configured) = match &nucleus.kind {
            NucleusKind::Lite(files) => (
                Self::new("ggcore", "ggcore"),
                configured_in_unit(report, nucleus.run_unit())
                    .unwrap_or_else(|| configured_in_lite(report, files, nucleus.component())),
            ),
            NucleusKind::Classic(config) => (
                Self::new("ggc_user", "ggc_group"),
                configured_in_classic(report, config, nucleus.component()),
            ),
        };
        let Some(posix_user) = configured.posix_user else {
            return default;
        };
        resolve(machine, &posix_user).unwrap_or_else(|| {
            report.warning(format_args!(
                "posixUser '{posix_user}' in {} is not understood; {}:{} is used",
                configured.file, default.name, default.group
            ));
            default
        })
    }

    fn new(name: &str, group: &str) -> Self {
        Self {
            name: name.to_owned(),
            group: group.to_owned(),
        }
    }

    /// The home directory; `None` for a user without one. A user that does not exist yet gets `/home/<name>`.
    pub(super) fn home(&self, machine: &Host) -> Option<PathBuf> {
        let entry = machine.lookup("passwd", &self.name);
        let home = entry
            .and_then(|fields| fields.into_iter().nth(5))
            .filter(|home| !home.is_empty());
        let home = home.unwrap_or_else(|| format!("/home/{}", self.name));
        // Distributions use these values for users without a home directory.
        (!home.starts_with("/nonexistent") && home != "/dev/null").then(|| home.into())
    }

    /// The numbers of user and group; `None` if one of them does not exist.
    pub(super) fn ids(&self, machine: &Host) -> Option<(Uid, Gid)> {
        let number = |database: &str, name: &str| machine.lookup(database, name)?.get(2)?.parse().ok();
        let (uid, gid) = (number("passwd", &self.name)?, number("group", &self.group)?);
        Some((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    fn exists(&self, machine: &Host) -> bool {
        machine.query(machine.command("id").args(["-u", &self.name])).is_some()
    }

    /// Creates group, user and home directory if they are missing. Returns the home directory.
    ///
    /// # Errors
    /// The group or the user cannot be created; the component cannot run without them.
    pub(super) fn create_missing(
        &self,
        machine: &Host,
        report: &mut StepReport,
    ) -> Result<Option<PathBuf>, InstallError> {
        let (name, group) = (&self.name, &self.group);
        if machine.lookup("group", group).is_some() {
            report.skipped(format_args!("group {group}: exists"));
        } else {
            self.add_group(machine).map_err(|reason| {
                InstallError(format!(
                    "group {group} could not be created ({reason}); create it by hand (groupadd --system {group}) and deploy again"
                ))
            })?;
            report.done(format_args!("group {group} created"));
        }
        if self.exists(machine) {
            report.skipped(format_args!("user {name}: exists"));
        } else {
            self.add(machine).map_err(|reason| {
                InstallError(format!(
                    "user {name} could not be created ({reason}); create it by hand (useradd --system --create-home --gid {group} {name}) \
                     and deploy again"
                ))
            })?;
            report.done(format_args!("user {name} created"));
        }
        let home = self.home(machine);
        match &home {
            Some(home) => self.create_home(machine, report, home),
            None => report.skipped(format_args!("home: {name} is meant to have none")),
        }
        Ok(home)
    }

    fn create_home(&self, machine: &Host, report: &mut StepReport, home: &Path) {
        let (directory, home) = (machine.path(home), home.display());
        if directory.is_dir() {
            report.skipped(format_args!("home {home}: exists"));
            return;
        }
        let created = if machine.is_dry_run() {
            Ok(())
        } else {
            std::fs::create_dir_all(&directory).map_err(|e| e.to_string())
        };
        let owner = format!("{}:{}", self.name, self.group);
        match created.and_then(|()| machine.change(machine.command("chown").arg(owner).arg(&directory))) {
            Ok(()) => report.done(format_args!("home {home} created")),
            Err(reason) => report.warning(format_args!(
                "home {home} could not be created ({reason}); GStreamer keeps no plugin cache without it"
            )),
        }
    }

    // Each of these uses the usual tool, or the one of busybox on small images.

    fn add_group(&self, machine: &Host) -> Result<(), String> {
        let mut command = if machine.has("groupadd") {
            let mut command = machine.command("groupadd");
            command.arg("--system");
            command
        } else {
            let mut command = machine.command("addgroup");
            command.arg("-S");
            command
        };
        machine.change(command.arg(&self.group))
    }

    fn add(&self, machine: &Host) -> Result<(), String> {
        let mut command = if machine.has("useradd") {
            let mut command = machine.command("useradd");
            command.args(["--system", "--create-home", "--gid"]);
            command
        } else {
            let mut command = machine.command("adduser");
            command.args(["-S", "-D", "-G"]);
            command
        };
        machine.change(command.args([&self.group, &self.name]))
    }

    fn add_to(&self, machine: &Host, group: &str) -> Result<(), String> {
        if machine.has("usermod") {
            machine.change(machine.command("usermod").args(["-aG", group, &self.name]))
        } else {
            machine.change(machine.command("addgroup").args([&self.name, group]))
        }
    }

    /// Joins the groups of `ei_ggc_user_groups`, and on a Jetson the group of its GPU.
    pub(super) fn join_groups(&self, machine: &Host, report: &mut StepReport, groups: &str) {
        let mut groups: Vec<_> = groups.split_whitespace().collect();
        // JetPack 6 has the group render; older ones do not.
        if machine.board() == "jetson" && !groups.contains(&"render") && machine.lookup("group", "render").is_some() {
            groups.push("render");
        }
        for group in groups {
            self.join(machine, report, group);
        }
    }

    fn join(&self, machine: &Host, report: &mut StepReport, group: &str) {
        let name = &self.name;
        if !is_valid_name(group) {
            report.warning(format_args!(
                "group '{group}' in ei_ggc_user_groups is no group name (a-z, 0-9, _ and -)"
            ));
            return;
        }
        if machine.lookup("group", group).is_none() {
            report.warning(format_args!(
                "group {group} does not exist on this machine, so {name} does not join it"
            ));
            return;
        }
        let memberships = machine
            .query(machine.command("id").args(["-nG", name]))
            .unwrap_or_default();
        if memberships.split_whitespace().any(|membership| membership == group) {
            report.skipped(format_args!("group {group}: {name} is a member"));
            return;
        }
        match self.add_to(machine, group) {
            Ok(()) => report.done(format_args!("{name} joined the group {group}")),
            Err(reason) => report.warning(format_args!("{name} could not join the group {group} ({reason})")),
        }
    }
}

fn configured_in_unit(report: &mut StepReport, unit: Option<PathBuf>) -> Option<Configured> {
    let unit = unit?;
    let user = read_unit(&unit).unwrap_or_else(|error| {
        report.warning(format_args!(
            "{} cannot be read ({error}); a user in it is not used",
            unit.display()
        ));
        None
    });
    Some(Configured {
        posix_user: Some(user?),
        file: unit.display().to_string(),
    })
}

fn configured_in_classic(report: &mut StepReport, config: &Path, component: &str) -> Configured {
    let (log, yaml) = (config.join("config.tlog"), config.join("effectiveConfig.yaml"));
    let (users, file) = match existing(report, &log, read_change_log(&log, component)).chosen() {
        Some(user) => (Some(user), log),
        None => (existing(report, &yaml, read_yaml(&yaml, component)).chosen(), yaml),
    };
    Configured {
        posix_user: users,
        file: file.display().to_string(),
    }
}

/// The files of Greengrass Lite have no user for a single component.
fn configured_in_lite(report: &mut StepReport, files: &[PathBuf], component: &str) -> Configured {
    let users = files
        .iter()
        .filter_map(|file| existing(report, file, read_yaml(file, component)).shared);
    Configured {
        posix_user: users.last(),
        file: "the configuration of Greengrass Lite (/etc/greengrass)".to_owned(),
    }
}

/// A missing file means no `posixUser`; a file that cannot be read causes a warning.
fn existing(report: &mut StepReport, file: &Path, users: io::Result<PosixUsers>) -> PosixUsers {
    users.unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            report.warning(format_args!(
                "{} cannot be read ({error}); a posixUser in it is not used",
                file.display()
            ));
        }
        PosixUsers::default()
    })
}

/// Resolves `user`, `user:group`, or their numbers; `None` if there is no such account.
fn resolve(machine: &Host, posix_user: &str) -> Option<ServiceUser> {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let name_in = |database: &str, text: &str| match is_number(text) {
        true => machine.lookup(database, text)?.into_iter().next(),
        false => Some(text.to_owned()),
    };
    let (user, group) = match posix_user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (posix_user, None),
    };
    let name = name_in("passwd", user)?;
    let group = match group {
        Some(group) => name_in("group", group)?,
        None => machine
            .query(machine.command("id").args(["-gn", &name]))
            .unwrap_or_else(|| name.clone()),
    };
    (is_valid_name(&name) && is_valid_name(&group)).then_some(ServiceUser { name, group })
}
