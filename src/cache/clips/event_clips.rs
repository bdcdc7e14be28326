//! Recording and writing the clips of events.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::cache::ClipCache;
use super::store::ClipDirectory;
use crate::cache::error::CacheError;
use crate::cache::names::{PairPart, file_name};
use crate::cache::s3::S3Cache;
use crate::cache::s3_location::S3Location;
use crate::capture::{ClipRecorder, ClipSettings};
use crate::status::health::HealthFlag;
use crate::status::stats::Stats;

/// The clips of events, from the ring in memory to the file.
pub struct EventClips {
    recorder: Arc<ClipRecorder>,
    cache: Arc<ClipCache>,
}

impl EventClips {
    /// Starts the thread that writes clips.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(settings: ClipSettings, directory: ClipDirectory, stats: &Arc<Stats>) -> io::Result<Self> {
        let cache = Arc::new(ClipCache::start(directory, stats.clone())?);
        let sink = cache.clone();
        let recorder = ClipRecorder::new(settings, stats.clone(), cache.flag(), move |clip| sink.offer(clip));
        Ok(Self {
            recorder: Arc::new(recorder),
            cache,
        })
    }

    /// What gets the video of the source.
    pub fn recorder(&self) -> &Arc<ClipRecorder> {
        &self.recorder
    }

    /// The health of the clips: whether the last one was recorded and written.
    pub fn flag(&self) -> HealthFlag {
        self.cache.flag()
    }

    /// Sets the longest time between the start of an event and [`Self::begin`]: so much more is kept in memory.
    pub fn set_delay(&self, delay: Duration) {
        self.recorder.set_delay(delay);
    }

    /// Sets where later clips go in S3.
    pub fn set_upload(&self, upload: Option<(Arc<S3Cache>, S3Location)>) {
        self.cache.set_upload(upload);
    }

    /// Begins the clip of an event that started at `at`, which may be in the past. Returns the name of its file; `None`: the
    /// event gets no clip.
    pub fn begin(&self, event_id: Uuid, at: Instant) -> Option<String> {
        let is_recorded = self.recorder.start(event_id, at);
        is_recorded.then(|| file_name(event_id, PairPart::Clip))
    }

    /// The event ended at `at`. Its clip ends after the configured time.
    pub fn finish(&self, event_id: Uuid, at: Instant) {
        self.recorder.finish(event_id, at);
    }

    /// Ends the clips whose time is over. To be called now and then, because the source may have stopped.
    pub fn finish_due(&self, now: Instant) {
        self.recorder.finish_due(now);
    }

    /// Removes every clip from the directory. The S3 cache removes those in the bucket.
    ///
    /// # Errors
    /// A clip is left, or the thread has ended ([`CacheError::Stopped`]).
    pub async fn clear(&self) -> Result<(), CacheError> {
        self.cache.clear().await
    }

    /// Removes one clip from the directory.
    ///
    /// # Errors
    /// [`CacheError::NotAnId`] if `id` is not a UUID; [`CacheError::NoSuchPair`]; the errors of [`Self::clear`].
    pub async fn clear_one(&self, id: &str) -> Result<(), CacheError> {
        self.cache.clear_one(id).await
    }

    /// Ends the clips in progress with what there is, and writes them for at most `limit`. Returns `false` if that took too long.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.recorder.finish_all(Instant::now());
        self.cache.stop(limit).await
    }
}
