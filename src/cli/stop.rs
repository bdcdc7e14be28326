//! `stop`: end the running daemon of this device.

use clap::Args;

use super::{ConfigArgs, Exit, LogArgs, complain, logging, say};
use crate::lifecycle::{Termination, lock_path, terminate};
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
    let path = lock_path(&config.lock_filename, &device.name);
    match terminate(&path) {
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
