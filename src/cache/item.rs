//! One pair of picture and message.

use bytes::Bytes;
use uuid::Uuid;

/// One pair to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheItem {
    /// Id of the inference; both file names contain it. No two items have the same id.
    pub id: Uuid,
    /// The picture as JPEG, or audio as WAV; `None`: only the message is stored.
    pub image: Option<Bytes>,
    /// The message as published.
    pub json: Bytes,
}

impl CacheItem {
    /// Bytes of both parts.
    pub fn size(&self) -> usize {
        self.json.len() + self.image.as_ref().map_or(0, Bytes::len)
    }
}
