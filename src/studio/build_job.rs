//! A job in Studio that builds a model.

use std::collections::VecDeque;
use std::time::Instant;

use serde_json::json;

use super::api::{JobOutput, JobStarted, JobStatus};
use super::client::StudioClient;
use super::error::StudioError;
use super::selection::DeploymentOptions;
use crate::util::backoff::Retry;
use crate::util::clock::rounded;
use crate::util::text::excerpt;

/// Most lines of a failed job's output in an error.
const OUTPUT_LINES: usize = 5;
/// Most status requests in a row that may fail because of the network.
const MAX_FAILURES: u32 = 10;
/// A running build is logged after this many status requests.
const LOG_EVERY: u32 = 10;

/// A job of one project.
pub(super) struct BuildJob<'a> {
    studio: &'a StudioClient,
    project: u64,
    pub(super) id: u64,
}

impl<'a> BuildJob<'a> {
    /// A job that was started earlier.
    pub(super) fn new(studio: &'a StudioClient, project: u64, id: u64) -> Self {
        Self { studio, project, id }
    }

    /// Starts a job.
    pub(super) async fn start(
        studio: &'a StudioClient,
        project: u64,
        impulse: &str,
        options: &DeploymentOptions,
    ) -> Result<Self, StudioError> {
        let DeploymentOptions {
            target,
            engine,
            variant,
        } = options;
        let query = [("type", &**target), ("impulseId", impulse)];
        let body = json!({"engine": engine, "modelType": variant});
        let path = format!("api/{project}/jobs/build-ondevice-model");
        let JobStarted { id } = studio.post("the build of the model", &path, &query, &body).await?;
        tracing::info!(
            job = id,
            target,
            variant,
            engine,
            "Started the build of the model in Edge Impulse Studio"
        );
        Ok(Self { studio, project, id })
    }

    /// Waits until the job has succeeded.
    pub(super) async fn wait(&self) -> Result<(), StudioError> {
        let (limits, started) = (self.studio.limits, Instant::now());
        let path = format!("api/{}/jobs/{}/status", self.project, self.id);
        let (mut requests, mut failures) = (0_u32, 0);
        while started.elapsed() < limits.build {
            tokio::time::sleep(limits.poll).await;
            match self.studio.get::<JobStatus>("the state of the build", &path, &[]).await {
                Ok(JobStatus { job }) if job.is_finished() => {
                    if job.finished_successful == Some(true) {
                        tracing::info!(job = self.id, after = ?rounded(started.elapsed()), "The model was built");
                        return Ok(());
                    }
                    return Err(StudioError::BuildFailed {
                        job: self.id,
                        tail: self.last_output().await,
                    });
                }
                Ok(_) => failures = 0,
                Err(e) if e.retry() == Retry::Soon && failures < MAX_FAILURES => {
                    failures += 1;
                    tracing::debug!(job = self.id, error = %e, "Requesting the state of the build failed");
                }
                Err(e) => return Err(e),
            }
            requests += 1;
            if requests.is_multiple_of(LOG_EVERY) {
                tracing::info!(job = self.id, after = ?rounded(started.elapsed()), "The model is still being built");
            }
        }
        Err(StudioError::BuildTooLong {
            job: self.id,
            after: limits.build,
        })
    }

    /// The last lines of the job's output, or why they are not available.
    async fn last_output(&self) -> Vec<String> {
        let path = format!("api/{}/jobs/{}/stdout", self.project, self.id);
        let output = self
            .studio
            .get::<JobOutput>("the output of the build", &path, &[])
            .await;
        match output {
            Ok(mut output) => {
                output.stdout.sort_by(|a, b| a.created.cmp(&b.created));
                last_lines(output.stdout.iter().map(|piece| &*piece.data))
            }
            Err(e) => vec![format!("(its output is not available: {e})")],
        }
    }
}

fn last_lines<'a>(chunks: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut lines = VecDeque::with_capacity(OUTPUT_LINES + 1);
    for line in chunks
        .flat_map(str::lines)
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        lines.push_back(excerpt(line));
        if lines.len() > OUTPUT_LINES {
            lines.pop_front();
        }
    }
    lines.into()
}
