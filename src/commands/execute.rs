//! From a received message to its answer.

use tracing::Instrument;

use super::answer::error_answer;
use super::context::CommandContext;
use super::parse::{ParsedCommand, parse};
use super::table::Outcome;
use crate::uplink::ReceivedCommand;
use crate::util::text::excerpt;

/// What the supervisor does after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing more.
    Continue,
    /// End this session and begin a new one.
    Restart,
}

/// Executes a command and publishes its answer. Slow work, such as clearing a cache, continues on the tokio runtime, and
/// its answer follows then.
pub fn execute(received: &ReceivedCommand, context: &CommandContext<'_>) -> Action {
    let ParsedCommand { spec, value } = match parse(&received.payload) {
        Ok(command) => command,
        Err(error) => {
            tracing::warn!(%error, "A command was refused");
            context.answers.publish(error_answer(error));
            return Action::Continue;
        }
    };
    let span = tracing::info_span!("command", verb = spec.name);
    let entered = span.enter();
    tracing::info!(command = %excerpt(&String::from_utf8_lossy(&received.payload)), "Command received");
    let answers = context.answers.clone();
    let (reply, action) = match (spec.handler)(context, value) {
        Outcome::Done(reply) => (reply, Action::Continue),
        Outcome::Restart(reply) => (reply, Action::Restart),
        Outcome::Later(reply) => {
            drop(entered);
            let answer = async move { answers.publish(reply.await.to_json(spec.answer_key)) };
            tokio::spawn(answer.instrument(span));
            return Action::Continue;
        }
    };
    answers.publish(reply.to_json(spec.answer_key));
    action
}
