//! Why a session ends, which decides what the supervisor does next.

/// Why a session ends. Handlers of events and commands return `ControlFlow<SessionEnd>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionEnd {
    /// The command `restart`: a new session follows.
    Restart,
    /// The configuration has changed: a session with the new one follows.
    Reconfigure,
    /// A stop was requested: the process ends.
    Stop,
    /// The process is replaced by a new one: too many threads are stuck, or the new configuration needs it.
    Reexec,
}
