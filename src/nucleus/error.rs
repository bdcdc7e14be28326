//! Why a request to the nucleus failed.

use std::path::PathBuf;
use std::time::Duration;

use greengrass_ipc::Error;

use crate::util::text::sentence;

/// A failure of a request to the nucleus. Contains no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NucleusError {
    /// The socket does not exist or nothing listens on it.
    #[error("the Greengrass nucleus cannot be reached at {}: {reason}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        reason: String,
    },
    /// The nucleus does not accept the token of the component.
    #[error(
        "the Greengrass nucleus at {} does not accept the component's token (SVCUID): {reason}; \
         it is valid until the nucleus is restarted",
        socket.display()
    )]
    TokenRefused {
        /// The socket.
        socket: PathBuf,
        /// Why.
        reason: String,
    },
    /// The nucleus does not answer.
    #[error("the Greengrass nucleus did not answer {operation} within {} s", limit.as_secs())]
    TimedOut {
        /// The operation.
        operation: &'static str,
        /// The time limit.
        limit: Duration,
    },
    /// The nucleus has no such value.
    #[error("the Greengrass nucleus has no value for {operation}")]
    NotFound {
        /// The operation.
        operation: &'static str,
    },
    /// The component's `accessControl` does not allow the operation.
    #[error("add to accessControl under aws.greengrass.ipc.pubsub: aws.greengrass#{operation} on {topic}")]
    Unauthorized {
        /// The operation.
        operation: &'static str,
        /// The topic.
        topic: String,
    },
    /// The nucleus refuses the operation, or the connection failed meanwhile.
    #[error("{operation} failed: {reason}")]
    Failed {
        /// The operation.
        operation: &'static str,
        /// Why.
        reason: String,
    },
}

impl NucleusError {
    /// The error of an operation on a local topic.
    pub(super) fn of_topic(operation: &'static str, topic: &str, error: &Error) -> Self {
        match error {
            Error::Service { model, .. } if model.ends_with("#UnauthorizedError") => Self::Unauthorized {
                operation,
                topic: topic.to_owned(),
            },
            error => Self::of_operation(operation, error),
        }
    }

    /// The error of an operation on an open connection.
    pub(super) fn of_operation(operation: &'static str, error: &Error) -> Self {
        match error {
            Error::Service { model, .. } if model.ends_with("#ResourceNotFoundError") => Self::NotFound { operation },
            Error::Timeout { timeout, .. } => Self::TimedOut {
                operation,
                limit: *timeout,
            },
            error => Self::Failed {
                operation,
                reason: sentence(error),
            },
        }
    }
}
