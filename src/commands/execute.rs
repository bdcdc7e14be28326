//! Executes a received command and publishes its answer.

use tracing::Instrument;

use super::answer::error_answer;
use super::context::CommandContext;
use super::parse::{ParsedCommand, parse};
use super::table::CommandOutcome;
use crate::uplink::ReceivedCommand;
use crate::util::text::excerpt;

/// What the supervisor does after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Continue this session.
    Continue,
    /// End this session and begin a new one.
    Restart,
}

/// Executes a command and publishes its answer. Slow work, such as clearing a cache, continues on the tokio runtime and
/// publishes its answer when it ends.
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
    tracing::info!(command = %excerpt(&String::from_utf8_lossy(&received.payload)), "Received a command");
    let answers = context.answers.clone();
    let (reply, action) = match (spec.handler)(context, value) {
        CommandOutcome::Done(reply) => (reply, Action::Continue),
        CommandOutcome::Restart(reply) => (reply, Action::Restart),
        CommandOutcome::Later(reply) => {
            drop(entered);
            let answer = async move { answers.publish(reply.await.to_json(spec.answer_key)) };
            tokio::spawn(answer.instrument(span));
            return Action::Continue;
        }
    };
    answers.publish(reply.to_json(spec.answer_key));
    action
}
