//! One pair of picture and message, or one clip.

use bytes::Bytes;
use uuid::Uuid;

use super::names::PairPart;
use super::s3_location::S3Location;

/// One pair to store, or the clip of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheItem {
    /// Both file names contain it: the id of the inference, or one that the message of an event names; for a clip that of the event. No two items have the same id.
    pub id: Uuid,
    /// The picture as JPEG, audio as WAV, or a clip as MP4; `None`: only the message is stored.
    pub image: Option<Bytes>,
    /// The message as published. For a clip, where it has to be uploaded; this is not stored in the cache.
    pub json: Bytes,
}

impl CacheItem {
    /// A clip for S3.
    pub(super) fn clip(id: Uuid, mp4: Bytes, location: &S3Location) -> Self {
        let json = serde_json::json!({"s3_bucket": location.bucket, "s3_prefix": location.prefix});
        Self {
            id,
            image: Some(mp4),
            json: json.to_string().into(),
        }
    }

    /// What the picture is: [`PairPart::Clip`] or [`PairPart::Image`].
    pub(super) fn picture_part(&self) -> PairPart {
        match &self.image {
            Some(bytes) if is_mp4(bytes) => PairPart::Clip,
            _ => PairPart::Image,
        }
    }

    /// Bytes of both parts.
    pub fn size(&self) -> usize {
        self.json.len() + self.image.as_ref().map_or(0, Bytes::len)
    }
}

/// Whether these are the bytes of an MP4 or QuickTime file, which begin with the size and the name of their first box.
pub(super) fn is_mp4(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(b"ftyp")
}
