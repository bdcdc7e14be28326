//! The install step after the packages: creates what the component needs on the machine, and does not change what already
//! exists. `artifacts/install.sh` installs packages and then runs this as `ei-greengrass setup`.
//!
//! System tools (`useradd`, `usermod`, `loginctl`, `cmake`) make the changes, because each distribution configures them.

mod devices;
mod error;
mod image;
pub mod kvssink;
mod linger;
mod link;
mod lock_files;
mod machine;
mod nucleus;
mod report;
mod service_user;

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Loaded, Sources, get, load};
pub use error::InstallError;
use kvssink::KvssinkPlan;
use machine::Host;
pub use machine::PackageManager;
pub use report::Counts;
use report::StepReport;
use service_user::ServiceUser;

/// Options of the step.
pub struct Options {
    /// Print what would be done, and change nothing.
    pub dry_run: bool,
    /// Directory before every absolute path except that of the binary; `None`: `/`.
    pub root: Option<PathBuf>,
    /// The program in the component's artifacts.
    pub binary: PathBuf,
    /// The configuration, or why it cannot be read.
    pub configuration: Result<Loaded, String>,
    /// `None`: unknown, because the step was not started by `install.sh`.
    pub package_manager: Option<PackageManager>,
    /// The counts of `install.sh`, which are continued.
    pub counts: Counts,
    /// Time limit of all commands that can hang, together.
    pub time_limit: Duration,
}

impl Options {
    fn machine(&self) -> Host {
        Host::new(self.root.clone(), self.package_manager, self.dry_run, self.time_limit)
    }

    fn report(&self) -> StepReport {
        StepReport::new(self.dry_run, self.counts)
    }
}

/// Whether the step will build `kvssink`, which needs more packages.
pub fn needs_kvssink(options: &Options) -> bool {
    let (machine, mut report) = (options.machine(), options.report());
    let user = ServiceUser::find(&machine, &mut report, &options.binary);
    let home = user.home(&machine);
    let is_wanted = options
        .configuration
        .as_ref()
        .is_ok_and(|loaded| loaded.config.install_kvssink);
    matches!(
        kvssink::plan(&machine, is_wanted, &user, home.as_deref()),
        KvssinkPlan::Build(_)
    )
}

/// Runs the step. Prints one line for each change, each skipped item and each warning, then the counts.
///
/// # Errors
/// The step does not run as root, or the service user cannot be created.
pub fn run(options: &Options) -> Result<(), InstallError> {
    let (machine, mut report) = (options.machine(), options.report());
    // The tool, not a system call, so that tests can replace it.
    let uid = machine.query(machine.command("id").arg("-u"));
    if !options.dry_run && uid.as_deref() != Some("0") {
        return Err(InstallError(
            "must run as root: the recipe's install step needs RequiresPrivilege: true (--dry-run works as any user)"
                .to_owned(),
        ));
    }
    let user = ServiceUser::find(&machine, &mut report, &options.binary);
    report.headline(format_args!(
        "board {}, service user {}:{}",
        machine.board(),
        user.name,
        user.group
    ));
    image::check(&machine, &mut report);
    let home = user.create_missing(&machine, &mut report)?;
    lock_files::remove_unusable(&machine, &mut report, &user.name);
    let groups = setting(&mut report, &options.configuration, "ei_ggc_user_groups");
    user.join_groups(&machine, &mut report, &groups);
    devices::open(&machine, &mut report, &user.group);
    let bin_dir = setting(&mut report, &options.configuration, "ei_bindir");
    link::create(&machine, &mut report, &bin_dir, &options.binary);
    linger::enable(&machine, &mut report, &user.name);
    let is_wanted = setting(&mut report, &options.configuration, "install_kvssink") == "yes";
    let plan = kvssink::plan(&machine, is_wanted, &user, home.as_deref());
    kvssink::execute(plan, &machine, &mut report, &user.name);
    report.finish();
    Ok(())
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
