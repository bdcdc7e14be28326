//! The handle and the thread that write clips.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::store::{ClipDirectory, ClipFiles, ClipStore};
use crate::cache::error::CacheError;
use crate::cache::queue::{CacheJob, CacheQueue};
use crate::cache::s3::S3Cache;
use crate::cache::s3_location::S3Location;
use crate::capture::{FinishedClip, Haste};
use crate::status::health::HealthFlag;
use crate::status::stats::Stats;
use crate::util::clock::rounded;
use crate::util::log_limiter::LogLimiter;
use crate::util::panics::catch_panic;

/// Most bytes of clips that wait to be written.
const QUEUE_BYTES: usize = 96 << 20;
/// How long a clip waits until the S3 cache has room for it.
const UPLOAD_WAIT: Duration = Duration::from_secs(60);
/// How often that is tried.
const UPLOAD_RETRY: Duration = Duration::from_millis(200);

/// Shared by the handle and the thread.
struct ClipStatus {
    stats: Arc<Stats>,
    flag: HealthFlag,
    haste: Haste,
    /// Closed when the component stops.
    stopping: watch::Sender<bool>,
    /// Where the next clips go in S3; `None`: the cache is off, or no model has run.
    upload: Mutex<Option<(Arc<S3Cache>, S3Location)>>,
    failures: Mutex<LogLimiter>,
}

/// Writes clips on its own thread, in the order of the calls.
pub(super) struct ClipCache {
    queue: CacheQueue<FinishedClip>,
    status: Arc<ClipStatus>,
    /// Closed when the thread has ended.
    ended: watch::Receiver<()>,
}

impl ClipCache {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(directory: ClipDirectory, stats: Arc<Stats>) -> io::Result<Self> {
        Self::with_store(ClipFiles::new(directory), stats, QUEUE_BYTES)
    }

    fn with_store(store: impl ClipStore, stats: Arc<Stats>, queue_bytes: usize) -> io::Result<Self> {
        let (queue, jobs) = CacheQueue::new(queue_bytes);
        let (end, ended) = watch::channel(());
        let status = Arc::new(ClipStatus {
            stats,
            flag: HealthFlag::default(),
            haste: Haste::default(),
            stopping: watch::Sender::new(false),
            upload: Mutex::default(),
            failures: Mutex::default(),
        });
        let thread_status = Arc::clone(&status);
        std::thread::Builder::new().name("cache-clips".into()).spawn(move || {
            run(store, jobs, &thread_status);
            drop(end);
        })?;
        Ok(Self { queue, status, ended })
    }

    /// The health of the clips: whether the last one was written.
    pub fn flag(&self) -> HealthFlag {
        self.status.flag.clone()
    }

    /// Sets where later clips go in S3.
    pub fn set_upload(&self, upload: Option<(Arc<S3Cache>, S3Location)>) {
        *self.status.upload.lock() = upload;
    }

    /// Offers a clip and returns at once. A clip that is dropped, because the disk is too slow, is counted and logged once a minute.
    pub fn offer(&self, clip: FinishedClip) {
        let bytes = clip.size();
        if let Err(error) = self.queue.offer(clip, bytes) {
            self.status.lost(&error);
        }
    }

    /// Removes every clip, after the clips that were offered before.
    ///
    /// # Errors
    /// A clip is left, or the thread has ended ([`CacheError::Stopped`]).
    pub async fn clear(&self) -> Result<(), CacheError> {
        self.queue.clear().await
    }

    /// Removes one clip, after the clips that were offered before.
    ///
    /// # Errors
    /// [`CacheError::NotAnId`] if `id` is not a UUID; [`CacheError::NoSuchPair`]; the errors of [`Self::clear`].
    pub async fn clear_one(&self, id: &str) -> Result<(), CacheError> {
        self.queue.clear_one(id).await
    }

    /// Writes the waiting clips, as fast as possible and for at most `limit`, and ends the thread. Returns `false` if that took
    /// too long. The clips that still wait then are lost, counted and logged.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.status.haste.begin();
        self.status.stopping.send_replace(true);
        self.queue.close();
        let mut ended = self.ended.clone();
        // The thread sends no value: this resolves with an error when the thread has ended.
        if tokio::time::timeout(limit, ended.changed()).await.is_ok() {
            return true;
        }
        let clips = self.queue.pairs();
        self.status.stats.clips_failed.add(clips as u64);
        tracing::error!(clips, limit = ?rounded(limit), "Lost clips of events: writing them took too long");
        false
    }
}

impl ClipStatus {
    /// Counts and logs a clip that was not written.
    fn lost(&self, error: &CacheError) {
        self.stats.clips_failed.inc();
        self.flag.set_failing(error);
        if let Some(suppressed) = self.failures.lock().check(Instant::now(), &error.kind()) {
            tracing::error!(suppressed = suppressed.count(), %error, "The clip of an event was not written");
        }
    }
}

/// Runs on the thread: does one job after the other until the queue is closed.
fn run(mut store: impl ClipStore, mut jobs: mpsc::Receiver<CacheJob<FinishedClip>>, status: &ClipStatus) {
    while let Some(job) = jobs.blocking_recv() {
        // Sending a reply fails if the caller has stopped waiting.
        match job {
            CacheJob::Put(clip) => {
                let id = clip.id;
                match call_store(|| write(&mut store, &clip, status)) {
                    Ok(()) => {
                        drop(clip);
                        call_store(|| upload(&mut store, id, status)).unwrap_or_else(|error| status.lost(&error));
                    }
                    Err(error) => status.lost(&error),
                }
            }
            CacheJob::Clear(reply) => {
                let _ = reply.send(call_store(|| store.clear()));
            }
            CacheJob::ClearOne(id, reply) => {
                let _ = reply.send(call_store(|| store.clear_one(id)));
            }
        }
    }
}

fn call_store<T>(work: impl FnOnce() -> Result<T, CacheError>) -> Result<T, CacheError> {
    catch_panic(work).unwrap_or_else(|panicked| Err(panicked.into()))
}

fn write(store: &mut impl ClipStore, clip: &FinishedClip, status: &ClipStatus) -> Result<(), CacheError> {
    let stored = store.put(clip, &status.haste)?;
    status.stats.clips_written.inc();
    status.flag.set_ok();
    status.stats.clips_removed.add(stored.removed as u64);
    tracing::info!(
        event = %clip.id, length = ?rounded(clip.length()), bytes = stored.bytes, codec = ?stored.codec,
        removed = stored.removed, "The clip of an event was written"
    );
    Ok(())
}

/// Passes a clip to the S3 cache, and waits until that has room for it.
fn upload(store: &mut impl ClipStore, id: Uuid, status: &ClipStatus) -> Result<(), CacheError> {
    let Some((s3, location)) = status.upload.lock().clone() else {
        return Ok(());
    };
    let mp4 = store.read(id)?;
    let give_up = Instant::now() + UPLOAD_WAIT;
    loop {
        match s3.offer_clip(&location, id, mp4.clone()) {
            Err(CacheError::Behind) if Instant::now() < give_up && !*status.stopping.borrow() => {
                std::thread::sleep(UPLOAD_RETRY);
            }
            Err(error) => {
                s3.lost_clip(&error);
                return Ok(());
            }
            Ok(()) => return store.uploaded(id),
        }
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
