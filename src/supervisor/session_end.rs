//! Why a session ends, which decides what the supervisor does next.

/// Why a session ends. Handlers of events and commands return `ControlFlow<SessionEnd>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionEnd {
    /// The command `restart`: a new session follows.
    Restart,
    /// A stop was requested: the process ends.
    Stop,
    /// Too many threads are stuck: the process is replaced by a new one.
    Reexec,
}
