//! Time and size limits for everything that comes from Studio.

use std::time::Duration;

/// The limits; the defaults are for use outside tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StudioLimits {
    /// To establish a connection: 10 s.
    pub connect: Duration,
    /// For a complete answer in JSON: 60 s.
    pub answer: Duration,
    /// Between two chunks of a download: 30 s.
    pub stall: Duration,
    /// For a whole download: 2 h.
    pub download: Duration,
    /// Between two status requests for a build job: 3 s.
    pub poll: Duration,
    /// For a build job: 30 min.
    pub build: Duration,
    /// How long Studio may take before an earlier model is used meanwhile: 20 s.
    pub patience: Duration,
    /// Bytes of an answer in JSON: 8 MiB.
    pub json_bytes: u64,
    /// Bytes of a model: 1 GiB.
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
            patience: Duration::from_secs(20),
            json_bytes: 8 << 20,
            model_bytes: 1 << 30,
        }
    }
}
