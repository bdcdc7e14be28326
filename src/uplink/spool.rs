//! The disk behind the outbox: undelivered inferences survive an outage, a stop and a crash.
//!
//! A thread of its own takes jobs from the [`Outbox`] (what to write, delete, read) and does them in the [`store`]. So neither
//! the inference loop nor the runtime ever waits for the disk. A spool that cannot be used is reported and never fatal: the
//! outbox goes on in memory.

mod store;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::message::Message;
use super::outbox::{Outbox, Rest, Token};
use crate::util::database::{self, DatabaseError};
use crate::util::log_limiter::{LogLimiter, like};
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
    pub policy: Policy,
}

/// When messages go to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// No connection for so long: undelivered messages are written. A shorter interruption costs no write. Default 2 s.
    pub grace: Duration,
    /// From then on, messages of so much time share one commit ... Default 200 ms.
    pub group_interval: Duration,
    /// ... or so many messages, if they come sooner. Default 100.
    pub group_messages: usize,
    /// After a failure the file is tried again after so much time. Default 5 s.
    pub retry: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(2),
            group_interval: Duration::from_millis(200),
            group_messages: 100,
            retry: Duration::from_secs(5),
        }
    }
}

/// What is to be done on disk, in this order.
#[derive(Debug, Default)]
pub(super) struct Job {
    /// Delivered: no longer needed.
    pub delete: Vec<Token>,
    /// To be kept.
    pub write: Vec<(Token, Message)>,
    /// To be read.
    pub load: Option<Load>,
}

/// A request to read the oldest messages from `from` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub from: Token,
    /// At most so many.
    pub messages: usize,
    /// No more once so many payload bytes were read.
    pub bytes: usize,
}

/// What came of a job.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// The oldest, which had to make room.
    pub dropped: Vec<Token>,
    /// What was read, if something was to be.
    pub loaded: Option<Loaded>,
    /// Messages on disk now.
    pub held: u64,
}

/// Messages read from disk.
#[derive(Debug)]
pub(super) struct Loaded {
    /// In order.
    pub messages: Vec<(Token, Message)>,
    /// Where to go on; `None`: that was all.
    pub next: Option<Token>,
}

/// The running spool. When dropped it ends as soon as everything is written.
#[derive(Debug)]
pub struct Spool {
    outbox: Arc<Outbox>,
    ended: oneshot::Receiver<()>,
}

impl Spool {
    /// Starts the thread that puts what `outbox` cannot deliver into the file. What an earlier run left there is sent first.
    ///
    /// # Errors
    /// The system gives no thread; then the outbox works in memory alone.
    pub fn start(settings: SpoolSettings, outbox: Arc<Outbox>) -> std::io::Result<Self> {
        let (sender, ended) = oneshot::channel();
        let worker = Worker {
            store: Store::new(settings.path, settings.max_bytes),
            outbox: Arc::clone(&outbox),
            retry: settings.policy.retry,
            said: LogLimiter::default(),
        };
        let thread = std::thread::Builder::new().name("spool".to_owned());
        // Before the thread: whoever pushes after this call must find the spool attached.
        outbox.attach_spool(settings.policy);
        let spawned = thread.spawn(move || {
            worker.run();
            // Nobody listens when the spool was dropped.
            let _ = sender.send(());
        });
        if let Err(error) = spawned {
            outbox.spool_failed(format_args!("the system gives no thread for it: {error}"));
            return Err(error);
        }
        Ok(Self { outbox, ended })
    }

    /// Puts on disk what was not delivered, for the next start, and tells what is left. Returns by `deadline`.
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
    said: LogLimiter,
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
                    tracing::info!("The spool {} can be used again", self.store.path().display());
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
                "The spool {} was not closed in order and will be checked at the next start: {error}",
                self.store.path().display()
            );
        }
    }

    /// Whether the spool can be used.
    fn open(&mut self) -> bool {
        match self.guarded(Store::open) {
            Ok(held) => {
                if held > 0 {
                    tracing::info!(
                        "{held} undelivered messages wait on disk in {}",
                        self.store.path().display()
                    );
                }
                self.outbox.spool_opened(held);
                true
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Damage that the store meets as a panic is damage all the same.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Store) -> Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        let store = &mut self.store;
        catch_unwind(AssertUnwindSafe(|| work(store))).unwrap_or_else(|_| {
            Err(DatabaseError::Damaged(
                "the database code panicked on it, see the log".to_owned(),
            ))
        })
    }

    /// Reports, puts a file that is beyond use aside, and says whether a new one can be begun.
    fn failed(&mut self, error: &DatabaseError) -> bool {
        // Closing a broken database fails as it pleases; it is gone afterwards.
        let _ = self.guarded(Store::close);
        self.outbox.spool_failed(error);
        let path = self.store.path().display().to_string();
        let kept_back = self.said.check(Instant::now(), &error.to_string());
        if !error.is_final() {
            if let Some(kept_back) = kept_back {
                tracing::error!(
                    "The spool {path} cannot be used: {error}{}. {} messages wait in memory alone, which drops the oldest \
                     when it is full; the spool is tried again every {:.0} s",
                    like(kept_back),
                    self.outbox.rest().in_memory,
                    self.retry.as_secs_f32()
                );
            }
            return false;
        }
        match database::set_aside(self.store.path()) {
            Ok(aside) => {
                tracing::error!(
                    "The spool {path} is of no use: {error}. It is kept as {}, the messages in it are not delivered, and a new \
                     one is begun",
                    aside.display()
                );
                self.outbox.spool_opened(0);
                true
            }
            Err(cause) => {
                if kept_back.is_some() {
                    tracing::error!(
                        "The spool {path} is of no use: {error}; and it cannot be renamed: {cause}. Messages wait in memory \
                         alone, which drops the oldest when it is full. Remove the file"
                    );
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
