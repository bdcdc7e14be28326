//! The S3 cache against a real S3 implementation: through the real binary, and as a part where numbers are large.

#[path = "support/mod.rs"]
mod support;

#[path = "s3/credentials.rs"]
mod credentials;
#[path = "s3/faults.rs"]
mod faults;
#[path = "s3/library.rs"]
mod library;
#[path = "s3/pairs.rs"]
mod pairs;
#[path = "s3/proxy.rs"]
mod proxy;
#[path = "s3/site.rs"]
mod site;
