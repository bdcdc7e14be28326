//! The model file: streamed to disk, complete, and a program for this machine.

use std::time::{Duration, Instant};

use reqwest::Response;
use tokio::io::AsyncWriteExt;

use super::client::{Studio, reason};
use super::error::StudioError;
use super::store::{Download, Store};
use crate::model::examine_complete;

const WHAT: &str = "the model file";
/// How often a download tells how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// Downloads `path` into an unfinished file of the store, and checks it.
pub(super) async fn download(
    studio: &Studio,
    path: &str,
    query: &[(&str, &str)],
    store: &Store,
) -> Result<Download, StudioError> {
    let response = studio.open(WHAT, path, query).await?;
    let limit = studio.limits.model_bytes;
    let expected = response.content_length();
    if expected.is_some_and(|bytes| bytes > limit) {
        return Err(StudioError::TooLarge { what: WHAT, limit });
    }
    let unwritable = |source| StudioError::Store {
        path: store.root().to_owned(),
        source,
    };
    let file = store.begin().map_err(unwritable)?;
    let mut writer = tokio::fs::File::from_std(file.writer().map_err(unwritable)?);
    let mut progress = Progress::new(expected);
    let all = receive(response, &mut writer, &mut progress, limit, store);
    match tokio::time::timeout(studio.limits.download, all).await {
        Ok(received) => received?,
        Err(_) => return Err(progress.truncated("it takes too long".to_owned())),
    }
    writer.sync_all().await.map_err(unwritable)?;
    drop(writer);
    if expected.is_some_and(|bytes| bytes != progress.got) {
        return Err(progress.truncated("the connection was closed".to_owned()));
    }
    examine_complete(file.path()).map_err(StudioError::NotAModel)?;
    Ok(file)
}

async fn receive(
    mut response: Response,
    writer: &mut tokio::fs::File,
    progress: &mut Progress,
    limit: u64,
    store: &Store,
) -> Result<(), StudioError> {
    let unwritable = |source| StudioError::Store {
        path: store.root().to_owned(),
        source,
    };
    loop {
        match response.chunk().await {
            Ok(Some(piece)) => {
                progress.advance(piece.len());
                if progress.got > limit {
                    return Err(StudioError::TooLarge { what: WHAT, limit });
                }
                writer.write_all(&piece).await.map_err(unwritable)?;
            }
            Ok(None) => return writer.flush().await.map_err(unwritable),
            Err(e) => return Err(progress.truncated(reason(&e))),
        }
    }
}

struct Progress {
    got: u64,
    expected: Option<u64>,
    said: Instant,
}

impl Progress {
    fn new(expected: Option<u64>) -> Self {
        Self {
            got: 0,
            expected,
            said: Instant::now(),
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.got += bytes as u64;
        if self.said.elapsed() < PROGRESS {
            return;
        }
        self.said = Instant::now();
        let of = self
            .expected
            .map(|all| format!(" of {:.1}", megabytes(all)))
            .unwrap_or_default();
        tracing::info!("downloading the model: {:.1}{of} MB", megabytes(self.got));
    }

    fn truncated(&self, reason: String) -> StudioError {
        StudioError::Truncated {
            got: self.got,
            expected: self.expected,
            reason,
        }
    }
}

/// Bytes as megabytes, for people.
pub(super) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
