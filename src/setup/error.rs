use thiserror::Error;

/// Why the component cannot run on this machine, and what to do.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct InstallError(pub(super) String);
