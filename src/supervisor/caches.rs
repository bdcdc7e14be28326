//! Starts and stops the caches of a session.

use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use crate::cache::{CacheWriter, Caches, FileCache, S3Cache, S3Settings};

/// Starts the configured caches.
///
/// # Errors
/// The system cannot start a thread.
pub(super) fn start(context: &Context) -> std::io::Result<Caches> {
    let (config, stats) = (&context.setup.config, &context.stats);
    let files = config.file_cache.as_ref();
    let s3 = config.s3_cache_bucket.as_ref();
    Ok(Caches {
        files: files
            .map(|files| CacheWriter::start("file-cache", FileCache::new(files.clone()), stats.clone()).map(Arc::new))
            .transpose()?,
        s3: s3
            .map(|bucket| {
                let settings = S3Settings::new(&bucket.name, &config.work_dir, &context.device);
                S3Cache::start(settings, stats.clone()).map(Arc::new)
            })
            .transpose()?,
    })
}

/// Stops the caches after they have written their pairs. A command that still waits for its answer gets the error that the
/// cache was stopped.
pub(super) async fn stop(caches: Caches, limit: Duration) {
    let files = async {
        if let Some(files) = caches.files {
            files.stop(limit).await;
        }
    };
    let s3 = async {
        if let Some(s3) = caches.s3 {
            s3.stop(limit).await;
        }
    };
    tokio::join!(files, s3);
}
