//! What `tests/fuzz` calls here.

pub use super::answer::{ModelAnswer, parse as parse_answer, timing};
pub use super::framing::{FramingError, MAX_ANSWER, Splitter};
pub use super::hello::{Hello, parse as parse_hello, segment_names};
pub use super::lenient::{MAX_ITEMS, MAX_LABEL};
pub use super::shm::is_valid as is_segment_name;
