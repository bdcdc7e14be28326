//! What the task that uploads samples needs, and the handle that gives it samples.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use url::Url;

use super::ingestion::MAX_BYTES;
use super::sample::UploadSample;
use crate::status::StudioActivity;
use crate::status::stats::Stats;
use crate::studio::api_key::ApiKeyReader;
use crate::studio::host::HostError;
use crate::util::backoff::BackoffPolicy;

/// Samples that wait to be written to the spool.
const QUEUE: usize = 8;

/// The most bytes a day that collected samples may take now; a deployment may change it.
pub type DailyLimit = Box<dyn Fn() -> u64 + Send + Sync>;

/// Why a sample is not in Studio. The texts are shown to the person in Studio.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// Ingestion refused the sample.
    #[error("{0}")]
    Refused(String),
    /// It waits on disk.
    #[error("the upload failed ({0}); the sample is kept on the device and uploaded later")]
    Waiting(String),
    /// It is lost.
    #[error("the sample could not be kept on the device: {0}")]
    Lost(String),
}

/// Time and size limits. Only tests change the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadLimits {
    /// Time for a connection. Default 10 s.
    pub connect: Duration,
    /// Time for the answer, beside a second for every 16 KiB. Default 60 s.
    pub answer: Duration,
    /// Most samples on disk. Default 1000.
    pub samples: usize,
    /// Most bytes of samples on disk. Default 256 MiB.
    pub bytes: u64,
    /// Delays after a failure.
    pub backoff: BackoffPolicy,
}

impl Default for UploadLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            samples: 1000,
            bytes: 256 << 20,
            backoff: BackoffPolicy::default(),
        }
    }
}

/// What the task needs.
pub struct UploadSettings {
    /// Reads the API key, before each series of uploads.
    pub key: ApiKeyReader,
    /// The address of ingestion.
    pub ingestion: Result<Url, HostError>,
    /// Where samples wait.
    pub directory: PathBuf,
    /// Where the bytes of collected samples are counted.
    pub daily_bytes: PathBuf,
    /// The most of them.
    pub daily_limit: DailyLimit,
    /// Time and size limits.
    pub limits: UploadLimits,
    /// Counts samples.
    pub stats: Arc<Stats>,
    /// Where the last uploads are shown.
    pub activity: StudioActivity,
}

/// Hands samples to the task.
#[derive(Debug, Clone)]
pub struct UploadHandle(mpsc::Sender<UploadJob>);

/// A sample on its way to the task.
pub(super) struct UploadJob {
    pub(super) sample: UploadSample,
    /// `None`: nobody waits for the upload.
    pub(super) result: Option<oneshot::Sender<Result<(), UploadError>>>,
}

impl UploadHandle {
    pub(super) fn new() -> (Self, mpsc::Receiver<UploadJob>) {
        let (sender, jobs) = mpsc::channel(QUEUE);
        (Self(sender), jobs)
    }

    /// Keeps the sample on disk and uploads it. Returns after the first attempt.
    ///
    /// # Errors
    /// [`UploadError`]
    pub async fn upload(&self, sample: UploadSample) -> Result<(), UploadError> {
        let (result, uploaded) = oneshot::channel();
        self.send(sample, Some(result)).await?;
        uploaded.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Keeps the sample on disk and uploads it when its turn comes.
    ///
    /// # Errors
    /// [`UploadError::Lost`]
    pub async fn keep(&self, sample: UploadSample) -> Result<(), UploadError> {
        self.send(sample, None).await
    }

    async fn send(
        &self,
        sample: UploadSample,
        result: Option<oneshot::Sender<Result<(), UploadError>>>,
    ) -> Result<(), UploadError> {
        if sample.data.len() as u64 >= MAX_BYTES {
            return Err(UploadError::Lost(format!(
                "it has {} bytes, and less than {MAX_BYTES} are accepted",
                sample.data.len()
            )));
        }
        self.0.send(UploadJob { sample, result }).await.map_err(|_| ended())
    }
}

fn ended() -> UploadError {
    UploadError::Lost("the component is stopping".to_owned())
}
