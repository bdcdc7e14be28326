//! Downloads a model file to the disk and checks it.

use std::time::{Duration, Instant};

use reqwest::Response;
use tokio::io::AsyncWriteExt;

use super::client::{StudioClient, reason};
use super::error::StudioError;
use super::store::{ModelStore, PartialDownload};
use crate::model::examine;

const WHAT: &str = "the model file";
/// How often the progress is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Downloads `path` into a temporary file of the store, and checks that it is a complete program for this machine.
pub(super) async fn download(
    studio: &StudioClient,
    path: &str,
    query: &[(&str, &str)],
    store: &ModelStore,
) -> Result<PartialDownload, StudioError> {
    let response = studio.download(WHAT, path, query).await?;
    let limit = studio.limits.model_bytes;
    let expected = response.content_length();
    if expected.is_some_and(|bytes| bytes > limit) {
        return Err(StudioError::TooLarge { what: WHAT, limit });
    }
    let unwritable = |source| StudioError::Store {
        path: store.root().to_owned(),
        source,
    };
    let file = store.new_download().map_err(unwritable)?;
    let mut writer = tokio::fs::File::from_std(file.writer().map_err(unwritable)?);
    let mut progress = DownloadProgress::new(expected);
    let all = receive(response, &mut writer, &mut progress, limit, store);
    match tokio::time::timeout(studio.limits.download, all).await {
        Ok(received) => received?,
        Err(_) => return Err(progress.truncated("it takes too long".to_owned())),
    }
    writer.sync_all().await.map_err(unwritable)?;
    drop(writer);
    if expected.is_some_and(|bytes| bytes != progress.received) {
        return Err(progress.truncated("the connection was closed".to_owned()));
    }
    examine(file.path()).map_err(StudioError::NotAModel)?;
    Ok(file)
}

async fn receive(
    mut response: Response,
    writer: &mut tokio::fs::File,
    progress: &mut DownloadProgress,
    limit: u64,
    store: &ModelStore,
) -> Result<(), StudioError> {
    let unwritable = |source| StudioError::Store {
        path: store.root().to_owned(),
        source,
    };
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                progress.advance(chunk.len());
                if progress.received > limit {
                    return Err(StudioError::TooLarge { what: WHAT, limit });
                }
                writer.write_all(&chunk).await.map_err(unwritable)?;
            }
            Ok(None) => return writer.flush().await.map_err(unwritable),
            Err(e) => return Err(progress.truncated(reason(&e))),
        }
    }
}

struct DownloadProgress {
    received: u64,
    expected: Option<u64>,
    logged: Instant,
}

impl DownloadProgress {
    fn new(expected: Option<u64>) -> Self {
        Self {
            received: 0,
            expected,
            logged: Instant::now(),
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.received += bytes as u64;
        if self.logged.elapsed() < LOG_INTERVAL {
            return;
        }
        self.logged = Instant::now();
        tracing::info!(
            bytes = self.received,
            total = self.expected,
            "Download of the model in progress"
        );
    }

    fn truncated(&self, reason: String) -> StudioError {
        StudioError::Truncated {
            got: self.received,
            expected: self.expected,
            reason,
        }
    }
}
