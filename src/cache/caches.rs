//! The caches of a session.

use std::sync::Arc;

use super::s3::S3Cache;
use super::writer::CacheWriter;

/// The caches that are on.
#[derive(Clone, Default)]
pub struct Caches {
    /// Local files.
    pub files: Option<Arc<CacheWriter>>,
    /// The bucket.
    pub s3: Option<Arc<S3Cache>>,
}

impl Caches {
    /// How many are on.
    pub fn count(&self) -> u64 {
        u64::from(self.files.is_some()) + u64::from(self.s3.is_some())
    }
}
