//! `run`: the daemon.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::{ConfigArgs, Exit, LogArgs, NO_CONFIGURATION, environment, logging, sentence};
use crate::config::{Config, Loaded};
use crate::lifecycle::{DeviceDirLock, LockFile, StopSignals, lock_path};
use crate::supervisor::{Ended, Setup};

/// Worker threads of the runtime: it carries messages and timers; frames have threads of their own.
const RUNTIME_THREADS: usize = 2;
/// What cleans `/tmp` looks once a day for files that are days old.
const FRESHEN_EVERY: Duration = Duration::from_secs(3600);
/// Signals come through the runtime, which gets this long to bring one before the program is replaced.
const LAST_LOOK: Duration = Duration::from_millis(20);
/// An orderly end takes at most 4 s.
const ENDING: Duration = Duration::from_secs(5);
/// There is no event for the end of somebody else's process.
const LOOK_AT_PLACE: Duration = Duration::from_millis(100);

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
    if let Err(e) = environment::complete(loaded.config.install_kvssink) {
        tracing::warn!("{}{e}", environment::GOES_ON);
    }
    report_findings(&loaded);
    if loaded.config.runner.http_server.is_some() {
        return on_runtime(answer_on_demand(loaded.config));
    }
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
    on_runtime(daemon(setup))
}

fn on_runtime(task: impl Future<Output = Exit>) -> Exit {
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
    let exit = runtime.block_on(task);
    // Threads that hang in a driver must not hold up the end.
    runtime.shutdown_background();
    exit
}

pub(super) fn report_findings(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    for note in &loaded.notes {
        tracing::info!("{note}");
    }
}

/// The place of the one process of a device, and what ends it.
struct InstanceGuard {
    device: String,
    lock: Arc<LockFile>,
    signals: StopSignals,
    /// Held until the process ends.
    _place: Option<DeviceDirLock>,
}

impl InstanceGuard {
    /// # Errors
    /// How to end; why has been said.
    async fn take_up(config: &Config) -> Result<Self, Exit> {
        // First of all: a stop signal that comes earlier ends the process the hard way.
        let mut signals = StopSignals::listen().map_err(|e| {
            tracing::error!("stop signals cannot be received: {e}");
            Exit::Failure
        })?;
        let device = crate::device::resolve(&config.device_name, &config.work_dir, Path::new("/"));
        for warning in &device.warnings {
            tracing::warn!("{warning}");
        }
        let lock = LockFile::acquire(&lock_path(&config.lock_filename, &device.name)).map_err(|e| {
            tracing::error!("{}", sentence(&e));
            match e {
                crate::lifecycle::LockError::Held { .. } => Exit::AlreadyRunning,
                crate::lifecycle::LockError::Io { .. } => Exit::Configuration,
            }
        })?;
        let place = DeviceDirLock::open(&config.work_dir.join(&device.name));
        if let Some(place) = &place
            && let Err(exit) = wait_for(place, config.sleep_time + ENDING, &mut signals).await
        {
            lock.remove();
            return Err(exit);
        }
        Ok(Self {
            device: device.name,
            lock: Arc::new(lock),
            signals,
            _place: place,
        })
    }
}

/// Waits for an earlier process of the same device, whose lock file was removed: it looks at that file from time to time only.
async fn wait_for(place: &DeviceDirLock, limit: Duration, signals: &mut StopSignals) -> Result<(), Exit> {
    if place.try_hold() {
        return Ok(());
    }
    tracing::info!("an earlier run for this device, whose lock file was removed, has not ended yet: it is waited for");
    let freed = async {
        while !place.try_hold() {
            tokio::time::sleep(LOOK_AT_PLACE).await;
        }
    };
    tokio::select! {
        freed = tokio::time::timeout(limit, freed) => freed.map_err(|_| {
            tracing::error!(
                "an earlier run for this device, whose lock file was removed, has not ended within {} s: end it (`pgrep -a ei-greengrass` \
                 shows it), or give this one another device_name",
                limit.as_secs()
            );
            Exit::AlreadyRunning
        }),
        signal = signals.next() => {
            tracing::info!("stopping: {signal} received");
            Err(Exit::Orderly)
        }
    }
}

