//! The caches of a session.

use std::sync::Arc;

use super::clips::EventClips;
use super::s3::S3Cache;
use super::writer::CacheWriter;

/// The enabled caches.
#[derive(Clone, Default)]
pub struct Caches {
    /// The local file cache.
    pub files: Option<Arc<CacheWriter>>,
    /// The S3 cache.
    pub s3: Option<Arc<S3Cache>>,
    /// The clips of events, which go to both.
    pub clips: Option<Arc<EventClips>>,
}

impl Caches {
    /// Number of enabled caches of pairs.
    pub fn count(&self) -> u64 {
        u64::from(self.files.is_some()) + u64::from(self.s3.is_some())
    }
}
