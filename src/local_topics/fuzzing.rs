//! What `tests/fuzz` calls here.

use bytes::Bytes;

use super::shorten;

/// The message in at most `max` bytes.
pub fn shorten(payload: &[u8], max: usize) -> Option<Bytes> {
    Some(shorten::shorten(payload, max)?.payload)
}
