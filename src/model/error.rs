//! Why a model failed.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use super::builtin::BuiltinError;
use super::file::ModelFileError;
use super::hello::HelloError;
use super::process::{describe, is_stop_signal};
use super::sandbox::SandboxError;
use super::shm::ShmError;

/// Lines of the model's output in an error message; the variant has all of them.
const SHOWN_LINES: usize = 3;

/// Why a model did not start or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// [`Interrupt::trip`](super::Interrupt::trip) was called.
    #[error("waiting for the model was interrupted")]
    Interrupted,
    /// The file is not a model for this machine.
    #[error(transparent)]
    File(#[from] ModelFileError),
    /// There is no built-in model of this name.
    #[error(transparent)]
    Builtin(#[from] BuiltinError),
    /// The directory of the socket could not be created.
    #[error("no directory for the model's socket could be created: {0}; /dev/shm or $TMPDIR must be writable")]
    RuntimeDir(#[source] io::Error),
    /// The model file is not executable, and no temporary copy of it could be executed.
    /// [`Model::start`](super::Model::start) with [`may_change_files`](super::ModelSettings::may_change_files) makes
    /// the file executable instead.
    #[error("no temporary directory takes an executable copy of the model: {0}")]
    NoTemporaryCopy(#[source] io::Error),
    /// The file is not the one that was downloaded.
    #[error("the model {} was changed or damaged: it has the SHA-256 {got}, and had {expected} when it was downloaded", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its SHA-256.
        got: String,
        /// The SHA-256 that it must have.
        expected: String,
    },
    /// The process could not be started.
    #[error("the model {} could not be started: {source}", path.display())]
    Spawn {
        /// The program.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The process could not be started in its sandbox.
    #[error("the model could not be started: {0}")]
    Sandbox(#[source] SandboxError),
    /// The socket exists, but the connection failed.
    #[error("the model's socket {} cannot be connected to: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The process does not listen on the socket.
    #[error("the model did not open its socket within {}{}", seconds(*.limit), format_output(.output))]
    NoSocket {
        /// The time limit.
        limit: Duration,
        /// The last lines of the process.
        output: Vec<String>,
    },
    /// The process ended, or closed the connection.
    #[error("the model {} {during}{}", .status.map_or_else(|| "closed the connection".to_owned(), describe), format_output(.output))]
    Ended {
        /// The step, e.g. `while it was starting`.
        during: &'static str,
        /// `None`: the process is running, or this program did not start it.
        status: Option<ExitStatus>,
        /// The last lines of the process.
        output: Vec<String>,
    },
    /// No answer within the limit.
    #[error("the model did not answer within {} {during}{}", seconds(*.limit), format_output(.output))]
    TimedOut {
        /// The step.
        during: &'static str,
        /// The time limit.
        limit: Duration,
        /// The last lines of the process.
        output: Vec<String>,
    },
    /// The answer is not valid.
    #[error("the model sent {what} {during}{}", format_output(.output))]
    Malformed {
        /// The step.
        during: &'static str,
        /// What the model sent.
        what: String,
        /// The last lines of the process.
        output: Vec<String>,
    },
    /// The model answered with an error. It accepts other requests.
    #[error("the model refused {request}: {reason}")]
    Refused {
        /// What was requested.
        request: &'static str,
        /// The model's error message.
        reason: String,
    },
    /// This program cannot run the model.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// `--shm-behavior always`, but there is no shared memory.
    #[error("--shm-behavior is \"always\", but {0}; use \"auto\" to send the features as JSON")]
    SharedMemory(String),
    /// The shared memory of the running model cannot be used any more.
    #[error("the model's shared memory cannot be used any more: {0}")]
    SegmentLost(#[source] ShmError),
    /// More values than the model accepts, or than were written.
    #[error("{elements} values cannot be sent to the model; it takes up to {accepted}")]
    TooManyValues {
        /// The number of values.
        elements: usize,
        /// The largest accepted number.
        accepted: usize,
    },
    /// A name or value that the model protocol cannot represent.
    #[error(
        "{0} cannot be sent to a model: names consist of letters, digits and _; values are finite numbers, or strings without braces"
    )]
    Unsendable(String),
}

impl ModelError {
    /// Whether the model process cannot be used any more. Otherwise only this request failed.
    pub fn is_fatal(&self) -> bool {
        !matches!(
            self,
            Self::Refused { .. } | Self::TooManyValues { .. } | Self::Unsendable(_)
        )
    }

    /// Whether it is useless to start the same model again: the file or the configuration must change.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::File(ModelFileError::Unreadable { .. } | ModelFileError::NotExecutable { .. }) => false,
            Self::File(_) | Self::Builtin(_) | Self::SharedMemory(_) | Self::Changed { .. } => true,
            Self::Sandbox(error) => matches!(error, SandboxError::Incomplete(_)),
            Self::Hello(error) => !matches!(error, HelloError::Refused(_)),
            _ => false,
        }
    }

    /// Whether SIGINT, SIGTERM or SIGHUP ended the model. Such a signal often goes to the whole process group, so this
    /// program may be about to stop too.
    pub fn is_stop_signal(&self) -> bool {
        matches!(self, Self::Ended { status: Some(status), .. } if is_stop_signal(*status))
    }

    /// Whether the model itself is to blame: not this machine, and nobody who stopped it.
    pub fn is_models_fault(&self) -> bool {
        !matches!(
            self,
            Self::Interrupted | Self::RuntimeDir(_) | Self::Sandbox(_) | Self::Changed { .. }
        ) && !self.is_stop_signal()
    }

    /// The last lines the process printed, at most 100.
    pub fn output(&self) -> &[String] {
        match self {
            Self::NoSocket { output, .. }
            | Self::Ended { output, .. }
            | Self::TimedOut { output, .. }
            | Self::Malformed { output, .. } => output,
            _ => &[],
        }
    }

    /// The message without the model's output: the same text for the same fault.
    pub fn brief(&self) -> String {
        let mut text = self.to_string();
        text.truncate(text.len() - format_output(self.output()).len());
        text
    }
}

fn format_output(lines: &[String]) -> String {
    match lines {
        [] => String::new(),
        lines => format!(
            "; it last printed: {}",
            lines[lines.len().saturating_sub(SHOWN_LINES)..].join(" | ")
        ),
    }
}

fn seconds(limit: Duration) -> String {
    match limit.as_millis() {
        ms if ms % 1000 != 0 => format!("{ms} ms"),
        ms => format!("{} s", ms / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brief_message_does_not_depend_on_the_models_output() {
        let timed_out = |line: &str| ModelError::TimedOut {
            during: "while it was working",
            limit: Duration::from_millis(1500),
            output: vec!["one".into(), "two".into(), "three".into(), line.into()],
        };
        assert_eq!(
            timed_out("at 12:01").to_string(),
            "the model did not answer within 1500 ms while it was working; it last printed: two | three | at 12:01"
        );
        assert_eq!(timed_out("at 12:01").brief(), timed_out("at 12:02").brief());
        assert_eq!(
            timed_out("").brief(),
            "the model did not answer within 1500 ms while it was working"
        );
    }
}
