//! `run`: the daemon.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::sync::mpsc;

use super::args::read_parameters;
use super::config_watch::ConfigWatch;
use super::{ConfigArgs, Exit, LogArgs, NO_CONFIGURATION, environment, logging};
use crate::config::{Config, Launch, Loaded, TextOrigin};
use crate::lifecycle::{
    DeviceDirLock, LockError, LockFile, StopSignals, lock_objection, lock_path as usual_lock_path, own_lock_path,
    replace_foreign_device_dir, secure_dir,
};
use crate::nucleus::{Nucleus, NucleusError};
use crate::studio::replace_foreign_models;
use crate::supervisor::{ConfigUpdate, RunEnd, Setup};
use crate::util::atomic_file;
use crate::util::log_limiter::LogLimiter;
use crate::util::private_dir::deny_writing_by_others;
use crate::util::text::sentence;

/// Worker threads of the runtime, which runs messages and timers. Frames have threads of their own.
const RUNTIME_THREADS: usize = 2;
/// How often the times of the lock file are set. Programs that clean `/tmp` run once a day and remove files that are
/// days old.
const FRESHEN_INTERVAL: Duration = Duration::from_secs(3600);
/// Before a re-execution: how long to wait for a stop signal that the runtime has not delivered yet.
const SIGNAL_GRACE: Duration = Duration::from_millis(20);
/// An orderly stop takes at most 4 s.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// The end of an earlier process is polled: there is no event for it.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ei-greengrass run --config my.json --mqtt mqtt://localhost:1883 --model ./model.eim \\\n      \
    --gst 'v4l2src device=/dev/video0 ! videoconvert'"
)]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Play a source that is not live as fast as inference runs, every frame once.
    #[arg(long)]
    unthrottled: bool,
}

pub(super) fn main(args: &RunArgs, log: &LogArgs) -> Exit {
    deny_writing_by_others();
    let nucleus = args.config.nucleus();
    let text = match nucleus
        .as_ref()
        .map(|nucleus| wait_for_parameters(nucleus, log))
        .transpose()
    {
        Ok(text) => text,
        Err(error) => {
            tracing::error!(%error, "The component cannot start");
            return Exit::Failure;
        }
    };
    let loaded = match &text {
        Some(text) => args
            .config
            .load_text(Some((TextOrigin::Nucleus, text.clone())))
            .map(Some),
        None => args.config.load(),
    };
    let loaded = match loaded {
        Ok(Some(loaded)) => loaded,
        Ok(None) => {
            logging::init(log.log_format, log.verbosity().unwrap_or_default());
            tracing::error!(error = %NO_CONFIGURATION, "The component cannot start");
            return Exit::Configuration;
        }
        Err(e) => {
            logging::init(log.log_format, log.verbosity().unwrap_or_default());
            // A syntax error comes with an excerpt and a caret below it: these lines must stay below each other.
            for line in sentence(&e).lines() {
                tracing::error!("{line}");
            }
            log_advice(nucleus.is_some());
            return Exit::Configuration;
        }
    };
    logging::init(
        log.log_format,
        log.verbosity().unwrap_or(loaded.config.runner.verbosity),
    );
    if let Err(e) = environment::complete(loaded.config.install_kvssink) {
        tracing::warn!(error = %e, "{}", environment::INCOMPLETE);
    }
    log_findings(&loaded);
    let is_in_greengrass = nucleus.is_some();
    let watch = nucleus.zip(text).map(|(nucleus, text)| ConfigWatch {
        nucleus,
        text,
        loaded: loaded.clone(),
        args: args.config.clone(),
        unthrottled: args.unthrottled,
    });
    let setup = match Setup::new(loaded.config, args.unthrottled) {
        Ok(setup) => setup,
        Err(e) => {
            tracing::error!(error = %sentence(&e), "The component cannot start");
            log_advice(is_in_greengrass);
            return Exit::Configuration;
        }
    };
    if setup.config.runner.http_server.is_some() && setup.config.launch == Launch::Runner {
        return on_runtime(serve_inference(setup.config, watch));
    }
    run_daemon(setup, watch)
}

/// Reads the component's `Parameters` from the nucleus, which may be starting or restarting: it is asked until it answers.
/// A stop signal ends the process meanwhile, because nothing handles it yet.
fn wait_for_parameters(nucleus: &Nucleus, log: &LogArgs) -> Result<String, NucleusError> {
    let mut log_limiter = LogLimiter::default();
    read_parameters(nucleus, |error| {
        // The verbosity of the configuration is not known yet, and logging starts once.
        logging::init(log.log_format, log.verbosity().unwrap_or_default());
        if let Some(suppressed) = log_limiter.check_words(Instant::now(), &error.to_string()) {
            tracing::warn!(%error, suppressed = suppressed.count(), "Waiting for the configuration");
        }
        true
    })
}

