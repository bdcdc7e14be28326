//! The build job under way in Studio, kept on disk: the next attempt waits for it instead of starting another one.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::util::atomic_file;

const MAX_BYTES: u64 = 4096;

/// What a job builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Build {
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
    build: Build,
    job: u64,
}

/// The file with the job. What cannot be read or written costs a second build and is no failure.
#[derive(Debug)]
pub(super) struct KnownJob {
    file: PathBuf,
    build: Build,
}

impl KnownJob {
    /// The job for `build`, below the directory of downloaded models.
    pub fn new(models: &Path, build: Build) -> Self {
        Self {
            file: models.join("build-job.json"),
            build,
        }
    }

    /// Its id, when one was started and its end is not known.
    pub fn id(&self) -> Option<u64> {
        let mut text = String::new();
        let file = File::open(&self.file).ok()?;
        file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
        let record: Record = serde_json::from_str(&text).ok()?;
        (record.build == self.build).then_some(record.job)
    }

    /// It was started.
    pub fn begun(&self, job: u64) {
        let build = self.build.clone();
        let written = serde_json::to_vec(&Record { build, job })
            .map_err(Into::into)
            .and_then(|text| atomic_file::replace(&self.file, &text));
        if let Err(e) = written {
            tracing::debug!("the build job {job} cannot be noted in {}: {e}", self.file.display());
        }
    }

    /// It ended, one way or the other.
    pub fn ended(&self) {
        if self.id().is_some() {
            let _ = fs::remove_file(&self.file);
        }
    }
}
