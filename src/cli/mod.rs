//! The command line: one file per subcommand, with its arguments and its effect.

mod args;
mod check;
mod check_exposed;
mod check_machine;
mod check_model;
mod check_online;
mod check_running;
mod check_source;
mod command_line;
mod config;
mod config_watch;
mod demo;
mod device_link;
mod environment;
mod exit;
#[doc(hidden)]
pub mod fuzzing;
mod generate;
mod logging;
mod man_page;
mod model;
mod output;
mod run;
mod send;
mod setup;
mod stop;
mod watch;

use args::{ConfigArgs, LogArgs, NO_CONFIGURATION};
pub use command_line::main;
pub use exit::Exit;
use output::{complain, say, say_data, say_painted};
