//! The S3 cache against a real S3 implementation: through the real binary, and as a part where numbers are large.

mod clips;
mod credentials;
mod faults;
mod library;
mod pairs;
mod proxy;
pub mod site;
