//! Commands that remove pairs. They are executed one after the other.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::clear::ClearTarget;
use crate::cache::error::CacheError;
use crate::cache::queue::RemovalReply;

/// Most waiting commands.
const MAX_COMMANDS: usize = 32;
/// How long a command waits for running uploads of the pairs that it removes. After that they are aborted.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

struct ClearCommand {
    target: ClearTarget,
    reply: RemovalReply,
    received: Instant,
}

/// The commands. The first one waits for uploads to end or is running.
#[derive(Default)]
pub(super) struct ClearQueue {
    commands: VecDeque<ClearCommand>,
    is_running: bool,
}

impl ClearQueue {
    /// Adds a command, or refuses it if too many wait.
    pub(super) fn push(&mut self, target: ClearTarget, reply: RemovalReply) {
        if self.commands.len() >= MAX_COMMANDS {
            // The caller may have stopped waiting.
            let _ = reply.send(Err(CacheError::Behind));
            return;
        }
        self.commands.push_back(ClearCommand {
            target,
            reply,
            received: Instant::now(),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The first command, if it is not running.
    pub(super) fn waiting(&self) -> Option<ClearTarget> {
        self.commands
            .front()
            .filter(|_| !self.is_running)
            .map(|command| command.target)
    }

    pub(super) fn started(&mut self) {
        self.is_running = true;
    }

    /// When the first command stops waiting for uploads; `None` if it is running.
    pub(super) fn drain_deadline(&self) -> Option<Instant> {
        let command = self.commands.front().filter(|_| !self.is_running)?;
        Some(command.received + DRAIN_LIMIT)
    }

    /// Answers the first command and removes it.
    pub(super) fn finish(&mut self, result: Result<(), CacheError>) {
        self.is_running = false;
        let Some(command) = self.commands.pop_front() else {
            return;
        };
        if let Err(error) = &result {
            match command.target {
                ClearTarget::All => tracing::warn!(%error, "Clearing the S3 cache failed"),
                ClearTarget::One { id, .. } => tracing::warn!(%id, %error, "Removing a pair from S3 failed"),
            }
        }
        // The caller may have stopped waiting.
        let _ = command.reply.send(result);
    }
}
