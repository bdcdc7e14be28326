//! The thread between the reporting side and a [`Store`] that may be slow.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::requests::{Job, Requests};
use super::{CacheError, CacheItem, Store};
use crate::status::health::HealthFlag;
use crate::status::stats::Stats;
use crate::util::log_limiter::LogLimiter;
use crate::util::panics::{Panicked, caught};

/// Bytes of pairs that may wait.
const QUEUE_BYTES: usize = 16 << 20;

/// What both sides of the queue know.
struct Shared {
    stats: Arc<Stats>,
    /// Set when stopping took too long: what still waits is given up.
    given_up: AtomicBool,
    failures: Mutex<LogLimiter>,
    flag: HealthFlag,
}

/// Hands pairs to a store on a thread of its own. Writes and removals happen in the order in which they were asked for.
pub struct CacheWriter {
    requests: Requests<CacheItem>,
    shared: Arc<Shared>,
    /// Closed when the thread has ended.
    ended: watch::Receiver<()>,
}

impl CacheWriter {
    /// Starts the thread; `name` is the store's in the log (`file`, `s3`). It opens the store first.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(name: &'static str, store: impl Store, stats: Arc<Stats>) -> io::Result<Self> {
        let (requests, jobs) = Requests::new(QUEUE_BYTES);
        let (end, ended) = watch::channel(());
        let shared = Arc::new(Shared {
            stats,
            given_up: AtomicBool::new(false),
            failures: Mutex::default(),
            flag: HealthFlag::default(),
        });
        let for_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(format!("cache-{name}"))
            .spawn(move || {
                run(store, jobs, &for_thread);
                drop(end);
            })?;
        Ok(Self {
            requests,
            shared,
            ended,
        })
    }

    /// Offers a pair and returns at once. `false`: it was dropped, because too much is waiting or the writer has ended;
    /// that is counted as a cache failure and said once a minute.
    pub fn offer(&self, item: CacheItem) -> bool {
        let bytes = item.size();
        let offered = self.requests.offer(item, bytes);
        offered.inspect_err(|error| self.shared.failed(error)).is_ok()
    }

    /// Whether the store takes what it is given.
    pub fn flag(&self) -> HealthFlag {
        self.shared.flag.clone()
    }

    /// Removes every pair, after what was offered before. Takes as long as the store does: bound it where that matters.
    ///
    /// # Errors
    /// Those of [`Store::clear`]; [`CacheError::Stopped`] when the writer has ended.
    pub async fn clear(&self) -> Result<(), CacheError> {
        self.requests.clear().await
    }

    /// Removes one pair, after what was offered before.
    ///
    /// # Errors
    /// [`CacheError::NotAnId`] for everything but a UUID; those of [`Store::clear_one`]; [`CacheError::Stopped`].
    pub async fn clear_one(&self, id: &str) -> Result<(), CacheError> {
        self.requests.clear_one(id).await
    }

    /// Writes what is waiting, for at most `limit`. `false`: time ran out; what still waits is given up, counted and
    /// said. It ends whoever else still holds it.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.requests.close();
        let mut ended = self.ended.clone();
        // The thread sends nothing: this resolves, with an error, when it is gone.
        if tokio::time::timeout(limit, ended.changed()).await.is_ok() {
            return true;
        }
        self.shared.given_up.store(true, Ordering::Relaxed);
        let left = self.requests.room().pairs();
        self.shared.stats.cache_failures.add(left as u64);
        tracing::error!(
            "{left} pairs of picture and message were not cached: the cache took longer than {limit:?} to stop"
        );
        false
    }
}

impl Shared {
    /// Counts a pair that was not kept.
    fn failed(&self, error: &CacheError) {
        self.stats.cache_failures.inc();
        self.flag.set_failing(error);
        self.say(error);
    }

    fn say(&self, error: &CacheError) {
        if let Some(suppressed) = self.failures.lock().check(Instant::now(), &error.kind()) {
            tracing::error!(suppressed = suppressed.count(), %error, "A pair of picture and message was not cached");
        }
    }
}

/// The thread: one job after the other until nobody can ask for more.
fn run(mut store: impl Store, mut jobs: mpsc::Receiver<Job<CacheItem>>, shared: &Shared) {
    if let Err(error) = guarded(&mut store, |store| store.open(Instant::now())) {
        // Nothing is lost yet; the pairs that will be are counted and said as they come.
        tracing::error!("the cache is not ready: {error}");
        shared.flag.set_failing(error);
    }
    while let Some(job) = jobs.blocking_recv() {
        // Whoever asked may have gone: nobody needs the answer then.
        match job {
            Job::Put(_) if shared.given_up.load(Ordering::Relaxed) => {}
            Job::Put(item) => match guarded(&mut store, |store| store.put(&item, Instant::now())) {
                Ok(()) => {
                    shared.stats.cache_writes.inc();
                    shared.flag.set_ok();
                }
                Err(error) => shared.failed(&error),
            },
            Job::Clear(answer) => {
                let _ = answer.send(guarded(&mut store, Store::clear));
            }
            Job::ClearOne(id, answer) => {
                let _ = answer.send(guarded(&mut store, |store| store.clear_one(id)));
            }
        }
    }
}

/// A panic costs the pair at hand; the store looks at what is there before it goes on.
fn guarded<S: Store, T>(store: &mut S, work: impl FnOnce(&mut S) -> Result<T, CacheError>) -> Result<T, CacheError> {
    caught(|| work(store)).unwrap_or_else(|panicked: Panicked| {
        // What that says is said again with the next pair.
        let _ = caught(|| store.open(Instant::now()));
        Err(panicked.into())
    })
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
