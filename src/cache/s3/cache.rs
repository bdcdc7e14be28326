//! The handle of the S3 cache.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use uuid::Uuid;

use super::settings::S3Settings;
use super::upload::{UploadItem, UploadStatus};
use super::uploader::Uploader;
use crate::cache::error::CacheError;
use crate::cache::item::CacheItem;
use crate::cache::queue::CacheQueue;
use crate::cache::s3_location::S3Location;
use crate::status::health::HealthFlag;
use crate::status::stats::Stats;
use crate::util::clock::rounded;
use crate::util::panics::PanicRestart;

/// Most bytes of pairs in memory: queued, waiting for an upload, or being uploaded for the first time.
const MEMORY_BYTES: usize = 8 << 20;
/// Most bytes of clips in addition. A larger clip must be alone.
const CLIP_BYTES: usize = 32 << 20;

/// Uploads pairs to a bucket on its own thread.
pub struct S3Cache {
    queue: CacheQueue<UploadItem>,
    status: Arc<UploadStatus>,
    /// Sends the deadline of the stop.
    stop: watch::Sender<Option<Instant>>,
    /// Closed when the thread has ended.
    ended: watch::Receiver<()>,
}

impl S3Cache {
    /// Starts the thread, which first looks the bucket up. `previous`: a cache with the same directory that is being stopped;
    /// the thread waits for its end, and pairs that are offered meanwhile wait in memory.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(settings: S3Settings, stats: Arc<Stats>, previous: Option<&Self>) -> io::Result<Self> {
        let (queue, mut jobs) = CacheQueue::new(MEMORY_BYTES);
        let (stop, stopping) = watch::channel(None);
        let (end, ended) = watch::channel(());
        let status = Arc::new(UploadStatus::new(stats));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread_status = status.clone();
        let mut previous = previous.map(|previous| previous.ended.clone());
        std::thread::Builder::new().name("cache-s3".into()).spawn(move || {
            runtime.block_on(async {
                if let Some(previous) = &mut previous {
                    // The thread sends no value: this resolves with an error when it has ended.
                    let _ = previous.changed().await;
                }
                let mut restart = PanicRestart::new("the S3 cache");
                loop {
                    let uploader = Uploader::new(settings.clone(), &mut jobs, stopping.clone(), thread_status.clone());
                    let Err(wait) = restart.attempt(uploader.run()).await else {
                        break;
                    };
                    tokio::time::sleep(wait).await;
                }
            });
            drop(end);
            // A DNS look-up that is still running cannot be interrupted.
            runtime.shutdown_background();
        })?;
        Ok(Self {
            queue,
            status,
            stop,
            ended,
        })
    }

    /// Offers a pair and returns at once. Returns `false` if it was dropped because the queue is full or the cache has been
    /// stopped. A dropped pair is counted as a cache failure and logged once a minute.
    pub fn offer(&self, location: S3Location, pair: CacheItem) -> bool {
        let bytes = pair.size();
        let offered = self.queue.offer(UploadItem { location, pair }, bytes);
        offered.inspect_err(|error| self.status.lost(1, error)).is_ok()
    }

    /// Offers the clip of an event and returns at once. Clips have memory of their own, because they are large.
    ///
    /// # Errors
    /// [`CacheError::Behind`]: other clips wait, and it can be offered again later. [`CacheError::Stopped`]
    pub(in crate::cache) fn offer_clip(&self, location: &S3Location, id: Uuid, mp4: Bytes) -> Result<(), CacheError> {
        let pair = CacheItem::clip(id, mp4, location);
        let (location, bytes) = (location.clone(), pair.size());
        self.queue
            .offer_within(UploadItem { location, pair }, bytes, MEMORY_BYTES + CLIP_BYTES)
    }

    /// Counts and logs a clip that will not be uploaded.
    pub(in crate::cache) fn lost_clip(&self, error: &CacheError) {
        self.status.lost(1, error);
    }

    /// The health of the cache: whether the last request to S3 succeeded.
    pub fn flag(&self) -> HealthFlag {
        self.status.flag.clone()
    }

    /// Removes every object that this device uploaded, and every waiting pair. Pairs offered later are not affected. Takes at
    /// most half a minute if S3 does not answer; a thousand objects take one request.
    ///
    /// # Errors
    /// Objects may be left in the bucket: [`CacheError::S3`], [`CacheError::Stopped`], or [`CacheError::Behind`] when too many
    /// such commands wait.
    pub async fn clear(&self) -> Result<(), CacheError> {
        self.queue.clear().await
    }

    /// Removes one pair from the bucket or from the waiting pairs.
    ///
    /// # Errors
    /// [`CacheError::NotAnId`] if `id` is not a UUID; [`CacheError::NoSuchPair`]; the errors of [`Self::clear`].
    pub async fn clear_one(&self, id: &str) -> Result<(), CacheError> {
        self.queue.clear_one(id).await
    }

    /// Writes the pairs in memory to the disk for the next start, and ends the thread. Returns `false` if that took longer
    /// than `limit`. The pairs that are still in memory then are dropped, counted and logged.
    pub async fn stop(&self, limit: Duration) -> bool {
        // Sending fails if the thread has already ended.
        let _ = self.stop.send(Some(Instant::now() + limit));
        let mut ended = self.ended.clone();
        // The thread sends no value: this resolves with an error when the thread has ended.
        if tokio::time::timeout(limit, ended.changed()).await.is_ok() {
            return true;
        }
        let pairs = self.queue.pairs();
        self.status.stats.cache_failures.add(pairs as u64);
        tracing::error!(
            pairs,
            limit = ?rounded(limit),
            "Lost pairs of picture and message for S3: writing them to the disk took too long"
        );
        false
    }
}
