//! Stores the running build job on disk, so that the next attempt waits for it instead of starting another one.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::util::atomic_file;
use crate::util::private_file;

const MAX_BYTES: u64 = 4096;

/// Identifies what a job builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BuildKey {
    /// Host of Studio.
    pub studio: String,
    /// Project id.
    pub project: u64,
    /// Impulse id.
    pub impulse: String,
    /// Deployment target.
    pub target: String,
    /// Model variant.
    pub variant: String,
    /// Inference engine.
    pub engine: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    build: BuildKey,
    job: u64,
}

/// The file with the job. If it cannot be read or written, the model may be built twice.
#[derive(Debug)]
pub(super) struct PendingBuild {
    file: PathBuf,
    build: BuildKey,
}

impl PendingBuild {
    /// The file for `build`, in the directory of downloaded models.
    pub fn new(models: &Path, build: BuildKey) -> Self {
        Self {
            file: models.join("build-job.json"),
            build,
        }
    }

    /// Id of the stored job, if there is one for this build.
    pub fn job_id(&self) -> Option<u64> {
        let mut text = String::new();
        let file = private_file::open(&self.file).ok()?;
        file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
        let record: Record = serde_json::from_str(&text).ok()?;
        (record.build == self.build).then_some(record.job)
    }

    /// Stores a job that was started.
    pub fn save(&self, job: u64) {
        let build = self.build.clone();
        // Models can be read by others, so their directory is not made by `replace`.
        let made = self.file.parent().map_or(Ok(()), fs::create_dir_all);
        let written = serde_json::to_vec(&Record { build, job })
            .map_err(Into::into)
            .and_then(|text| made.map(|()| text))
            .and_then(|text| atomic_file::replace(&self.file, &text));
        if let Err(e) = written {
            tracing::debug!(job, path = %self.file.display(), error = %e, "The build job cannot be stored");
        }
    }

    /// Removes the stored job after it has ended.
    pub fn remove(&self) {
        if self.job_id().is_some() {
            let _ = fs::remove_file(&self.file);
        }
    }
}
