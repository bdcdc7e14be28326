//! The install step after the packages: creates what the component needs on the machine, and does not change what already
//! exists. `artifacts/install.sh` installs packages and then runs this as `ei-greengrass setup`.
//!
//! System tools (`useradd`, `usermod`, `loginctl`, `cmake`) make the changes, because each distribution configures them.

mod background;
mod devices;
mod error;
mod image;
pub mod kvssink;
mod linger;
mod link;
mod lock_files;
mod machine;
mod nucleus;
mod removal;
mod report;
mod service_user;
mod shell_files;
mod work_dir;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Loaded, Sources, get, load};
use background::Unfinished;
pub use error::InstallError;
use kvssink::KvssinkPlan;
use machine::Host;
pub use machine::PackageManager;
use nucleus::Nucleus;
pub use nucleus::StartedFrom;
pub use report::Counts;
use report::StepReport;
use service_user::ServiceUser;
pub use shell_files::{SHELL_FILE_MARK, ShellFile};

/// Options of the step.
pub struct Options {
    /// Print what would be done, and change nothing.
    pub dry_run: bool,
    /// Directory before every absolute path except that of the binary; `None`: `/`.
    pub root: Option<PathBuf>,
    /// Where the step was started from.
    pub started_from: StartedFrom,
    /// The configuration, or why it cannot be read.
    pub configuration: Result<Loaded, String>,
    /// `None`: unknown, because the step was not started by `install.sh`.
    pub package_manager: Option<PackageManager>,
    /// The counts of `install.sh`, which are continued.
    pub counts: Counts,
    /// Time limit of all commands that can hang, together.
    pub time_limit: Duration,
    /// Whether `install.sh` could not install all packages in its time.
    pub lacks_packages: bool,
    /// The man page and the completions of shells.
    pub shell_files: Vec<ShellFile>,
}

impl Options {
    fn machine(&self) -> Host {
        Host::new(self.root.clone(), self.package_manager, self.dry_run, self.time_limit)
    }

    /// The key `work_dir`, if it is set.
    fn configured_work_dir(&self) -> Option<&Path> {
        let work_dir = &self.configuration.as_ref().ok()?.config.work_dir;
        (Some(work_dir.as_path()) != self.started_from.current_dir.as_deref()).then_some(work_dir)
    }

    fn report(&self) -> StepReport {
        StepReport::new(self.dry_run, self.counts)
    }
}

/// Runs the step. Prints one line for each change, each skipped item and each warning, then the counts.
///
/// # Errors
/// The step does not run as root, or the service user cannot be created.
pub fn run(options: &Options) -> Result<(), InstallError> {
    let (machine, mut report) = (options.machine(), options.report());
    require_root(options, &machine)?;
    let binary = &options.started_from.binary;
    let nucleus = Nucleus::find(&machine, &options.started_from);
    let user = ServiceUser::find(&machine, &mut report, &nucleus);
    report.headline(format_args!(
        "board {}, service user {}:{}",
        machine.board(),
        user.name,
        user.group
    ));
    image::check(&machine, &mut report);
    let home = user.create_missing(&machine, &mut report)?;
    work_dir::give(&machine, &mut report, &nucleus, &user, options.configured_work_dir());
    lock_files::remove_unusable(&machine, &mut report, &user.name);
    let groups = setting(&mut report, &options.configuration, "ei_ggc_user_groups");
    user.join_groups(&machine, &mut report, &groups);
    devices::open(&machine, &mut report, &user.group);
    let bin_dir = setting(&mut report, &options.configuration, "ei_bindir");
    if let Some(link) = link::create(&machine, &mut report, &bin_dir, binary) {
        shell_files::write(&machine, &mut report, &options.shell_files);
        removal::prepare(&machine, &mut report, &link, binary, &options.shell_files);
    }
    linger::enable(&machine, &mut report, &user.name);
    let is_wanted = setting(&mut report, &options.configuration, "install_kvssink") == "yes";
    let builds_kvssink = match kvssink::plan(&machine, is_wanted, &user, home.as_deref()) {
        KvssinkPlan::NotWanted => {
            report.skipped("kvssink: install_kvssink is not yes");
            false
        }
        KvssinkPlan::IsBuilt => {
            report.skipped("kvssink: built");
            false
        }
        KvssinkPlan::Refuse(why) => {
            report.warning(why);
            false
        }
        KvssinkPlan::Build(_) => true,
    };
    let unfinished = Unfinished {
        packages: options.lacks_packages,
        kvssink: builds_kvssink,
    };
    background::start(&machine, &mut report, binary, unfinished);
    report.finish();
    Ok(())
}

/// Builds `kvssink`, whatever `install_kvssink` is.
///
/// # Errors
/// The program does not run as root, the service user cannot be created, or `kvssink` cannot be built.
pub fn build_kvssink(options: &Options) -> Result<(), InstallError> {
    let (machine, mut report) = (options.machine(), options.report());
    require_root(options, &machine)?;
    let nucleus = Nucleus::find(&machine, &options.started_from);
    let user = ServiceUser::find(&machine, &mut report, &nucleus);
    let home = user.create_missing(&machine, &mut report)?;
    let plan = kvssink::plan(&machine, true, &user, home.as_deref());
    kvssink::execute(plan, &machine, &mut report, &user.name)?;
    report.finish();
    Ok(())
}

fn require_root(options: &Options, machine: &Host) -> Result<(), InstallError> {
    // The tool, not a system call, so that tests can replace it.
    let uid = machine.query(machine.command("id").arg("-u"));
    if options.dry_run || uid.as_deref() == Some("0") {
        return Ok(());
    }
    Err(InstallError(
        "must run as root: the recipe's install step needs RequiresPrivilege: true (--dry-run works as any user)"
            .to_owned(),
    ))
}

/// The effective value of a key as text. If the configuration cannot be read: a warning, and the default of the key.
fn setting(report: &mut StepReport, configuration: &Result<Loaded, String>, key: &str) -> String {
    match configuration {
        Ok(loaded) => get(loaded, key).unwrap_or_default(),
        Err(error) => {
            let default = load(&Sources::default()).ok().and_then(|defaults| get(&defaults, key));
            let default = default.unwrap_or_default();
            report.warning(format_args!(
                "the configuration could not be read ({error}); {key} is taken as '{default}'"
            ));
            default
        }
    }
}
