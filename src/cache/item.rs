//! One pair of picture and message.

use bytes::Bytes;
use uuid::Uuid;

/// One pair to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheItem {
    /// Id of the inference, which names both files. Never used for two items.
    pub id: Uuid,
    /// The picture as JPEG, or sound as WAV; `None`: only the message is kept.
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
