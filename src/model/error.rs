//! What can go wrong with a model.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use super::builtin::BuiltinError;
use super::file::FileError;
use super::hello::HelloError;
use super::process::{describe, is_stop_signal};

/// Lines of output that an error shows; all that were kept are in the variant.
const SHOWN_LINES: usize = 3;

/// Why a model did not start or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// [`Interrupt::trip`](super::Interrupt::trip) was called. No fault.
    #[error("waiting for the model was interrupted")]
    Interrupted,
    /// The file cannot be a model for this machine.
    #[error(transparent)]
    File(#[from] FileError),
    /// No built-in model of this name.
    #[error(transparent)]
    Builtin(#[from] BuiltinError),
    /// No place for the socket.
    #[error("no directory for the model's socket could be made: {0}; /dev/shm or $TMPDIR must be writable")]
    RuntimeDir(#[source] io::Error),
    /// The process could not be started.
    #[error("the model {} could not be started: {source}", path.display())]
    Spawn {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket is there but cannot be used.
    #[error("the model's socket {} cannot be connected to: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody listens on the socket.
    #[error("the model did not open its socket within {}{}", seconds(*.limit), shown(.output))]
    NoSocket {
        /// How long it was waited for.
        limit: Duration,
        /// What the process printed last.
        output: Vec<String>,
    },
    /// The process ended, or closed the connection.
    #[error("the model {} {during}{}", .status.map_or_else(|| "closed the connection".to_owned(), describe), shown(.output))]
    Ended {
        /// What was being done, e.g. `while it was starting`.
        during: &'static str,
        /// How it ended; `None`: it runs, or is not our child.
        status: Option<ExitStatus>,
        /// What the process printed last.
        output: Vec<String>,
    },
    /// No answer within the limit.
    #[error("the model did not answer within {} {during}{}", seconds(*.limit), shown(.output))]
    Silent {
        /// What was being done.
        during: &'static str,
        /// The limit.
        limit: Duration,
        /// What the process printed last.
        output: Vec<String>,
    },
    /// What came is no answer.
    #[error("the model sent {what} {during}{}", shown(.output))]
    Nonsense {
        /// What was being done.
        during: &'static str,
        /// What came instead of an answer.
        what: String,
        /// What the process printed last.
        output: Vec<String>,
    },
    /// The model answered that it will not do this. It can be asked something else.
    #[error("the model refused {request}: {reason}")]
    Refused {
        /// What was asked.
        request: &'static str,
        /// The model's words.
        reason: String,
    },
    /// The model is not one this program can run.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// `--shm-behavior always`, and there is none.
    #[error("--shm-behavior is \"always\", but {0}; use \"auto\" to send the features as JSON then")]
    SharedMemory(String),
    /// More values than a model may take, or than there are.
    #[error("{elements} values cannot be sent to the model, it takes up to {accepted}")]
    TooManyValues {
        /// How many were asked for.
        elements: usize,
        /// How many there may be.
        accepted: usize,
    },
    /// A name or value that the model's protocol cannot carry.
    #[error(
        "{0} cannot be sent to a model: names are letters, digits and _, values are finite numbers or plain texts without braces"
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

    /// Whether starting the same model again cannot help: the file or the configuration has to change.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::File(FileError::Unreadable { .. } | FileError::NotExecutable { .. }) => false,
            Self::File(_) | Self::Builtin(_) | Self::SharedMemory(_) => true,
            Self::Hello(error) => !matches!(error, HelloError::Refused(_)),
            _ => false,
        }
    }

    /// Whether the model ended after SIGINT, SIGTERM or SIGHUP: such a signal is meant for this program as well, so
    /// look for a stop request before calling it a fault.
    pub fn is_stop_signal(&self) -> bool {
        matches!(self, Self::Ended { status: Some(status), .. } if is_stop_signal(*status))
    }

    /// The last lines the process printed, at most 100.
    pub fn output(&self) -> &[String] {
        match self {
            Self::NoSocket { output, .. }
            | Self::Ended { output, .. }
            | Self::Silent { output, .. }
            | Self::Nonsense { output, .. } => output,
            _ => &[],
        }
    }

    /// The message without the model's own output: the same words for the same fault.
    pub fn brief(&self) -> String {
        let mut text = self.to_string();
        text.truncate(text.len() - shown(self.output()).len());
        text
    }
}

fn shown(lines: &[String]) -> String {
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
    fn the_same_fault_has_the_same_brief_words_whatever_the_model_printed() {
        let silent = |line: &str| ModelError::Silent {
            during: "while it was working",
            limit: Duration::from_millis(1500),
            output: vec!["one".into(), "two".into(), "three".into(), line.into()],
        };
        assert_eq!(
            silent("at 12:01").to_string(),
            "the model did not answer within 1500 ms while it was working; it last printed: two | three | at 12:01"
        );
        assert_eq!(silent("at 12:01").brief(), silent("at 12:02").brief());
        assert_eq!(
            silent("").brief(),
            "the model did not answer within 1500 ms while it was working"
        );
    }
}
