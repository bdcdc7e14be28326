//! Helpers that do not depend on the component: time, retries, files, text and secrets.

pub(crate) mod aged_file;
pub mod atomic_file;
pub mod backoff;
pub mod clock;
pub(crate) mod damaged_files;
pub(crate) mod database;
pub mod decimal;
pub(crate) mod digest;
pub(crate) mod durable_names;
pub(crate) mod foreign_files;
#[doc(hidden)]
pub mod fuzzing;
pub mod geometry;
pub(crate) mod host;
pub mod log_limiter;
pub(crate) mod memory;
pub mod owners;
pub mod panics;
pub(crate) mod path_names;
pub mod private_dir;
pub(crate) mod private_file;
pub(crate) mod redact;
pub mod secret;
pub mod secret_reference;
pub(crate) mod sliding_window;
pub(crate) mod text;
pub(crate) mod write_access;
