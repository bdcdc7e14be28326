//! The bounded queue from the inference loop to the thread of a cache. Offering a pair never blocks.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::error::CacheError;
use super::names::pair_id;

/// Capacity of the queue, in jobs.
pub(super) const QUEUE_JOBS: usize = 256;

/// Receives the outcome of a removal.
pub(super) type RemovalReply = oneshot::Sender<Result<(), CacheError>>;

/// A job for the thread. Jobs are done in the order of the queue.
pub(super) enum CacheJob<P> {
    /// Store a pair.
    Put(QueuedPair<P>),
    /// Remove every pair.
    Clear(RemovalReply),
    /// Remove one pair.
    ClearOne(Uuid, RemovalReply),
}

/// Pairs in memory: in the queue, or held by the thread.
#[derive(Debug, Default)]
struct MemoryUsage {
    pairs: AtomicUsize,
    bytes: AtomicUsize,
}

/// A pair in memory, counted until it is dropped.
pub(super) struct QueuedPair<P> {
    pair: P,
    bytes: usize,
    usage: Arc<MemoryUsage>,
}

impl<P> Deref for QueuedPair<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.pair
    }
}

impl<P> Drop for QueuedPair<P> {
    fn drop(&mut self) {
        self.usage.pairs.fetch_sub(1, Ordering::Relaxed);
        self.usage.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The sending side of the queue.
pub(super) struct CacheQueue<P> {
    /// `None` once closed.
    sender: Mutex<Option<mpsc::Sender<CacheJob<P>>>>,
    usage: Arc<MemoryUsage>,
    max_bytes: usize,
}

impl<P> CacheQueue<P> {
    /// Creates a queue and its receiver. Pairs in memory take at most `max_bytes`, except for a single larger pair.
    pub(super) fn new(max_bytes: usize) -> (Self, mpsc::Receiver<CacheJob<P>>) {
        let (sender, jobs) = mpsc::channel(QUEUE_JOBS);
        let queue = Self {
            sender: Mutex::new(Some(sender)),
            usage: Arc::default(),
            max_bytes,
        };
        (queue, jobs)
    }

    /// Offers a pair of `bytes` and returns at once.
    ///
    /// # Errors
    /// The pair was dropped: [`CacheError::Behind`] when the queue is full, [`CacheError::Stopped`] when the thread has ended.
    pub(super) fn offer(&self, pair: P, bytes: usize) -> Result<(), CacheError> {
        self.offer_within(pair, bytes, self.max_bytes)
    }

    /// Like [`Self::offer`], with another limit for the bytes of all pairs in memory.
    ///
    /// # Errors
    /// Those of [`Self::offer`].
    pub(super) fn offer_within(&self, pair: P, bytes: usize, max_bytes: usize) -> Result<(), CacheError> {
        let used = self.usage.bytes.load(Ordering::Relaxed);
        if used > 0 && used + bytes > max_bytes {
            return Err(CacheError::Behind);
        }
        let sender = self.sender.lock();
        let Some(sender) = sender.as_ref() else {
            return Err(CacheError::Stopped);
        };
        self.usage.pairs.fetch_add(1, Ordering::Relaxed);
        self.usage.bytes.fetch_add(bytes, Ordering::Relaxed);
        let usage = self.usage.clone();
        let sent = sender.try_send(CacheJob::Put(QueuedPair { pair, bytes, usage }));
        sent.map_err(|refused| match refused {
            TrySendError::Full(_) => CacheError::Behind,
            TrySendError::Closed(_) => CacheError::Stopped,
        })
    }

    /// Removes every pair, after the pairs that were offered before.
    ///
    /// # Errors
    /// The error of the removal; [`CacheError::Stopped`] when the thread has ended.
    pub(super) async fn clear(&self) -> Result<(), CacheError> {
        self.request(CacheJob::Clear).await
    }

    /// Removes one pair, after the pairs that were offered before.
    ///
    /// # Errors
    /// [`CacheError::NotAnId`] if `id` is not a UUID; the errors of [`Self::clear`].
    pub(super) async fn clear_one(&self, id: &str) -> Result<(), CacheError> {
        let id = pair_id(id).ok_or(CacheError::NotAnId)?;
        self.request(|reply| CacheJob::ClearOne(id, reply)).await
    }

    async fn request(&self, job: impl FnOnce(RemovalReply) -> CacheJob<P>) -> Result<(), CacheError> {
        let (reply, outcome) = oneshot::channel();
        let sender = self.sender.lock().clone().ok_or(CacheError::Stopped)?;
        sender.send(job(reply)).await.map_err(|_| CacheError::Stopped)?;
        // The thread ends when all senders are dropped; it must not wait for this one.
        drop(sender);
        outcome.await.unwrap_or(Err(CacheError::Stopped))
    }

    /// Closes the queue: the thread ends after the jobs in it.
    pub(super) fn close(&self) {
        self.sender.lock().take();
    }

    /// Number of pairs in memory.
    pub(super) fn pairs(&self) -> usize {
        self.usage.pairs.load(Ordering::Relaxed)
    }
}
