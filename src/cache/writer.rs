//! Passes pairs from the inference loop to a [`PairStore`], which may be slow, on its own thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::error::CacheError;
use super::item::CacheItem;
use super::queue::{CacheJob, CacheQueue};
use super::store::PairStore;
use crate::status::health::HealthFlag;
use crate::status::stats::Stats;
use crate::util::clock::rounded;
use crate::util::log_limiter::LogLimiter;
use crate::util::panics::catch_panic;

/// Most bytes of pairs that wait in memory.
const QUEUE_BYTES: usize = 16 << 20;

/// Shared by the handle and the thread.
struct WriterStatus {
    stats: Arc<Stats>,
    /// Set when the stop takes too long: the waiting pairs are dropped.
    is_aborted: AtomicBool,
    failures: Mutex<LogLimiter>,
    flag: HealthFlag,
}

/// Passes pairs to a store on its own thread. Writes and removals happen in the order of the calls.
pub struct CacheWriter {
    queue: CacheQueue<CacheItem>,
    status: Arc<WriterStatus>,
    /// Closed when the thread has ended.
    ended: watch::Receiver<()>,
}

impl CacheWriter {
    /// Starts the thread, which opens the store first. `name` becomes part of the thread's name.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(name: &'static str, store: impl PairStore, stats: Arc<Stats>) -> io::Result<Self> {
        let (queue, jobs) = CacheQueue::new(QUEUE_BYTES);
        let (end, ended) = watch::channel(());
        let status = Arc::new(WriterStatus {
            stats,
            is_aborted: AtomicBool::new(false),
            failures: Mutex::default(),
            flag: HealthFlag::default(),
        });
        let thread_status = Arc::clone(&status);
        std::thread::Builder::new()
            .name(format!("cache-{name}"))
            .spawn(move || {
                run(store, jobs, &thread_status);
                drop(end);
            })?;
        Ok(Self { queue, status, ended })
    }

    /// Offers a pair and returns at once. Returns `false` if it was dropped because the queue is full or the writer has ended.
    /// A dropped pair is counted as a cache failure and logged once a minute.
    pub fn offer(&self, item: CacheItem) -> bool {
        let bytes = item.size();
        let offered = self.queue.offer(item, bytes);
        offered.inspect_err(|error| self.status.lost(error)).is_ok()
    }

    /// The health of the cache: whether the store accepted the last pair.
    pub fn flag(&self) -> HealthFlag {
        self.status.flag.clone()
    }

    /// Removes every pair, after the pairs that were offered before. There is no time limit.
    ///
    /// # Errors
    /// The errors of [`PairStore::clear`]; [`CacheError::Stopped`] when the writer has ended.
    pub async fn clear(&self) -> Result<(), CacheError> {
        self.queue.clear().await
    }

    /// Removes one pair, after the pairs that were offered before.
    ///
    /// # Errors
    /// [`CacheError::NotAnId`] if `id` is not a UUID; the errors of [`PairStore::clear_one`]; [`CacheError::Stopped`].
    pub async fn clear_one(&self, id: &str) -> Result<(), CacheError> {
        self.queue.clear_one(id).await
    }

    /// Writes the waiting pairs for at most `limit`, and ends the thread. Returns `false` if that took too long. The pairs that
    /// still wait then are dropped, counted and logged.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.queue.close();
        let mut ended = self.ended.clone();
        // The thread sends no value: this resolves with an error when the thread has ended.
        if tokio::time::timeout(limit, ended.changed()).await.is_ok() {
            return true;
        }
        self.status.is_aborted.store(true, Ordering::Relaxed);
        let pairs = self.queue.pairs();
        self.status.stats.cache_failures.add(pairs as u64);
        tracing::error!(
            pairs,
            limit = ?rounded(limit),
            "Lost pairs of picture and message: the cache took too long to stop"
        );
        false
    }
}

impl WriterStatus {
    /// Counts and logs a pair that was not stored.
    fn lost(&self, error: &CacheError) {
        self.stats.cache_failures.inc();
        self.flag.set_failing(error);
        if let Some(suppressed) = self.failures.lock().check(Instant::now(), &error.kind()) {
            tracing::error!(suppressed = suppressed.count(), %error, "A pair of picture and message was not cached");
        }
    }
}

/// Runs on the thread: does one job after the other until the queue is closed.
fn run(mut store: impl PairStore, mut jobs: mpsc::Receiver<CacheJob<CacheItem>>, status: &WriterStatus) {
    if let Err(error) = call_store(&mut store, |store| store.open(Instant::now())) {
        // Nothing is lost yet. Pairs that cannot be stored later are counted and logged then.
        tracing::error!(%error, "The cache is not ready");
        status.flag.set_failing(error);
    }
    while let Some(job) = jobs.blocking_recv() {
        // Sending a reply fails if the caller has stopped waiting.
        match job {
            CacheJob::Put(_) if status.is_aborted.load(Ordering::Relaxed) => {}
            CacheJob::Put(item) => match call_store(&mut store, |store| store.put(&item, Instant::now())) {
                Ok(()) => {
                    status.stats.cache_writes.inc();
                    status.flag.set_ok();
                }
                Err(error) => status.lost(&error),
            },
            CacheJob::Clear(reply) => {
                let _ = reply.send(call_store(&mut store, PairStore::clear));
            }
            CacheJob::ClearOne(id, reply) => {
                let _ = reply.send(call_store(&mut store, |store| store.clear_one(id)));
            }
        }
    }
}

/// Calls `work`. After a panic the current pair is lost, and the store is opened again so that it reads what it contains.
fn call_store<S: PairStore, T>(
    store: &mut S,
    work: impl FnOnce(&mut S) -> Result<T, CacheError>,
) -> Result<T, CacheError> {
    catch_panic(|| work(store)).unwrap_or_else(|panicked| {
        // If this fails, the next pair reports it.
        let _ = catch_panic(|| store.open(Instant::now()));
        Err(panicked.into())
    })
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
