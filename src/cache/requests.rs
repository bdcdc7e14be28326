//! The asking side of a cache: a bounded queue to its thread that never holds up whoever offers a pair.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::CacheError;
use super::names::pair_id;

/// Jobs that may wait.
pub(super) const QUEUE: usize = 256;

/// Where the outcome of a removal goes.
pub(super) type Answer = oneshot::Sender<Result<(), CacheError>>;

/// What the thread is to do, in this order.
pub(super) enum Job<P> {
    /// Keep a pair.
    Put(Waiting<P>),
    /// Remove every pair.
    Clear(Answer),
    /// Remove one pair.
    ClearOne(Uuid, Answer),
}

/// Pairs in memory: in the queue, or in the hands of the thread.
#[derive(Debug, Default)]
pub(super) struct Room {
    pairs: AtomicUsize,
    bytes: AtomicUsize,
}

impl Room {
    /// How many pairs are in memory.
    pub(super) fn pairs(&self) -> usize {
        self.pairs.load(Ordering::Relaxed)
    }
}

/// A pair in memory, which counts as such until it is dropped.
pub(super) struct Waiting<P> {
    pair: P,
    bytes: usize,
    room: Arc<Room>,
}

impl<P> Deref for Waiting<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.pair
    }
}

impl<P> Drop for Waiting<P> {
    fn drop(&mut self) {
        self.room.pairs.fetch_sub(1, Ordering::Relaxed);
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The queue's end at the side that asks.
pub(super) struct Requests<P> {
    /// `None` once closed.
    queue: Mutex<Option<mpsc::Sender<Job<P>>>>,
    room: Arc<Room>,
    most_bytes: usize,
}

impl<P> Requests<P> {
    /// A queue, and its end at the thread's side. Pairs in memory take at most `most_bytes`, or it is only one.
    pub(super) fn new(most_bytes: usize) -> (Self, mpsc::Receiver<Job<P>>) {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let requests = Self {
            queue: Mutex::new(Some(queue)),
            room: Arc::default(),
            most_bytes,
        };
        (requests, jobs)
    }

    /// Offers a pair of that size and returns at once.
    ///
    /// # Errors
    /// It was dropped: [`CacheError::Behind`] when too much is waiting, [`CacheError::Stopped`] when the thread has ended.
    pub(super) fn offer(&self, pair: P, bytes: usize) -> Result<(), CacheError> {
        let waiting = self.room.bytes.load(Ordering::Relaxed);
        // A single pair larger than the bound may still wait alone.
        if waiting > 0 && waiting + bytes > self.most_bytes {
            return Err(CacheError::Behind);
        }
        let queue = self.queue.lock();
        let Some(queue) = queue.as_ref() else {
            return Err(CacheError::Stopped);
        };
        self.room.pairs.fetch_add(1, Ordering::Relaxed);
        self.room.bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = self.room.clone();
        let refused = queue.try_send(Job::Put(Waiting { pair, bytes, room }));
        refused.map_err(|refused| match refused {
            TrySendError::Full(_) => CacheError::Behind,
            TrySendError::Closed(_) => CacheError::Stopped,
        })
    }

    /// Removes every pair, after what was offered before.
    ///
    /// # Errors
    /// The thread's own; [`CacheError::Stopped`] when it has ended.
    pub(super) async fn clear(&self) -> Result<(), CacheError> {
        self.ask(Job::Clear).await
    }

    /// Removes one pair, after what was offered before.
    ///
    /// # Errors
    /// [`CacheError::NotAnId`] for everything but a UUID; those of [`Self::clear`].
    pub(super) async fn clear_one(&self, id: &str) -> Result<(), CacheError> {
        let id = pair_id(id).ok_or(CacheError::NotAnId)?;
        self.ask(|answer| Job::ClearOne(id, answer)).await
    }

    async fn ask(&self, job: impl FnOnce(Answer) -> Job<P>) -> Result<(), CacheError> {
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.lock().clone().ok_or(CacheError::Stopped)?;
        queue.send(job(answer)).await.map_err(|_| CacheError::Stopped)?;
        drop(queue);
        answered.await.unwrap_or(Err(CacheError::Stopped))
    }

    /// Nothing more can be asked for: the thread's side ends after what it was asked so far.
    pub(super) fn close(&self) {
        self.queue.lock().take();
    }

    /// What is in memory.
    pub(super) fn room(&self) -> &Arc<Room> {
        &self.room
    }
}
