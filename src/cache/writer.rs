//! The thread between the reporting side and a [`Store`] that may be slow.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{oneshot, watch};

use super::names::pair_id;
use super::{CacheError, CacheItem, Store};
use crate::log_limit::RepeatGuard;
use crate::panics::{Panicked, caught};
use crate::stats::Stats;

/// Jobs that may wait.
const QUEUE: usize = 256;

/// Bytes of pairs that may wait.
const QUEUE_BYTES: usize = 16 << 20;

type Answer = oneshot::Sender<Result<(), CacheError>>;

enum Job {
    Put(CacheItem),
    Clear(Answer),
    ClearOne(uuid::Uuid, Answer),
    /// The last one: whoever asks for something after it is told that the writer has ended.
    End,
}

/// What both sides of the queue know.
struct Shared {
    stats: Arc<Stats>,
    /// Pairs waiting or being written.
    waiting: AtomicUsize,
    /// Their bytes.
    waiting_bytes: AtomicUsize,
    /// Set when stopping took too long: what still waits is given up.
    given_up: AtomicBool,
    failures: Mutex<RepeatGuard>,
}

/// Hands pairs to a store on a thread of its own. Writes and removals happen in the order in which they were asked for.
pub struct CacheWriter {
    queue: mpsc::Sender<Job>,
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
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (end, ended) = watch::channel(());
        let shared = Arc::new(Shared {
            stats,
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            given_up: AtomicBool::new(false),
            failures: Mutex::default(),
        });
        let for_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(format!("cache-{name}"))
            .spawn(move || {
                run(store, jobs, &for_thread);
                drop(end);
            })?;
        Ok(Self { queue, shared, ended })
    }

    /// Offers a pair and returns at once. `false`: it was dropped, because too much is waiting or the writer has ended;
    /// that is counted as a cache failure and said once a minute.
    pub fn offer(&self, item: CacheItem) -> bool {
        let bytes = item.size();
        let waiting = self.shared.waiting_bytes.load(Ordering::Relaxed);
        // A single pair larger than the bound may still wait alone.
        if waiting > 0 && waiting + bytes > QUEUE_BYTES {
            self.shared.failed(&CacheError::Behind);
            return false;
        }
        self.shared.waits(bytes);
        let Err(refused) = self.queue.try_send(Job::Put(item)) else {
            return true;
        };
        self.shared.done(bytes);
        self.shared.failed(match refused {
            TrySendError::Full(_) => &CacheError::Behind,
            TrySendError::Closed(_) => &CacheError::Stopped,
        });
        false
    }

    /// Removes every pair, after what was offered before. Takes as long as the store does: bound it where that matters.
    ///
    /// # Errors
    /// Those of [`Store::clear`]; [`CacheError::Stopped`] when the writer has ended.
    pub async fn clear(&self) -> Result<(), CacheError> {
        self.ask(Job::Clear).await
    }

    /// Removes one pair, after what was offered before.
    ///
    /// # Errors
    /// [`CacheError::NotAnId`] for everything but a UUID; those of [`Store::clear_one`]; [`CacheError::Stopped`].
    pub async fn clear_one(&self, id: &str) -> Result<(), CacheError> {
        let id = pair_id(id).ok_or(CacheError::NotAnId)?;
        self.ask(|answer| Job::ClearOne(id, answer)).await
    }

    /// Writes what is waiting, for at most `limit`. `false`: time ran out; what still waits is given up, counted and
    /// said. It ends whoever else still holds it.
    pub async fn stop(&self, limit: Duration) -> bool {
        let ended = async {
            // Errors mean that the thread has ended already. It sends nothing: `changed` returns when it is gone.
            let _ = self.queue.send(Job::End).await;
            let _ = self.ended.clone().changed().await;
        };
        if tokio::time::timeout(limit, ended).await.is_ok() {
            return true;
        }
        self.shared.given_up.store(true, Ordering::Relaxed);
        let left = self.shared.waiting.load(Ordering::Relaxed);
        self.shared.stats.cache_failures.add(left as u64);
        tracing::error!(
            "{left} pairs of picture and message were not cached: the cache took longer than {limit:?} to stop"
        );
        false
    }

    async fn ask(&self, job: impl FnOnce(Answer) -> Job) -> Result<(), CacheError> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(job(answer)).await.map_err(|_| CacheError::Stopped)?;
        answered.await.unwrap_or(Err(CacheError::Stopped))
    }
}

impl Shared {
    fn waits(&self, bytes: usize) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn done(&self, bytes: usize) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts a pair that was not kept.
    fn failed(&self, error: &CacheError) {
        self.stats.cache_failures.inc();
        self.say(error);
    }

    fn say(&self, error: &CacheError) {
        match self.failures.lock().check(Instant::now(), &error.kind()) {
            Some(0) => tracing::error!("a pair of picture and message was not cached: {error}"),
            Some(more) => {
                tracing::error!("a pair of picture and message was not cached, like {more} before it: {error}")
            }
            None => {}
        }
    }
}

/// The thread: one job after the other until the end is asked for, or the last sender is gone.
fn run(mut store: impl Store, mut jobs: mpsc::Receiver<Job>, shared: &Shared) {
    if let Err(error) = guarded(&mut store, |store| store.open(Instant::now())) {
        // Nothing is lost yet; the pairs that will be are counted and said as they come.
        tracing::error!("the cache is not ready: {error}");
    }
    while let Some(job) = jobs.blocking_recv() {
        // Whoever asked may have gone: nobody needs the answer then.
        match job {
            Job::Put(_) if shared.given_up.load(Ordering::Relaxed) => {}
            Job::Put(item) => {
                match guarded(&mut store, |store| store.put(&item, Instant::now())) {
                    Ok(()) => shared.stats.cache_writes.inc(),
                    Err(error) => shared.failed(&error),
                }
                shared.done(item.size());
            }
            Job::Clear(answer) => {
                let _ = answer.send(guarded(&mut store, Store::clear));
            }
            Job::ClearOne(id, answer) => {
                let _ = answer.send(guarded(&mut store, |store| store.clear_one(id)));
            }
            Job::End => break,
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
