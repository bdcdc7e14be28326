//! Starts, changes and stops the caches of a session.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::clips;
use super::context::Context;
use crate::cache::{CacheWriter, Caches, FileCache, S3Cache, S3Settings};
use crate::config::{Config, FileCacheConfig, S3Bucket};
use crate::status::CacheStatus;

/// Starts the configured caches.
///
/// # Errors
/// The system cannot start a thread.
pub(super) fn start(context: &Context, config: &Config) -> io::Result<Caches> {
    Ok(Caches {
        files: start_files(context, config.file_cache.as_ref())?,
        s3: start_s3(context, config, config.s3_cache_bucket.as_ref(), None)?,
        clips: clips::start(context, config)?,
    })
}

/// Replaces the caches of pairs whose configuration has changed. Also returns the replaced ones, which the caller stops.
///
/// # Errors
/// The system cannot start a thread.
pub(super) fn change(context: &Context, caches: &Caches, old: &Config, new: &Config) -> io::Result<(Caches, Caches)> {
    let (mut changed, mut replaced) = (caches.clone(), Caches::default());
    if new.file_cache != old.file_cache {
        changed.files = start_files(context, new.file_cache.as_ref())?;
        replaced.files.clone_from(&caches.files);
    }
    if new.s3_cache_bucket != old.s3_cache_bucket {
        changed.s3 = start_s3(context, new, new.s3_cache_bucket.as_ref(), caches.s3.as_deref())?;
        replaced.s3.clone_from(&caches.s3);
    }
    Ok((changed, replaced))
}

fn start_files(context: &Context, files: Option<&FileCacheConfig>) -> io::Result<Option<Arc<CacheWriter>>> {
    let start = |files: &FileCacheConfig| {
        let store = FileCache::new(files.clone());
        CacheWriter::start("file", store, context.stats.clone()).map(Arc::new)
    };
    files.map(start).transpose()
}

fn start_s3(
    context: &Context,
    config: &Config,
    bucket: Option<&S3Bucket>,
    previous: Option<&S3Cache>,
) -> io::Result<Option<Arc<S3Cache>>> {
    let start = |bucket: &S3Bucket| {
        let settings = S3Settings::new(&bucket.name, &config.work_dir, &context.device);
        S3Cache::start(settings, context.stats.clone(), previous).map(Arc::new)
    };
    bucket.map(start).transpose()
}

/// The status of these caches, which belong to `config`.
pub(super) fn status(caches: &Caches, config: &Config) -> CacheStatus {
    let bucket = config.s3_cache_bucket.as_ref();
    CacheStatus {
        files: caches.files.as_ref().map(|files| files.flag()),
        clips: caches.clips.as_ref().map(|clips| clips.flag()),
        s3: bucket
            .zip(caches.s3.as_ref())
            .map(|(bucket, s3)| (bucket.name.clone(), s3.flag())),
    }
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
