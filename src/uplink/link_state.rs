//! The state of the connection, for the status.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::connection_error::ConnectionError;
use crate::status::{LinkStatus, StatusSource};

/// State of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// A connection attempt is in progress.
    Connecting {
        /// Number of this attempt since the start or since the last connection.
        attempt: u32,
    },
    /// Connected and subscribed.
    Online {
        /// Start of the connection.
        since: Instant,
    },
    /// Waiting for the next attempt.
    Offline {
        /// Why there is no connection.
        reason: ConnectionError,
        /// Start of the outage.
        since: Instant,
        /// Delay before the next attempt, counted from when this state was set.
        retry_in: Duration,
    },
}

impl StatusSource<LinkStatus> for watch::Receiver<LinkState> {
    fn status(&self) -> LinkStatus {
        match &*self.borrow() {
            LinkState::Connecting { attempt } => LinkStatus::Connecting { attempt: *attempt },
            LinkState::Online { since } => LinkStatus::Online {
                duration: since.elapsed(),
            },
            LinkState::Offline {
                reason,
                since,
                retry_in,
            } => LinkStatus::Offline {
                reason: reason.to_string(),
                duration: since.elapsed(),
                retry_in: *retry_in,
            },
        }
    }
}