/// Logs what follows in Greengrass after a configuration that cannot run.
fn log_advice(in_greengrass: bool) {
    if in_greengrass {
        tracing::error!(
            advice = "deploy a configuration that can run; `ei-greengrass check --config FILE` checks one by hand",
            "Greengrass starts the component three times and then reports it as BROKEN. The classic nucleus rolls the deployment \
             back if its failure policy is ROLLBACK; Greengrass Lite does not roll back"
        );
    }
}

/// Runs the daemon until it is stopped. `watch`: follows the configuration.
pub(super) fn run_daemon(setup: Setup, watch: Option<ConfigWatch>) -> Exit {
    on_runtime(daemon(setup, watch))
}

fn on_runtime(task: impl Future<Output = Exit>) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "The async runtime cannot be started");
            return Exit::Failure;
        }
    };
    let exit = runtime.block_on(task);
    // Threads that are stuck in a driver must not delay the end.
    runtime.shutdown_background();
    exit
}

/// Logs the warnings and notes of a loaded configuration.
pub(super) fn log_findings(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!(detail = %warning, "Configuration warning");
    }
    for note in &loaded.notes {
        tracing::info!(detail = %note, "Configuration note");
    }
}

/// Makes this process the only one of its device, and receives its stop requests.
struct InstanceGuard {
    device: String,
    lock: Arc<LockFile>,
    signals: StopSignals,
    /// Held until the process ends.
    _device_dir_lock: Option<DeviceDirLock>,
}

impl InstanceGuard {
    /// # Errors
    /// The exit code; the reason is already logged.
    async fn acquire(config: &Config) -> Result<Self, Exit> {
        // This comes first: until the handlers are installed a stop signal kills the process.
        let mut signals = StopSignals::listen().map_err(|error| {
            tracing::error!(%error, "Stop signals cannot be received");
            Exit::Failure
        })?;
        secure_dir(&crate::device::identity_dir(&config.device_name, &config.work_dir));
        let device = crate::device::resolve(&config.device_name, &config.work_dir, Path::new("/"));
        for warning in &device.warnings {
            tracing::warn!(detail = %warning, "Device name warning");
        }
        let lock_path = own_lock_path(&config.lock_filename, &device.name);
        let usual = usual_lock_path(&config.lock_filename, &device.name);
        if lock_path != usual {
            tracing::warn!(
                path = %usual.display(), used = %lock_path.display(), reason = lock_objection(&usual),
                advice = "remove the first one as root; until then, remove the second one to stop the component",
                "The lock file was left behind by a process of another user, and another one is used"
            );
        }
        let lock = LockFile::acquire(&lock_path).map_err(|e| {
            tracing::error!(error = %sentence(&e), "The component cannot start");
            match e {
                LockError::Held { .. } => Exit::AlreadyRunning,
                LockError::Io { .. } => Exit::Configuration,
            }
        })?;
        let device_dir = config.work_dir.join(&device.name);
        replace_foreign_device_dir(&device_dir);
        replace_foreign_models(&config.work_dir);
        let device_dir_lock = DeviceDirLock::open(&device_dir);
        if let Some(device_dir_lock) = &device_dir_lock
            && let Err(exit) = wait_for_lock(device_dir_lock, config.sleep_time + STOP_LIMIT, &mut signals).await
        {
            lock.remove();
            return Err(exit);
        }
        remove_leftovers(config, &device_dir);
        Ok(Self {
            device: device.name,
            lock: Arc::new(lock),
            signals,
            _device_dir_lock: device_dir_lock,
        })
    }
}

/// Removes temporary files of small files (`util/atomic_file.rs`) that earlier processes left behind.
fn remove_leftovers(config: &Config, device_dir: &Path) {
    let models = config.work_dir.join("models");
    let directories = [
        device_dir.to_owned(),
        device_dir.join("studio-summaries"),
        config.work_dir.join(&config.device_name),
        models.join("state"),
        models,
    ];
    atomic_file::remove_leftovers(directories.iter().map(PathBuf::as_path));
}

/// Waits for the end of an earlier process of the same device. It notices the removal of its lock file only after up to
/// `sleep_time_sec`.
async fn wait_for_lock(lock: &DeviceDirLock, limit: Duration, signals: &mut StopSignals) -> Result<(), Exit> {
    if lock.try_lock() {
        return Ok(());
    }
    tracing::info!("An earlier run for this device has not ended yet; waiting for it");
    let free = async {
        while !lock.try_lock() {
            tokio::time::sleep(LOCK_POLL_INTERVAL).await;
        }
    };
    tokio::select! {
        free = tokio::time::timeout(limit, free) => free.map_err(|_| {
            tracing::error!(
                waited = ?limit,
                advice = "end it (`pgrep -a ei-greengrass` shows it), or give this run another device_name",
                "An earlier run for this device, whose lock file was removed, does not end"
            );
            Exit::AlreadyRunning
        }),
        signal = signals.next() => {
            tracing::info!(reason = %format_args!("{signal} received"), "Stopping");
            Err(Exit::Orderly)
        }
    }
}

