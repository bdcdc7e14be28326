//! Keeps undelivered inferences on disk, so that they survive an outage, a stop and a crash.
//!
//! A thread takes jobs (write, delete, read) from the [`Outbox`] and performs them in the [`store`], so neither the inference
//! loop nor the runtime ever waits for the disk. A spool that cannot be used is logged and never fatal: the outbox continues
//! in memory.

pub(super) mod fuzzing;
#[cfg(test)]
mod stepped;
mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::outbox::{LoadRequest, Outbox, SpoolJob, SpoolPolicy, Undelivered};
use crate::util::clock::{monotonic_now, rounded};
use crate::util::damaged_files;
use crate::util::database::{self, DatabaseError};
use crate::util::foreign_files;
use crate::util::log_limiter::LogLimiter;
#[cfg(test)]
pub(crate) use stepped::SteppedSpool;
use store::Store;

/// Settings of the spool.
#[derive(Debug, Clone)]
pub struct SpoolSettings {
    /// The file. It exists only while it holds messages; its directory is created when needed.
    pub path: PathBuf,
    /// Most payload bytes on disk. When it is exceeded, the oldest messages are dropped. The file needs up to four times as
    /// much plus 4 MiB, because it grows by doubling and a large payload fills whole pages.
    pub max_bytes: u64,
    /// Times; the default is right outside tests.
    pub policy: SpoolPolicy,
}

/// The running spool. When it is dropped, its thread ends after everything is written.
#[derive(Debug)]
pub struct Spool {
    outbox: Arc<Outbox>,
    ended: oneshot::Receiver<()>,
}

impl Spool {
    /// Starts the thread that writes undelivered messages of `outbox` to disk. Messages of an earlier run are sent first.
    ///
    /// # Errors
    /// The thread cannot be started; the outbox then keeps messages in memory only.
    pub fn start(settings: SpoolSettings, outbox: Arc<Outbox>) -> std::io::Result<Self> {
        let (sender, ended) = oneshot::channel();
        let worker = Worker {
            store: Store::new(settings.path, settings.max_bytes),
            outbox: Arc::clone(&outbox),
            retry: settings.policy.retry,
            log_limiter: LogLimiter::default(),
        };
        let thread = std::thread::Builder::new().name("spool".to_owned());
        // Before the thread starts: messages pushed after this call must find the spool attached.
        outbox.attach_spool(settings.policy);
        let spawned = thread.spawn(move || {
            worker.run();
            // The receiver is gone when the spool was dropped.
            let _ = sender.send(());
        });
        if let Err(error) = spawned {
            outbox.spool_failed(format_args!("its thread cannot be started: {error}"));
            return Err(error);
        }
        Ok(Self { outbox, ended })
    }

    /// Writes the undelivered messages to disk for the next start and returns their numbers, at `deadline` at the latest.
    pub async fn finish(mut self, deadline: tokio::time::Instant) -> Undelivered {
        self.outbox.end_spool();
        // After a timeout or a panic of the thread, the numbers below show what was not written.
        let _ = timeout_at(deadline, &mut self.ended).await;
        self.outbox.undelivered()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.outbox.end_spool();
    }
}

/// State of the thread.
struct Worker {
    store: Store,
    outbox: Arc<Outbox>,
    retry: Duration,
    log_limiter: LogLimiter,
}

impl Worker {
    fn run(mut self) {
        let mut usable = self.open();
        let mut stops = false;
        loop {
            if !usable {
                if stops {
                    break;
                }
                // A stop ends the wait: what is in memory only would be lost with it, so it is tried once more.
                stops = !self.outbox.wait_before_reopening(self.retry);
                usable = self.open();
                if usable {
                    self.log_usable_again();
                }
                continue;
            }
            let Some(job) = self.outbox.next_job() else {
                break;
            };
            usable = self.perform(&job);
        }
        if let Err(error) = self.call_store(Store::close) {
            tracing::warn!(
                path = %self.store.path().display(),
                %error,
                "The spool could not be closed and will be checked at the next start"
            );
        }
    }

    /// Performs a job. Returns whether the spool can be used.
    fn perform(&mut self, job: &SpoolJob) -> bool {
        match self.call_store(|store| store.perform(job)) {
            Ok(done) => {
                if self.outbox.spool_done(done) {
                    self.log_usable_again();
                }
                true
            }
            Err(error) => self.not_performed(job, &error),
        }
    }

