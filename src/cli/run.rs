//! `run`: the daemon.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::{ConfigArgs, Exit, LogArgs, NO_CONFIGURATION, logging, sentence};
use crate::config::Loaded;
use crate::lifecycle::{LockFile, StopSignals, lock_path};
use crate::supervisor::{Ended, Setup};

/// Worker threads of the runtime: it carries messages and timers; frames have threads of their own.
const RUNTIME_THREADS: usize = 2;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ei-greengrass run --config my.json --mqtt mqtt://localhost:1883 --model ./model.eim \\\n      \
    --gst 'v4l2src device=/dev/video0 ! videoconvert'"
)]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Play a source that is not live as fast as inference goes, every frame once.
    #[arg(long)]
    unthrottled: bool,
}

pub(super) fn main(args: &RunArgs, log: &LogArgs) -> Exit {
    let loaded = match args.config.load() {
        Ok(Some(loaded)) => loaded,
        Ok(None) => {
            logging::init(log.log_format, log.verbosity().unwrap_or_default());
            tracing::error!("{NO_CONFIGURATION}");
            return Exit::Configuration;
        }
        Err(e) => {
            logging::init(log.log_format, log.verbosity().unwrap_or_default());
            // A place in a text is shown as an excerpt with a caret below: lines that belong below each other.
            for line in sentence(&e).lines() {
                tracing::error!("{line}");
            }
            return Exit::Configuration;
        }
    };
    logging::init(
        log.log_format,
        log.verbosity().unwrap_or(loaded.config.runner.verbosity),
    );
    report_findings(&loaded);
    let setup = match Setup::new(loaded.config, args.unthrottled) {
        Ok(setup) => setup,
        Err(e) => {
            tracing::error!("{}", sentence(&e));
            return Exit::Configuration;
        }
    };
    run_to_end(setup)
}

/// Runs the daemon until it is stopped.
pub(super) fn run_to_end(setup: Setup) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            tracing::error!("the runtime cannot be started: {e}");
            return Exit::Failure;
        }
    };
    let exit = runtime.block_on(daemon(setup));
    // Threads that hang in a driver must not hold up the end.
    runtime.shutdown_background();
    exit
}

pub(super) fn report_findings(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    for missing in crate::supervisor::not_available(&loaded.config) {
        tracing::warn!("not available in this version, without effect: {missing}");
    }
    for note in &loaded.notes {
        tracing::info!("{note}");
    }
}

async fn daemon(setup: Setup) -> Exit {
    // First of all: a stop signal that comes earlier ends the process the hard way.
    let signals = match StopSignals::listen() {
        Ok(signals) => signals,
        Err(e) => {
            tracing::error!("stop signals cannot be received: {e}");
            return Exit::Failure;
        }
    };
    let device = crate::device::resolve(&setup.config.device_name, &setup.config.work_dir, Path::new("/"));
    for warning in &device.warnings {
        tracing::warn!("{warning}");
    }
    let lock = match LockFile::acquire(&lock_path(&setup.config.lock_filename, &device.name)) {
        Ok(lock) => lock,
        Err(e) => {
            tracing::error!("{}", sentence(&e));
            return match e {
                crate::lifecycle::LockError::Held { .. } => Exit::AlreadyRunning,
                crate::lifecycle::LockError::Io { .. } => Exit::Configuration,
            };
        }
    };
    let lock = Arc::new(lock);
    let stop = stop_requested(signals, lock.clone(), setup.config.sleep_time);
    let ended = crate::supervisor::run(setup, device.name, stop).await;
    // The waiting task held a clone only while it ran.
    if let Ok(lock) = Arc::try_unwrap(lock) {
        lock.remove();
    }
    match ended {
        Ended::Orderly => Exit::Orderly,
        Ended::StartAnew => start_anew(),
    }
}

/// Completes when somebody asked the daemon to stop. A second signal after that ends the process at once.
async fn stop_requested(mut signals: StopSignals, lock: Arc<LockFile>, look_every: Duration) {
    let mut look = tokio::time::interval(look_every);
    let why = loop {
        tokio::select! {
            signal = signals.next() => break format!("{signal} received"),
            _ = look.tick() => if !lock.still_there() { break "the lock file was removed".to_owned() },
        }
    };
    tracing::info!("stopping: {why}");
    tokio::spawn(async move {
        let signal = signals.next().await;
        tracing::warn!("{signal} received again: ending at once");
        std::process::exit(1);
    });
}

/// Replaces this process by a new one with the same arguments: the way out when threads hang in a driver for good.
fn start_anew() -> Exit {
    use std::os::unix::process::CommandExt;
    tracing::warn!("starting the program anew in place");
    let mut arguments = std::env::args_os();
    arguments.next();
    let error = std::process::Command::new("/proc/self/exe").args(arguments).exec();
    tracing::error!("the program cannot be started anew: {error}");
    Exit::Failure
}
