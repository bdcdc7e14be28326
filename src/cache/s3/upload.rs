//! Jobs that an [`S3Cache`](super::S3Cache) sends to its thread, and the status that both update.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::cache::error::CacheError;
use crate::cache::item::CacheItem;
use crate::cache::queue::{CacheJob, QueuedPair};
use crate::cache::s3_location::S3Location;
use crate::status::health::HealthFlag;
use crate::status::stats::Stats;
use crate::util::foreign_files;
use crate::util::log_limiter::LogLimiter;

/// A pair and its location.
#[derive(Debug, Clone)]
pub(super) struct UploadItem {
    pub(super) location: S3Location,
    pub(super) pair: CacheItem,
}

pub(super) type UploadJob = CacheJob<UploadItem>;
pub(super) type QueuedUpload = QueuedPair<UploadItem>;

/// Counters, health and rate-limited log of the S3 cache.
pub(super) struct UploadStatus {
    pub(super) stats: Arc<Stats>,
    pub(super) flag: HealthFlag,
    failures: Mutex<LogLimiter>,
}

impl UploadStatus {
    pub(super) fn new(stats: Arc<Stats>) -> Self {
        Self {
            stats,
            flag: HealthFlag::default(),
            failures: Mutex::default(),
        }
    }

    /// Counts pairs that will not be uploaded, and logs each reason once a minute.
    pub(super) fn lost(&self, pairs: usize, error: &CacheError) {
        self.stats.cache_failures.add(pairs as u64);
        if let Some(suppressed) = self.failures.lock().check(Instant::now(), &error.kind()) {
            tracing::error!(pairs, suppressed = suppressed.count(), %error, "Pairs of picture and message were dropped and will not be uploaded to S3");
        }
    }

    /// Logs that a pair on disk cannot be read before the next start.
    pub(super) fn left_on_disk(&self, error: &CacheError) {
        if let Some(suppressed) = self.failures.lock().check(Instant::now(), "left on disk") {
            tracing::error!(
                suppressed = suppressed.count(), %error, advice = foreign_files::ADVICE,
                "A pair for S3 belongs to another user and waits on disk"
            );
        }
    }

    /// Logs that a pair is uploaded although it could not be recorded.
    pub(super) fn not_recorded(&self, error: &CacheError) {
        if let Some(suppressed) = self.failures.lock().check(Instant::now(), "not recorded") {
            tracing::error!(suppressed = suppressed.count(), %error, "Uploading a pair without a record; clear_cache will not remove it");
        }
    }
}
