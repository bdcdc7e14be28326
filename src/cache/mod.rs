//! Stores pairs of picture and message: `<id>.img` (JPEG) and `<id>.json` (the message as published).
//!
//! A [`CacheWriter`] passes [`CacheItem`]s to a [`PairStore`] on its own thread; an [`S3Cache`] uploads them to a bucket, several
//! at a time. An [`EventClips`] records and writes the clips of events. None blocks the inference loop. A [`CacheItem`] is cheap to clone, so each cache gets its own.

mod caches;
mod clips;
mod destination;
mod error;
mod file;
mod file_index;
#[doc(hidden)]
pub mod fuzzing {
    pub use super::s3::fuzzing::{use_index, use_pending};
}
mod item;
mod names;
mod queue;
mod s3;
mod s3_location;
mod store;
mod writer;

pub use self::caches::Caches;
pub use self::clips::{ClipDirectory, EventClips};
pub use self::destination::PairDestination;
pub use self::error::CacheError;
pub use self::file::FileCache;
pub use self::item::CacheItem;
pub use self::names::{PairPart, file_name, pair_id};
pub use self::s3::{S3Cache, S3Error, S3Settings, probe};
pub use self::s3_location::S3Location;
pub use self::store::PairStore;
pub use self::writer::CacheWriter;
