//! What a [`CacheWriter`](super::CacheWriter) writes to.

use std::time::Instant;

use uuid::Uuid;

use super::error::CacheError;
use super::item::CacheItem;

/// Keeps pairs. Its methods may block; the clock is passed in as `now`.
pub trait PairStore: Send + 'static {
    /// Prepares the store, so that a wrong configuration is noticed at once. Called before anything else.
    ///
    /// # Errors
    /// When it is not ready; [`PairStore::put`] tries again.
    fn open(&mut self, now: Instant) -> Result<(), CacheError>;

    /// Keeps one pair, or nothing of it.
    ///
    /// # Errors
    /// When the pair was not kept.
    fn put(&mut self, item: &CacheItem, now: Instant) -> Result<(), CacheError>;

    /// Removes every pair, and nothing else.
    ///
    /// # Errors
    /// When something of a pair is left.
    fn clear(&mut self) -> Result<(), CacheError>;

    /// Removes one pair.
    ///
    /// # Errors
    /// When there is none ([`CacheError::NoSuchPair`]) or something of it is left.
    fn clear_one(&mut self, id: Uuid) -> Result<(), CacheError>;
}
