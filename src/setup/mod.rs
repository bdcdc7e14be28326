//! The install step after the packages: brings the machine to the state that the component needs, and changes nothing
//! that is there already. `artifacts/install.sh` installs packages and then runs this as `ei-greengrass setup`.
//!
//! Tools of the system (`useradd`, `usermod`, `loginctl`, `cmake`) make the changes, because each distribution sets them up.

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
pub use error::SetupError;
use kvssink::Plan;
use machine::Machine;
pub use machine::PackageManager;
pub use report::Counts;
use report::Report;
use service_user::ServiceUser;

/// What the caller decides.
pub struct Options {
    /// Say what would be done, and change nothing.
    pub dry_run: bool,
    /// Directory put before every absolute path except that of the binary itself; `None`: the machine's own root.
    pub root: Option<PathBuf>,
    /// The program in the component's artifacts.
    pub binary: PathBuf,
    /// The configuration, or why it cannot be read.
    pub configuration: Result<Loaded, String>,
    /// `None`: not known, the step runs without `install.sh`.
    pub package_manager: Option<PackageManager>,
    /// What `install.sh` counted before.
    pub counts: Counts,
    /// Time for everything that can hang, together.
    pub time_limit: Duration,
}

impl Options {
    fn machine(&self) -> Machine {
        Machine::new(self.root.clone(), self.package_manager, self.dry_run, self.time_limit)
    }

    fn report(&self) -> Report {
        Report::new(self.dry_run, self.counts)
    }
}

/// Whether the build of `kvssink` would start, so that its packages are needed.
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
        Plan::Build(_)
    )
}

/// Runs the step and prints one line for each thing done, skipped or not possible, then the counts.
///
/// # Errors
/// The step does not run as root, or the service user cannot be created.
pub fn run(options: &Options) -> Result<(), SetupError> {
    let (machine, mut report) = (options.machine(), options.report());
    // The tool and not a system call, so that tests can replace it.
    let uid = machine.query(machine.command("id").arg("-u"));
    if !options.dry_run && uid.as_deref() != Some("0") {
        return Err(SetupError(
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
    let home = user.provide(&machine, &mut report)?;
    lock_files::free(&machine, &mut report, &user.name);
    let groups = setting(&mut report, &options.configuration, "ei_ggc_user_groups");
    user.join_groups(&machine, &mut report, &groups);
    devices::open(&machine, &mut report, &user.group);
    let bin_dir = setting(&mut report, &options.configuration, "ei_bindir");
    link::provide(&machine, &mut report, &bin_dir, &options.binary);
    linger::enable(&machine, &mut report, &user.name);
    let is_wanted = setting(&mut report, &options.configuration, "install_kvssink") == "yes";
    let plan = kvssink::plan(&machine, is_wanted, &user, home.as_deref());
    kvssink::carry_out(plan, &machine, &mut report, &user.name);
    report.finish();
    Ok(())
}

/// The effective value of a key as text; its default, with a warning, when the configuration cannot be read.
fn setting(report: &mut Report, configuration: &Result<Loaded, String>, key: &str) -> String {
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
