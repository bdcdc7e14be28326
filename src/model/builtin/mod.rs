//! The models this program can be itself: for `demo`, tests and benchmarks.
//!
//! `builtin:NAME` as model file starts this program with the hidden arguments `builtin-model NAME SOCKET`. It speaks
//! over the same socket and shared memory as a model from Edge Impulse Studio and needs nothing else.

mod kind;
mod server;
mod vision;

use std::io;
use std::path::{Path, PathBuf};

use kind::Kind;
pub use kind::NAMES;

use super::shm::ShmError;

/// Why a built-in model did not run.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinError {
    /// No such name.
    #[error("there is no built-in model {name:?}; accepted are {}", NAMES.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The socket could not be used.
    #[error("{}: {source}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No shared memory.
    #[error(transparent)]
    SharedMemory(#[from] ShmError),
}

/// Checks a name without running anything.
///
/// # Errors
/// [`BuiltinError::Unknown`] lists the accepted names.
pub fn check_name(name: &str) -> Result<(), BuiltinError> {
    Kind::parse(name).map(drop)
}

/// Is the model `name` for the one client that connects to `socket`, until it goes away.
///
/// Signals keep their default action: the process ends at once. Its shared memory has lost its name by then, or is
/// removed by the client.
///
/// # Errors
/// An unknown name, or what the operating system says.
pub fn run(name: &str, socket: &Path) -> Result<(), BuiltinError> {
    server::serve(&Kind::parse(name)?, socket)
}