/// The changed configurations; none without a nucleus.
fn start_watch(watch: Option<ConfigWatch>) -> mpsc::Receiver<ConfigUpdate> {
    watch.map_or_else(|| mpsc::channel(1).1, ConfigWatch::start)
}

/// Completes when the configuration changes.
async fn changed(mut updates: mpsc::Receiver<ConfigUpdate>) {
    loop {
        match updates.recv().await {
            Some(ConfigUpdate::Accepted(change)) if !change.keys.is_empty() => {
                tracing::info!(keys = ?change.keys, "The configuration has changed");
                return;
            }
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// `--run-http-server`: answers inference requests over HTTP instead of running a camera.
async fn serve_inference(config: Config, watch: Option<ConfigWatch>) -> Exit {
    let guard = match InstanceGuard::acquire(&config).await {
        Ok(guard) => guard,
        Err(exit) => return exit,
    };
    let mut is_changed = false;
    let result = {
        let stop = stop_requested(guard.signals, guard.lock.clone(), config.sleep_time, FRESHEN_INTERVAL);
        let changed = changed(start_watch(watch));
        let stop = async {
            tokio::select! {
                () = stop => {}
                () = changed => is_changed = true,
            }
        };
        crate::http::inference_server::run(&config, &guard.device, stop).await
    };
    if let Ok(lock) = Arc::try_unwrap(guard.lock) {
        lock.remove();
    }
    match result {
        Ok(()) if is_changed => reexec(),
        Ok(()) => Exit::Orderly,
        Err(e) => {
            tracing::error!(error = %sentence(&e), "The inference server cannot run");
            Exit::Configuration
        }
    }
}

async fn daemon(setup: Setup, watch: Option<ConfigWatch>) -> Exit {
    let InstanceGuard {
        device,
        lock,
        signals,
        _device_dir_lock,
    } = match InstanceGuard::acquire(&setup.config).await {
        Ok(guard) => guard,
        Err(exit) => return exit,
    };
    let wants_reexec = {
        let mut stop = pin!(stop_requested(
            signals,
            lock.clone(),
            setup.config.sleep_time,
            FRESHEN_INTERVAL
        ));
        let updates = start_watch(watch);
        let end = match setup.config.launch {
            Launch::Runner => crate::supervisor::run(setup, device, stop.as_mut(), updates).await,
            Launch::Linux => crate::supervisor::collect(setup, &device, stop.as_mut(), updates).await,
        };
        // A stop signal or a removal of the lock file at the last moment cancels the re-execution.
        end == RunEnd::Reexec && tokio::time::timeout(SIGNAL_GRACE, stop).await.is_err() && lock.exists_at_path()
    };
    // `stop_requested` owned the other clone, and is dropped.
    if let Ok(lock) = Arc::try_unwrap(lock) {
        lock.remove();
    }
    if wants_reexec { reexec() } else { Exit::Orderly }
}

/// Completes when a stop is requested: by a signal, or by the removal of the lock file. A further signal exits the
/// process at once.
async fn stop_requested(
    mut signals: StopSignals,
    lock: Arc<LockFile>,
    poll_interval: Duration,
    freshen_interval: Duration,
) {
    let mut poll = tokio::time::interval(poll_interval);
    let mut freshen = tokio::time::interval(freshen_interval);
    let signal = loop {
        tokio::select! {
            signal = signals.next() => break Some(signal),
            _ = poll.tick() => if !lock.exists_at_path() { break None },
            _ = freshen.tick() => if let Err(error) = lock.update_times() {
                tracing::debug!(%error, "The times of the lock file cannot be set");
            },
        }
    };
    match signal {
        Some(signal) => tracing::info!(reason = %format_args!("{signal} received"), "Stopping"),
        None => tracing::info!(reason = %"the lock file was removed", "Stopping"),
    }
    tokio::spawn(async move {
        if signal.is_none() {
            // `ei-greengrass stop` removes the file, and sends SIGTERM if the process does not end soon.
            signals.next().await;
        }
        let signal = signals.next_distinct().await;
        tracing::error!(
            signal,
            "Another stop signal: exiting at once; messages in memory are lost"
        );
        std::process::exit(1);
    });
}

/// Replaces this process by a new one with the same arguments, because threads are permanently stuck in a driver, or because
/// the configuration has changed.
fn reexec() -> Exit {
    use std::os::unix::process::CommandExt;
    tracing::info!("Re-executing the program in place");
    let mut arguments = std::env::args_os();
    arguments.next();
    let error = std::process::Command::new("/proc/self/exe").args(arguments).exec();
    tracing::error!(%error, "The program cannot be re-executed");
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
        let interval = Duration::from_millis(2);
        let stop = tokio::spawn(stop_requested(signals, lock, interval, interval));
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
