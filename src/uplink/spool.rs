//! Keeps undelivered inferences on disk, so that they survive an outage, a stop and a crash.
//!
//! A thread takes jobs (write, delete, read) from the [`Outbox`] and performs them in the [`store`], so neither the inference
//! loop nor the runtime ever waits for the disk. A spool that cannot be used is logged and never fatal: the outbox continues
//! in memory.

mod store;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::outbox::{Outbox, Rest, SpoolPolicy};
use crate::util::clock::rounded;
use crate::util::database::{self, DatabaseError};
use crate::util::log_limiter::LogLimiter;
use store::Store;

/// Where the spool is and how it is used.
#[derive(Debug, Clone)]
pub struct SpoolSettings {
    /// The file; its directory is made when it is needed. It exists only while it holds messages.
    pub path: PathBuf,
    /// Most payload bytes on disk; beyond it the oldest are dropped. The file takes up to four times as much and 4 MiB, because
    /// it grows by doubling and a large payload fills whole pages.
    pub max_bytes: u64,
    /// Times; the default is right outside tests.
    pub policy: SpoolPolicy,
}

/// The running spool. When dropped it ends as soon as everything is written.
#[derive(Debug)]
pub struct Spool {
    outbox: Arc<Outbox>,
    ended: oneshot::Receiver<()>,
}

impl Spool {
    /// Starts the thread that writes what `outbox` cannot deliver. Messages of an earlier run are sent first.
    ///
    /// # Errors
    /// The system gives no thread; then the outbox works in memory alone.
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
            outbox.spool_failed(format_args!("the system gives no thread for it: {error}"));
            return Err(error);
        }
        Ok(Self { outbox, ended })
    }

    /// Writes the undelivered messages to disk for the next start, and returns what is left. Returns by `deadline`.
    pub async fn finish(mut self, deadline: tokio::time::Instant) -> Rest {
        self.outbox.end_spool();
        // Err: out of time, or the thread is gone; both show in what is left.
        let _ = timeout_at(deadline, &mut self.ended).await;
        self.outbox.rest()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.outbox.end_spool();
    }
}

/// The thread.
struct Worker {
    store: Store,
    outbox: Arc<Outbox>,
    retry: Duration,
    log_limiter: LogLimiter,
}

impl Worker {
    fn run(mut self) {
        let mut usable = self.open();
        loop {
            if !usable {
                if !self.outbox.wait_before_reopening(self.retry) {
                    break;
                }
                usable = self.open();
                if usable {
                    tracing::info!(path = %self.store.path().display(), "The spool can be used again");
                }
                continue;
            }
            let Some(job) = self.outbox.next_job() else {
                break;
            };
            match self.guarded(|store| store.perform(&job)) {
                Ok(done) => self.outbox.spool_done(done),
                Err(error) => usable = self.failed(&error),
            }
        }
        if let Err(error) = self.guarded(Store::close) {
            tracing::warn!(
                path = %self.store.path().display(),
                %error,
                "The spool was not closed in order and will be checked at the next start"
            );
        }
    }

    /// Whether the spool can be used.
    fn open(&mut self) -> bool {
        match self.guarded(Store::open) {
            Ok(held) => {
                if held > 0 {
                    tracing::info!(messages = held, path = %self.store.path().display(), "Undelivered messages wait on disk");
                }
                self.outbox.spool_opened(held);
                true
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Treats a panic of the database code as damage of the file.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Store) -> Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        let store = &mut self.store;
        catch_unwind(AssertUnwindSafe(|| work(store))).unwrap_or_else(|_| {
            Err(DatabaseError::Damaged(
                "the database code panicked on it, see the log".to_owned(),
            ))
        })
    }

    /// Logs the error and renames a file that is damaged. Returns whether a new one can be begun.
    fn failed(&mut self, error: &DatabaseError) -> bool {
        // Closing a damaged database may fail; it is closed in any case.
        let _ = self.guarded(Store::close);
        self.outbox.spool_failed(error);
        let path = self.store.path().display().to_string();
        let suppressed = self.log_limiter.check(Instant::now(), &error.to_string());
        if !error.is_final() {
            if let Some(suppressed) = suppressed {
                tracing::error!(
                    path,
                    %error,
                    waiting = self.outbox.rest().in_memory,
                    retry_in = ?rounded(self.retry),
                    suppressed = suppressed.count(),
                    "The spool cannot be used; messages wait in memory alone, which drops the oldest when it is full"
                );
            }
            return false;
        }
        match database::set_aside(self.store.path()) {
            Ok(kept_as) => {
                tracing::error!(
                    path,
                    %error,
                    kept_as = %kept_as.display(),
                    "The spool is damaged and was renamed; the messages in it are not delivered, and a new one begins"
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
                        "The spool is damaged and cannot be renamed; messages wait in memory alone, which drops the oldest when it is full"
                    );
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