/// `--run-http-server`: answers requests instead of watching a camera.
async fn answer_on_demand(config: Config) -> Exit {
    let duty = match InstanceGuard::take_up(&config).await {
        Ok(duty) => duty,
        Err(exit) => return exit,
    };
    let stop = stop_requested(duty.signals, duty.lock.clone(), config.sleep_time, FRESHEN_EVERY);
    let ran = crate::http::inference_server::run(&config, &duty.device, stop).await;
    if let Ok(lock) = Arc::try_unwrap(duty.lock) {
        lock.remove();
    }
    match ran {
        Ok(()) => Exit::Orderly,
        Err(e) => {
            tracing::error!("{}", sentence(&e));
            Exit::Configuration
        }
    }
}

async fn daemon(setup: Setup) -> Exit {
    let InstanceGuard {
        device,
        lock,
        signals,
        _place,
    } = match InstanceGuard::take_up(&setup.config).await {
        Ok(duty) => duty,
        Err(exit) => return exit,
    };
    let (ended, wanted) = {
        let mut stop = pin!(stop_requested(
            signals,
            lock.clone(),
            setup.config.sleep_time,
            FRESHEN_EVERY
        ));
        let ended = crate::supervisor::run(setup, device, stop.as_mut()).await;
        // Whoever asked for the end at the last moment, or removed the file, wants no new start.
        let wanted =
            ended == Ended::Reexec && tokio::time::timeout(LAST_LOOK, stop).await.is_err() && lock.still_there();
        (ended, wanted)
    };
    // The waiting task held a clone only while it ran.
    if let Ok(lock) = Arc::try_unwrap(lock) {
        lock.remove();
    }
    match ended {
        Ended::Orderly => Exit::Orderly,
        Ended::Reexec if wanted => start_anew(),
        Ended::Reexec => Exit::Orderly,
    }
}

/// Completes when somebody asked the daemon to stop. Another signal after the first ends the process at once.
async fn stop_requested(mut signals: StopSignals, lock: Arc<LockFile>, look_every: Duration, freshen_every: Duration) {
    let (mut look, mut freshen) = (tokio::time::interval(look_every), tokio::time::interval(freshen_every));
    let (signalled, why) = loop {
        tokio::select! {
            signal = signals.next() => break (true, format!("{signal} received")),
            _ = look.tick() => if !lock.still_there() { break (false, "the lock file was removed".to_owned()) },
            _ = freshen.tick() => if let Err(e) = lock.keep_fresh() {
                tracing::debug!("the times of the lock file cannot be set: {e}");
            },
        }
    };
    tracing::info!("stopping: {why}");
    tokio::spawn(async move {
        if !signalled {
            // `ei-greengrass stop` removes the file, and sends this one when that takes long.
            signals.next().await;
        }
        let signal = signals.insisting().await;
        tracing::error!("{signal} received again: ending at once; messages in memory are lost");
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

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::time::SystemTime;

    use super::*;

    #[tokio::test]
    async fn the_lock_file_is_kept_fresh_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = Arc::new(LockFile::acquire(&path).unwrap());
        let signals = StopSignals::listen().unwrap();
        let moment = Duration::from_millis(2);
        let stop = tokio::spawn(stop_requested(signals, lock, moment, moment));
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let times = FileTimes::new().set_accessed(old).set_modified(old);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_times(times)
            .unwrap();
        let is_fresh = || {
            let metadata = std::fs::metadata(&path).unwrap();
            metadata.modified().unwrap() > old && metadata.accessed().unwrap() > old
        };
        let fresh = async {
            while !is_fresh() {
                tokio::task::yield_now().await;
            }
        };
        let limit = Duration::from_secs(20);
        tokio::time::timeout(limit, fresh).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        tokio::time::timeout(limit, stop).await.unwrap().unwrap();
    }
}
