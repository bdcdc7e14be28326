//! The destination of a [`CacheWriter`](super::CacheWriter). The S3 cache is none: it has a thread of its own.

use std::time::Instant;

use uuid::Uuid;

use super::error::CacheError;
use super::item::CacheItem;

/// Stores pairs. The methods may block. `now` is the current time.
pub trait PairStore: Send + 'static {
    /// Prepares the store, so that a wrong configuration is noticed at once. Called first.
    ///
    /// # Errors
    /// The store is not ready; [`PairStore::put`] tries again.
    fn open(&mut self, now: Instant) -> Result<(), CacheError>;

    /// Stores one pair completely or not at all.
    ///
    /// # Errors
    /// The pair was not stored.
    fn put(&mut self, item: &CacheItem, now: Instant) -> Result<(), CacheError>;

    /// Removes every pair, and no other files.
    ///
    /// # Errors
    /// A part of a pair is left.
    fn clear(&mut self) -> Result<(), CacheError>;

    /// Removes one pair.
    ///
    /// # Errors
    /// There is no such pair ([`CacheError::NoSuchPair`]), or a part of it is left.
    fn clear_one(&mut self, id: Uuid) -> Result<(), CacheError>;
}
