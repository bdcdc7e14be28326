//! Settings of a model.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::runtime_dir::default_bases;
use super::sandbox::{Sandbox, SandboxSupport};
use crate::config::{ModelSandboxConfig, ModelSource, ShmBehavior, Threshold};
use crate::status::health::HealthFlag;
use crate::status::stats::Stats;

/// The model to start, and how.
#[derive(Debug, Clone)]
pub struct ModelSettings {
    /// The file, socket or built-in model.
    pub source: ModelSource,
    /// The device's name, which is part of the name of the runtime directory.
    pub device: String,
    /// Its subdirectory `models/` receives an executable copy of a model file that cannot be made executable; a model in
    /// a sandbox has its `HOME` in `model-cache/`.
    pub work_dir: PathBuf,
    /// Whether a model file that is not executable is made executable, or copied into `work_dir`. Otherwise a temporary
    /// copy is started.
    pub may_change_files: bool,
    /// The SHA-256 that the model file must have, as 64 lower-case hexadecimal digits; `None`: any.
    pub sha256: Option<String>,
    /// What the process may do.
    pub sandbox: Sandbox,
    /// Whether features are passed in shared memory.
    pub shm: ShmBehavior,
    /// Fails while features are sent as JSON because the model's shared memory cannot be used.
    pub shm_health: HealthFlag,
    /// Set after the hello.
    pub thresholds: Vec<Threshold>,
    /// Time limits of each step.
    pub timeouts: ModelTimeouts,
    /// Bases of the runtime directory: the first that works is used. [`sweep`](super::sweep) uses the default bases.
    pub run_bases: Vec<PathBuf>,
    /// The program that is started as `builtin-model NAME SOCKET` for a built-in model: this one. `/proc/self/exe`
    /// works even after an update has replaced the file.
    pub builtin_program: PathBuf,
    /// Counts cleaned answers.
    pub stats: Arc<Stats>,
}

impl ModelSettings {
    /// Default settings for everything else.
    pub fn new(
        source: ModelSource,
        device: impl Into<String>,
        work_dir: impl Into<PathBuf>,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            source,
            device: device.into(),
            work_dir: work_dir.into(),
            may_change_files: true,
            sha256: None,
            sandbox: Sandbox::new(ModelSandboxConfig::default(), SandboxSupport::detect()),
            shm: ShmBehavior::default(),
            shm_health: HealthFlag::default(),
            thresholds: Vec::new(),
            timeouts: ModelTimeouts::default(),
            run_bases: default_bases(),
            builtin_program: "/proc/self/exe".into(),
            stats,
        }
    }
}

/// Time limits of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelTimeouts {
    /// From the start to the connection: 30 s.
    pub socket: Duration,
    /// Until the hello is answered: 60 s.
    pub hello: Duration,
    /// Until a classification (or a parameter) is answered: 60 s.
    pub classify: Duration,
    /// The same for the first classification of a model with TensorRT or GPU delegates: 1 h.
    pub slow_first: Duration,
    /// Time between two log lines during a long start: 10 s.
    pub progress: Duration,
}

impl Default for ModelTimeouts {
    fn default() -> Self {
        Self {
            socket: Duration::from_secs(30),
            hello: Duration::from_secs(60),
            classify: Duration::from_secs(60),
            slow_first: Duration::from_secs(3600),
            progress: Duration::from_secs(10),
        }
    }
}
