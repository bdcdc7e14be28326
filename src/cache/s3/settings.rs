//! Settings of an [`S3Cache`](super::S3Cache).

use std::path::{Path, PathBuf};

use aws_config::SdkConfig;

/// Bucket, directory and credentials.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// The bucket (`s3_bucket`).
    pub bucket: String,
    /// The directory of the device, for waiting pairs (`s3-pending/`) and the record of uploaded pairs (`s3-index.redb`).
    pub directory: PathBuf,
    /// Credentials, region and endpoint; `None`: those of the default chain.
    pub sdk: Option<SdkConfig>,
}

impl S3Settings {
    /// Settings for this device with the default credential chain.
    pub fn new(bucket: &str, work_dir: &Path, device: &str) -> Self {
        Self {
            bucket: bucket.to_owned(),
            directory: work_dir.join(device),
            sdk: None,
        }
    }
}
