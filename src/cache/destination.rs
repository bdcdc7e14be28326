//! Where a pair goes: the caches that are on.

use std::sync::Arc;

use super::caches::Caches;
use super::item::CacheItem;
use super::s3::S3Cache;
use super::s3_location::S3Location;
use super::writer::CacheWriter;

/// The caches of pairs at one moment, with the place in S3. Cheap to clone.
#[derive(Clone, Default)]
pub struct PairDestination {
    files: Option<Arc<CacheWriter>>,
    s3: Option<(Arc<S3Cache>, S3Location)>,
}

impl PairDestination {
    /// `location`: where pairs of the current model are in S3; `None`: the S3 cache is off, or no model has run.
    pub fn new(caches: &Caches, location: Option<S3Location>) -> Self {
        Self {
            files: caches.files.clone(),
            s3: caches.s3.clone().zip(location),
        }
    }

    /// Number of caches that get a pair.
    pub fn count(&self) -> u64 {
        u64::from(self.files.is_some()) + u64::from(self.s3.is_some())
    }

    /// Where pairs go in S3.
    pub fn location(&self) -> Option<&S3Location> {
        self.s3.as_ref().map(|(_, location)| location)
    }

    /// Offers the pair to each cache, and returns at once. A cache that drops it counts and logs that.
    pub fn offer(&self, pair: CacheItem) {
        if let Some((s3, location)) = &self.s3 {
            s3.offer(location.clone(), pair.clone());
        }
        if let Some(files) = &self.files {
            files.offer(pair);
        }
    }
}
