//! The S3 cache (`enable_cache_to_s3`): pairs as objects `<model name>_v<deploy version>/<id>.img` and `.json`.
//!
//! An [`S3Cache`] never blocks the inference loop. Its own thread uploads pairs, several at a time. Pairs that cannot be
//! uploaded wait on disk and are uploaded later, oldest first. Only this thread contacts AWS.

mod access;
mod bucket;
mod cache;
mod clear;
mod clear_queue;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod index;
mod index_import;
mod pending;
mod pending_names;
mod pending_seal;
mod settings;
mod upload;
mod uploader;

pub use self::bucket::probe;
pub use self::cache::S3Cache;
pub use self::error::S3Error;
pub use self::settings::S3Settings;
