//! `stop`: end the running daemon of this device.

use clap::Args;

use super::{ConfigArgs, Exit, LogArgs, complain, logging, say};
use crate::config::{Sources, load};
use crate::lifecycle::{Termination, lock_path, terminate};

/// Arguments of `stop`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ei-greengrass stop --config /etc/ei-greengrass.json")]
pub struct StopArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn main(args: &StopArgs, log: &LogArgs) -> Exit {
    let loaded = match args.config.load() {
        Ok(Some(loaded)) => Ok(loaded),
        // The defaults name a device too: the one that `run` would use without device_name and lock_filename.
        Ok(None) => load(&Sources::default()),
        Err(e) => Err(e),
    };
    let config = match loaded {
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
        Ok(how) => {
            let path = path.display();
            match how {
                Termination::NotRunning => say(&format!("not running (no held lock file {path})")),
                Termination::Ended => say("stopped"),
                Termination::AfterSigterm => say("stopped, after SIGTERM"),
                Termination::Killed => say("killed: it did not end within its time after SIGTERM"),
            }
            Exit::Orderly
        }
        Err(e) => {
            complain(&e.to_string());
            Exit::Failure
        }
    }
}
