//! What `tests/fuzz` calls here.

pub use super::logging::fuzzing::log_lines;
pub use super::watch::fuzzing::watch_lines;
