//! A deployment of a project: its version, its build and its download.

use std::io;
use std::path::Path;

use super::api;
use super::build_job::BuildJob;
use super::client::StudioClient;
use super::download::download;
use super::error::StudioError;
use super::pending_build::{BuildKey, PendingBuild};
use super::selection::DeploymentOptions;
use super::store::{ModelMetadata, ModelStore, StoredModel};
use crate::util::backoff::Retry;
use crate::util::digest::sha256;

/// The model of a project for one target, variant and engine.
pub(super) struct Deployment<'a> {
    pub(super) studio: &'a StudioClient,
    pub(super) project: u64,
    pub(super) impulse: String,
    pub(super) options: &'a DeploymentOptions,
}

impl Deployment<'_> {
    /// Returns the version of the built model. If there is none, calls `on_build` and builds the model in Studio.
    pub(super) async fn ensure_built(&self, store: &ModelStore, on_build: impl FnOnce()) -> Result<u64, StudioError> {
        let pending = self.pending_build(store);
        if let Some(version) = self.version().await? {
            pending.remove();
            return Ok(version);
        }
        on_build();
        self.build(&pending).await
    }

    /// The version of the built model, if there is one.
    pub(super) async fn version(&self) -> Result<Option<u64>, StudioError> {
        let query = [
            ("type", &*self.options.target),
            ("modelType", &self.options.variant),
            ("engine", &self.options.engine),
            ("impulseId", &self.impulse),
        ];
        let path = format!("api/{}/deployment", self.project);
        let built: api::DeploymentInfo = self.studio.get("the deployment", &path, &query).await?;
        Ok(built.version.filter(|_| built.has_deployment))
    }

    /// The stored build job.
    fn pending_build(&self, store: &ModelStore) -> PendingBuild {
        let build = BuildKey {
            studio: self.studio.host(),
            project: self.project,
            impulse: self.impulse.clone(),
            target: self.options.target.clone(),
            variant: self.options.variant.clone(),
            engine: self.options.engine.clone(),
        };
        PendingBuild::new(store.root(), build)
    }

    /// Builds the model in Studio and returns its version. If a job was started earlier, waits for that job.
    async fn build(&self, pending: &PendingBuild) -> Result<u64, StudioError> {
        if let Some(id) = pending.job_id() {
            tracing::info!(job = id, "Waiting for the model build that was started earlier");
            match self
                .wait_for(BuildJob::new(self.studio, self.project, id), pending)
                .await
            {
                Err(e) if e.retry() == Retry::Later => tracing::info!(error = %e, "Building the model again"),
                result => return result,
            }
        }
        let job = BuildJob::start(self.studio, self.project, &self.impulse, self.options).await?;
        pending.save(job.id);
        self.wait_for(job, pending).await
    }

    /// Waits for a job and returns the version that it built. Removes the stored job unless waiting for it again is useful.
    async fn wait_for(&self, job: BuildJob<'_>, pending: &PendingBuild) -> Result<u64, StudioError> {
        let result = match job.wait().await {
            Ok(()) => self
                .version()
                .await
                .and_then(|version| version.ok_or(StudioError::BuiltNothing { job: job.id })),
            Err(e) => Err(e),
        };
        if !result.as_ref().is_err_and(|e| e.retry() == Retry::Soon) {
            pending.remove();
        }
        result
    }

    /// Returns the stored model, or downloads it. `sha256`: that of the file, if it is pinned.
    pub(super) async fn obtain(
        &self,
        metadata: &ModelMetadata,
        store: &ModelStore,
        sha256: Option<&str>,
    ) -> Result<StoredModel, StudioError> {
        let unwritable = |source| StudioError::Store {
            path: store.root().to_owned(),
            source,
        };
        if let Some(model) = store.find(metadata) {
            check_digest(&model.path, metadata.version, sha256).await?;
            tracing::info!(version = metadata.version, path = %model.path.display(), "The model is already on this device");
            return Ok(model);
        }
        tracing::info!(
            version = metadata.version,
            target = metadata.target,
            variant = metadata.variant,
            engine = metadata.engine,
            "Downloading the model"
        );
        let query = [
            ("type", &*self.options.target),
            ("modelType", &self.options.variant),
            ("impulseId", &self.impulse),
        ];
        let path = format!("api/{}/deployment/download", self.project);
        let file = download(self.studio, &path, &query, store).await?;
        let got = digest(file.path()).await?;
        compare_digests(metadata.version, &got, sha256)?;
        let bytes = std::fs::metadata(file.path()).map_or(0, |meta| meta.len());
        let model = store.install(file, metadata, got).map_err(unwritable)?;
        store.remove_old_versions(metadata.project_id);
        tracing::info!(
            version = metadata.version, bytes, path = %model.path.display(),
            "Downloaded the model"
        );
        Ok(model)
    }
}

/// Refuses a file with another SHA-256 than the pinned one.
pub(super) async fn check_digest(path: &Path, version: u64, expected: Option<&str>) -> Result<(), StudioError> {
    match expected {
        None => Ok(()),
        pinned => compare_digests(version, &digest(path).await?, pinned),
    }
}

/// The SHA-256 of a file.
async fn digest(path: &Path) -> Result<String, StudioError> {
    let file = path.to_owned();
    let hashed = tokio::task::spawn_blocking(move || sha256(&file)).await;
    hashed
        .map_err(io::Error::from)
        .flatten()
        .map_err(|source| StudioError::Store {
            path: path.to_owned(),
            source,
        })
}

fn compare_digests(version: u64, got: &str, expected: Option<&str>) -> Result<(), StudioError> {
    match expected.filter(|expected| *expected != got) {
        None => Ok(()),
        Some(expected) => Err(StudioError::OtherDigest {
            version,
            got: got.to_owned(),
            expected: expected.to_owned(),
        }),
    }
}
