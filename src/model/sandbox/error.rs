//! Why a model could not be started in its sandbox.

use std::io;

/// Why a model could not be started in its sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// `model_sandbox` is `strict`, and something is missing.
    #[error(
        "model_sandbox is strict, and the sandbox would be incomplete: {0}; \"auto\" starts the model with what there is"
    )]
    Incomplete(String),
    /// The program could not be started.
    #[error(transparent)]
    Start(#[from] io::Error),
    /// The kernel has refused the rules for files.
    #[error("the rules for its files were refused: {0}")]
    Files(#[from] landlock::RulesetError),
    /// The filter could not be built.
    #[error("its system calls cannot be filtered: {0}")]
    Filter(String),
    /// A fault of this program.
    #[error("the thread that starts the model has panicked")]
    Panicked,
}
