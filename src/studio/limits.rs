//! Time and size limits for answers and files from Studio.

use std::time::Duration;

/// Time and size limits. Only tests change the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StudioLimits {
    /// Time for a connection. Default 10 s.
    pub connect: Duration,
    /// Time for a complete JSON answer. Default 60 s.
    pub answer: Duration,
    /// Time between two chunks of a download. Default 30 s.
    pub stall: Duration,
    /// Time for a whole download. Default 2 h.
    pub download: Duration,
    /// Time between two status requests for a build job. Default 3 s.
    pub poll: Duration,
    /// Time for a build job. Default 30 min.
    pub build: Duration,
    /// Time after which an earlier model is used while Studio has not answered. Default 20 s.
    pub earlier_model_after: Duration,
    /// Most bytes of a JSON answer. Default 8 MiB.
    pub json_bytes: u64,
    /// Most bytes of a model. Default 1 GiB.
    pub model_bytes: u64,
}

impl Default for StudioLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            download: Duration::from_secs(2 * 3600),
            poll: Duration::from_secs(3),
            build: Duration::from_secs(30 * 60),
            earlier_model_after: Duration::from_secs(20),
            json_bytes: 8 << 20,
            model_bytes: 1 << 30,
        }
    }
}
