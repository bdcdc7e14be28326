//! `setup`: the install step after the packages.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{ConfigArgs, Exit, complain, say};
use crate::setup::{Counts, Options, PackageManager, needs_kvssink, run};

/// Arguments of `setup`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ei-greengrass setup --dry-run
  sudo ei-greengrass setup --config /etc/ei-greengrass.json

The environment variable EI_ROOT names a directory that is put before every absolute path that is read or written
(/etc, /dev, /proc, /home, ei_bindir), for image builds.")]
pub struct SetupArgs {
    /// Print what would be done, and change nothing. Works as any user.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    config: ConfigArgs,
    /// The package manager of this machine.
    #[arg(long, value_name = "NAME", help_heading = "Used by install.sh")]
    package_manager: Option<PackageManager>,
    /// Counts of the lines that install.sh has already printed; added to the counts at the end.
    #[arg(
        long,
        value_name = "DONE,SKIPPED,WARNINGS",
        default_value = "0,0,0",
        help_heading = "Used by install.sh"
    )]
    counts: Counts,
    /// Total time in seconds for all commands that can hang.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 6900,
        help_heading = "Used by install.sh"
    )]
    time_limit: u32,
    /// Print only whether kvssink must be built: yes or no.
    #[arg(long, help_heading = "Used by install.sh")]
    needs_kvssink: bool,
}

pub(super) fn main(args: &SetupArgs) -> Exit {
    let binary = match std::env::current_exe() {
        Ok(binary) => binary,
        Err(e) => {
            complain(&format!(
                "error: the path of this program is unknown ({e}): is /proc mounted?"
            ));
            return Exit::Failure;
        }
    };
    let options = Options {
        dry_run: args.dry_run,
        root: std::env::var_os("EI_ROOT")
            .filter(|root: &OsString| !root.is_empty())
            .map(PathBuf::from),
        binary,
        configuration: args.config.load_or_default().map_err(|e| e.to_string()),
        package_manager: args.package_manager,
        counts: args.counts,
        time_limit: Duration::from_secs(args.time_limit.into()),
    };
    if args.needs_kvssink {
        say(if needs_kvssink(&options) { "yes" } else { "no" });
        return Exit::Orderly;
    }
    match run(&options) {
        Ok(()) => Exit::Orderly,
        Err(e) => {
            complain(&format!("error: {e}"));
            Exit::Failure
        }
    }
}
