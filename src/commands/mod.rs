//! The commands of `command/input`: [`COMMANDS`] is the table of commands with value, handler and answer.
//!
//! [`execute`] parses a received message, calls the handler of the command and publishes the answer. `send` and the table in
//! `recipes/README.md` use the same table.

mod answer;
mod context;
mod execute;
mod parse;
mod table;

pub use answer::refusal_answer;
pub use context::{AnswerPublisher, CommandContext};
pub use execute::{Action, execute};
pub use table::{COMMANDS, CommandSpec, find, markdown_table};
