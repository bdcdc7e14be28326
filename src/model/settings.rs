//! How a model is started.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::runtime_dir::default_bases;
use crate::config::{ModelSource, ShmBehavior, Threshold};
use crate::status::stats::Stats;

/// What is started, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file, socket or built-in model.
    pub source: ModelSource,
    /// The device's name; tells directories of several daemons on one machine apart.
    pub device: String,
    /// Where an executable copy of a model file goes that cannot be made executable (`models/` in it).
    pub work_dir: PathBuf,
    /// Whether features go through shared memory.
    pub shm: ShmBehavior,
    /// Set at the model after its hello.
    pub thresholds: Vec<Threshold>,
    /// How long things may take.
    pub limits: Limits,
    /// Where the directory of the socket is made: the first that works. [`sweep`](super::sweep) looks in the default.
    pub run_bases: Vec<PathBuf>,
    /// The program that is started for a built-in model, with `builtin-model NAME SOCKET`: this one. `/proc/self/exe`
    /// works after an update has replaced the file, too.
    pub builtin_program: PathBuf,
    /// Where cleaned answers are counted.
    pub stats: Arc<Stats>,
}

impl Settings {
    /// Settings with the defaults for everything else.
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
            shm: ShmBehavior::default(),
            thresholds: Vec::new(),
            limits: Limits::default(),
            run_bases: default_bases(),
            builtin_program: "/proc/self/exe".into(),
            stats,
        }
    }
}

/// How long a model may take for each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the start to the connection: 30 s.
    pub socket: Duration,
    /// Until the hello is answered: 60 s.
    pub hello: Duration,
    /// Until a classification (or a parameter) is answered: 60 s.
    pub classify: Duration,
    /// The same for the first classification of a model with TensorRT or GPU delegates: 1 h.
    pub slow_first: Duration,
    /// How often a long start is mentioned in the log: 10 s.
    pub progress: Duration,
}

impl Default for Limits {
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
