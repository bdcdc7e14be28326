//! The thread between the inference side and a [`PairStore`] that may be slow.

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
use crate::util::panics::caught;

/// Bytes of pairs that wait in memory.
const QUEUE_BYTES: usize = 16 << 20;

/// Shared by the handle and the thread.
struct WriterStatus {
    stats: Arc<Stats>,
    /// Set when stopping takes too long: the pairs that still wait are dropped.
    is_aborted: AtomicBool,
    failures: Mutex<LogLimiter>,
    flag: HealthFlag,
}

/// Hands pairs to a store on a thread of its own. Writes and removals happen in the order of the calls.
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
    /// When the system cannot start a thread.
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

    /// Offers a pair and returns at once. `false`: it was dropped, because the queue is full or the writer has ended; this is
    /// counted as a cache failure and logged once a minute.
    pub fn offer(&self, item: CacheItem) -> bool {
        let bytes = item.size();
        let offered = self.queue.offer(item, bytes);
        offered.inspect_err(|error| self.status.lost(error)).is_ok()
    }

    /// Whether the store accepts pairs.
    pub fn flag(&self) -> HealthFlag {
        self.status.flag.clone()
    }

    /// Removes every pair, after the pairs that were offered before. There is no time limit.
    ///
    /// # Errors
    /// Those of [`PairStore::clear`]; [`CacheError::Stopped`] when the writer has ended.
    pub async fn clear(&self) -> Result<(), CacheError> {
        self.queue.clear().await
    }

    /// Removes one pair, after the pairs that were offered before.
    ///
    /// # Errors
    /// [`CacheError::NotAnId`] for everything but a UUID; those of [`PairStore::clear_one`]; [`CacheError::Stopped`].
    pub async fn clear_one(&self, id: &str) -> Result<(), CacheError> {
        self.queue.clear_one(id).await
    }

    /// Writes the pairs that wait, for at most `limit`, and ends the thread. `false`: time ran out; the pairs that still wait
    /// are dropped, counted and logged.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.queue.close();
        let mut ended = self.ended.clone();
        // The thread sends nothing: this resolves, with an error, when it has ended.
        if tokio::time::timeout(limit, ended.changed()).await.is_ok() {
            return true;
        }
        self.status.is_aborted.store(true, Ordering::Relaxed);
        let pairs = self.queue.pairs();
        self.status.stats.cache_failures.add(pairs as u64);
        tracing::error!(
            pairs,
            limit = ?rounded(limit),
            "Pairs of picture and message were not cached: the cache took too long to stop"
        );
        false
    }
}

impl WriterStatus {
    /// Counts and logs a pair that was not kept.
    fn lost(&self, error: &CacheError) {
        self.stats.cache_failures.inc();
        self.flag.set_failing(error);
        if let Some(suppressed) = self.failures.lock().check(Instant::now(), &error.kind()) {
            tracing::error!(suppressed = suppressed.count(), %error, "A pair of picture and message was not cached");
        }
    }
}

/// The thread: does one job after the other until the queue is closed.
fn run(mut store: impl PairStore, mut jobs: mpsc::Receiver<CacheJob<CacheItem>>, status: &WriterStatus) {
    if let Err(error) = guarded(&mut store, |store| store.open(Instant::now())) {
        // Nothing is lost yet; each pair that will be is counted and logged then.
        tracing::error!(%error, "The cache is not ready");
        status.flag.set_failing(error);
    }
    while let Some(job) = jobs.blocking_recv() {
        // A reply that cannot be sent is not needed: the caller has gone.
        match job {
            CacheJob::Put(_) if status.is_aborted.load(Ordering::Relaxed) => {}
            CacheJob::Put(item) => match guarded(&mut store, |store| store.put(&item, Instant::now())) {
                Ok(()) => {
                    status.stats.cache_writes.inc();
                    status.flag.set_ok();
                }
                Err(error) => status.lost(&error),
            },
            CacheJob::Clear(reply) => {
                let _ = reply.send(guarded(&mut store, PairStore::clear));
            }
            CacheJob::ClearOne(id, reply) => {
                let _ = reply.send(guarded(&mut store, |store| store.clear_one(id)));
            }
        }
    }
}

/// A panic costs the pair at hand; the store is opened again, so that it finds out what it holds.
fn guarded<S: PairStore, T>(
    store: &mut S,
    work: impl FnOnce(&mut S) -> Result<T, CacheError>,
) -> Result<T, CacheError> {
    caught(|| work(store)).unwrap_or_else(|panicked| {
        // A failure shows again with the next pair.
        let _ = caught(|| store.open(Instant::now()));
        Err(panicked.into())
    })
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
