//! `stop`: end the running daemon of this device.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{ConfigArgs, Exit, LogArgs, complain, logging, say};
use crate::lifecycle::{TerminateError, Termination, all_lock_paths, own_lock_path, terminate};
use crate::util::redact;

/// Arguments of `stop`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ei-greengrass stop --config /etc/ei-greengrass.json")]
pub struct StopArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn main(args: &StopArgs, log: &LogArgs) -> Exit {
    let config = match args.config.load_or_default() {
        Ok(loaded) => loaded.config,
        Err(e) => {
            complain(&e.to_string());
            return Exit::Configuration;
        }
    };
    logging::init(log.log_format, log.verbosity().unwrap_or(config.runner.verbosity));
    let device = crate::device::peek(&config.device_name, &config.work_dir, std::path::Path::new("/"));
    let path = own_lock_path(&config.lock_filename, &device.name);
    let others = all_lock_paths(&config.lock_filename, &device.name);
    match terminate_first(&path, &others) {
        Ok(termination) => {
            let path = redact::credentials(&path.display().to_string());
            match termination {
                Termination::NotRunning => say(&format!("not running (no held lock file {path})")),
                Termination::Ended => say("stopped"),
                Termination::AfterSigterm => say("stopped, after SIGTERM"),
                Termination::Killed => say("killed: it did not end in time after SIGTERM"),
            }
            Exit::Orderly
        }
        Err(e) => {
            complain(&e.to_string());
            Exit::Failure
        }
    }
}

/// Ends the component that holds the lock file, else one that holds another lock file of the device: the component of another
/// user may have one of its own.
fn terminate_first(path: &Path, others: &[PathBuf]) -> Result<Termination, TerminateError> {
    let termination = terminate(path)?;
    let mut others = others.iter().filter(|other| *other != path);
    if termination != Termination::NotRunning {
        return Ok(termination);
    }
    // One that this user cannot open belongs to a component that this user did not start.
    let ended = others.find_map(|other| terminate(other).ok().filter(|ended| *ended != Termination::NotRunning));
    Ok(ended.unwrap_or(termination))
}
