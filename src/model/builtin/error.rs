//! Why a built-in model did not run.

use std::io;
use std::path::PathBuf;

use super::kind::NAMES;

/// Why a built-in model did not run.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinError {
    /// Unknown name.
    #[error("there is no built-in model {name:?}; accepted are {}", NAMES.join(", "))]
    Unknown {
        /// The requested name.
        name: String,
    },
    /// The socket could not be used.
    #[error("{}: {source}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}