    /// Does what can be done of a job that has failed. Returns whether the spool can be used.
    fn not_performed(&mut self, job: &SpoolJob, error: &DatabaseError) -> bool {
        // At the stop nothing is read any more. What is in memory would be lost: it is sent, although older messages are on disk.
        match error.is_full_disk() && !self.outbox.is_flushing() {
            true => self.only_read(job.load, error),
            false => self.failed(error),
        }
    }

    /// Reads without writing and deleting. On a full disk only delivery makes room, and what is on disk is sent before the newer
    /// messages in memory. Returns whether the spool can be used.
    fn only_read(&mut self, load: Option<LoadRequest>, full: &DatabaseError) -> bool {
        // After a failed write the database must be opened again.
        let _ = self.call_store(Store::close);
        let job = SpoolJob {
            load,
            ..SpoolJob::default()
        };
        match self.call_store(|store| store.open().and_then(|_| store.perform(&job))) {
            Ok(done) => {
                self.log_unusable(full);
                self.outbox.spool_full(done, full);
                true
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Opens the file. Returns whether the spool can be used.
    fn open(&mut self) -> bool {
        match self.call_store(Store::open) {
            Ok(held) => {
                self.outbox.count_damaged_files(self.store.take_damaged_files());
                if held > 0 {
                    tracing::info!(messages = held, path = %self.store.path().display(), "Undelivered messages wait on disk");
                }
                self.outbox.spool_opened(held);
                self.report_set_aside();
                true
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Reports the messages of other users that still cannot be read, until the next start.
    fn report_set_aside(&self) {
        let path = self.store.path();
        let files = foreign_files::all_set_aside(path).into_iter();
        let directories = path.parent().map(foreign_files::all_set_aside).unwrap_or_default();
        if let Some(aside) = files.chain(directories).next() {
            self.outbox.spool_problem(format_args!(
                "messages of another user wait in {}: deploy again, or give it to this user with chown -R and restart",
                aside.display()
            ));
        }
    }

    /// Renames the file of another user, so that a new one can be created. Returns whether that was possible.
    fn set_aside_foreign(&mut self, error: &DatabaseError) -> bool {
        let path = self.store.path();
        let Ok(kept_as) = foreign_files::set_aside(path) else {
            return false;
        };
        tracing::error!(
            path = %path.display(),
            %error,
            kept_as = %kept_as.display(),
            advice = foreign_files::ADVICE,
            "The spool belongs to another user and was renamed; its messages wait, and a new file is created"
        );
        self.outbox.spool_opened(0);
        self.report_set_aside();
        true
    }

    /// Treats a panic of the database code as damage of the file.
    fn call_store<T>(&mut self, work: impl FnOnce(&mut Store) -> Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        let store = &mut self.store;
        database::catch_panics(|| work(store))
    }

    fn log_usable_again(&self) {
        tracing::info!(path = %self.store.path().display(), "The spool can be used again");
    }

    fn log_unusable(&mut self, error: &DatabaseError) {
        if let Some(suppressed) = self.log_limiter.check(monotonic_now(), &error.to_string()) {
            tracing::error!(
                path = %self.store.path().display(),
                %error,
                waiting = self.outbox.undelivered().in_memory,
                retry_in = ?rounded(self.retry),
                suppressed = suppressed.count(),
                "The spool cannot be used; messages wait in memory only, and the oldest are dropped when it is full"
            );
        }
    }

    /// Logs the error and renames a damaged file. Returns whether the spool can be used again, with a new file.
    fn failed(&mut self, error: &DatabaseError) -> bool {
        // Closing a damaged database may fail; it is closed in any case.
        let _ = self.call_store(Store::close);
        self.outbox.spool_failed(error);
        if error.is_foreign() && self.set_aside_foreign(error) {
            return true;
        }
        if !error.is_final() {
            self.log_unusable(error);
            return false;
        }
        let path = self.store.path().display().to_string();
        let suppressed = self.log_limiter.check(monotonic_now(), &error.to_string());
        match damaged_files::set_aside(self.store.path()) {
            Ok(kept_as) => {
                self.outbox.count_damaged_files(1);
                tracing::error!(
                    path,
                    %error,
                    kept_as = %kept_as.display(),
                    "The spool is damaged and was renamed; its messages are not delivered, and a new file is created"
                );
                self.outbox.spool_opened(0);
                true
            }
            Err(rename_error) => {
                if let Some(suppressed) = suppressed {
                    tracing::error!(
                        path,
                        %error,
                        %rename_error,
                        suppressed = suppressed.count(),
                        advice = "remove the file",
                        "The spool is damaged and cannot be renamed; messages wait in memory only, and the oldest are dropped when it is full"
                    );
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
