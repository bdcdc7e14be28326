//! `setup`: the install step after the packages.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::{Arg, Args};

use super::{ConfigArgs, Exit, complain};
use crate::setup::{Counts, Options, PackageManager, ShellFile, StartedFrom, build_kvssink, run};

/// The heading of the options that `install.sh` passes.
const INTERNAL: &str = "Used by install.sh";

/// Arguments of `setup`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ei-greengrass setup --dry-run
  sudo ei-greengrass setup --config /etc/ei-greengrass.json
  sudo ei-greengrass setup --kvssink

The environment variable EI_ROOT names a directory that is put before every absolute path that is read or written
(/etc, /dev, /proc, /home, ei_bindir), for image builds.")]
pub struct SetupArgs {
    /// Print what would be done, and change nothing. Works as any user.
    #[arg(long)]
    dry_run: bool,
    /// Only build kvssink, the GStreamer element for Kinesis Video Streams, with the packages it needs. Takes up to an hour.
    #[arg(long)]
    kvssink: bool,
    #[command(flatten)]
    config: ConfigArgs,
    /// The package manager of this machine.
    #[arg(long, value_name = "NAME", help_heading = INTERNAL)]
    package_manager: Option<PackageManager>,
    /// Counts of the lines that install.sh has already printed; added to the counts at the end.
    #[arg(
        long,
        value_name = "DONE,SKIPPED,WARNINGS",
        default_value = "0,0,0",
        help_heading = INTERNAL
    )]
    counts: Counts,
    /// Total time in seconds for all commands that can hang.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 6900,
        help_heading = INTERNAL
    )]
    time_limit: u32,
    /// Packages are missing because the time was used up or there was no network.
    #[arg(long, help_heading = INTERNAL)]
    lacks_packages: bool,
}

/// Hides an option that only `install.sh` passes.
pub(super) fn hide_internal(argument: Arg) -> Arg {
    let is_internal = argument.get_help_heading() == Some(INTERNAL);
    argument.hide(is_internal)
}

pub(super) fn main(args: &SetupArgs, shell_files: Vec<ShellFile>) -> Exit {
    let binary = match std::env::current_exe() {
        Ok(binary) => binary,
        Err(e) => {
            complain(&format!(
                "error: the path of this program is unknown ({e}): is /proc mounted?"
            ));
            return Exit::Failure;
        }
    };
    if args.kvssink && args.package_manager.is_none() && !args.dry_run {
        let script = binary.with_file_name("install.sh");
        if script.is_file() {
            // It installs the packages, and then runs this program with a package manager.
            let error = Command::new("sh").arg(&script).args(["--finish", "--kvssink"]).exec();
            complain(&format!("error: {} cannot be run: {error}", script.display()));
            return Exit::Failure;
        }
    }
    let options = Options {
        dry_run: args.dry_run,
        root: non_empty_variable("EI_ROOT").map(PathBuf::from),
        started_from: StartedFrom {
            binary,
            current_dir: std::env::current_dir().ok(),
            ipc_socket: non_empty_variable("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT").map(PathBuf::from),
        },
        configuration: args.config.load_or_default().map_err(|e| e.to_string()),
        package_manager: args.package_manager,
        counts: args.counts,
        time_limit: Duration::from_secs(args.time_limit.into()),
        lacks_packages: args.lacks_packages,
        shell_files,
    };
    let result = if args.kvssink {
        build_kvssink(&options)
    } else {
        run(&options)
    };
    match result {
        Ok(()) => Exit::Orderly,
        Err(e) => {
            complain(&format!("error: {e}"));
            Exit::Failure
        }
    }
}

fn non_empty_variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
