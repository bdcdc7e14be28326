//! The clips of events: `<event id>.mp4` in the directory of the file cache, and in the bucket of the S3 cache.
//!
//! [`EventClips`] records them. The thread in [`cache`] gets complete clips, encodes and writes them, one after the other, and
//! passes them to the S3 cache.

mod cache;
mod event_clips;
mod store;

pub use event_clips::EventClips;
pub use store::ClipDirectory;
