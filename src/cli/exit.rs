//! Exit codes.

use std::process::ExitCode;

/// The result of the program, with its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Orderly: 0.
    Orderly,
    /// An unexpected failure: 1.
    Failure,
    /// The configuration or the command line cannot be used: 2.
    Configuration,
    /// Another daemon runs for the same device: 3.
    AlreadyRunning,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(match exit {
            Exit::Orderly => 0,
            Exit::Failure => 1,
            Exit::Configuration => 2,
            Exit::AlreadyRunning => 3,
        })
    }
}
