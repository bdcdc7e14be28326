//! The fields of Studio's answers that this component uses. Optional fields have a default.

use serde::Deserialize;

/// `GET /api/projects`
#[derive(Debug, Deserialize)]
pub(super) struct Projects {
    #[serde(default)]
    pub projects: Vec<Project>,
}

/// One project.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Project {
    pub id: u64,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub owner: String,
}

/// `GET /api/{projectId}/impulses`
#[derive(Debug, Deserialize)]
pub(super) struct Impulses {
    #[serde(default)]
    pub impulses: Vec<Impulse>,
}

/// One impulse.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Impulse {
    pub id: u64,
    #[serde(default)]
    pub name: String,
}

/// `GET /api/{projectId}/deployment/targets/data-sources`
#[derive(Debug, Deserialize)]
pub(super) struct Targets {
    #[serde(default)]
    pub targets: Vec<DeploymentTarget>,
}

/// One deployment target.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentTarget {
    /// Its name in requests, for example `runner-linux-aarch64`.
    pub format: String,
    /// Engine to use without `--force-engine`.
    #[serde(default)]
    pub preferred_engine: String,
    /// Engines that may be forced.
    #[serde(default)]
    pub supported_engines: Vec<String>,
    /// Variants, supported or not; empty: unknown.
    #[serde(default)]
    pub model_variants: Vec<TargetVariant>,
}

/// One variant of a target.
#[derive(Debug, Clone, Deserialize)]
pub struct TargetVariant {
    /// `float32`, `int8`, ...
    pub variant: String,
    /// Whether the target supports it.
    #[serde(default)]
    pub supported: bool,
    /// Why the target does not support it.
    #[serde(default)]
    pub hint: Option<String>,
}

/// `GET /api/{projectId}/model-variants`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Variants {
    #[serde(default)]
    pub model_variants: Vec<Variant>,
}

/// One variant of the project's model.
#[derive(Debug, Deserialize)]
pub(super) struct Variant {
    pub variant: String,
}

/// `GET /api/{projectId}/deployment`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeploymentInfo {
    #[serde(default)]
    pub has_deployment: bool,
    #[serde(default)]
    pub version: Option<u64>,
}

/// `POST /api/{projectId}/jobs/build-ondevice-model`
#[derive(Debug, Deserialize)]
pub(super) struct JobStarted {
    pub id: u64,
}

/// `GET /api/{projectId}/jobs/{id}/status`
#[derive(Debug, Deserialize)]
pub(super) struct JobStatus {
    pub job: BuildState,
}

/// The state of a job. Studio sets `finished` (a time, or true) when the job ends.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BuildState {
    #[serde(default)]
    pub finished: serde_json::Value,
    #[serde(default)]
    pub finished_successful: Option<bool>,
}

impl BuildState {
    pub(super) fn is_finished(&self) -> bool {
        !matches!(self.finished, serde_json::Value::Null | serde_json::Value::Bool(false))
    }
}

/// `GET /api/{projectId}/jobs/{id}/stdout`
#[derive(Debug, Deserialize)]
pub(super) struct JobOutput {
    #[serde(default)]
    pub stdout: Vec<OutputChunk>,
}

/// A part of a job's output with its time. Studio sends the newest first.
#[derive(Debug, Deserialize)]
pub(super) struct OutputChunk {
    #[serde(default)]
    pub created: String,
    #[serde(default)]
    pub data: String,
}
