//! The parser of the command line, and the dispatch to the subcommands.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::args::LogArgs;
use super::exit::Exit;
use super::output::complain;
use super::{check, config, demo, model, run, send, setup, stop, watch};
use crate::util::redact;

/// Runs an Edge Impulse Linux model on a camera and reports what it sees to AWS IoT Core.
#[derive(Debug, Parser)]
#[command(name = "ei-greengrass", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: capture, inference, messages, commands.
    Run(run::RunArgs),
    /// Show every effective setting, the pipeline and the model, and their problems. Changes nothing.
    Check(check::CheckArgs),
    /// Stop the running daemon of this device: remove its lock file and wait for its end.
    Stop(stop::StopArgs),
    /// Send a command to the device, and show its answer.
    Send(send::SendArgs),
    /// Show what the device publishes, one line per message.
    Watch(watch::WatchArgs),
    /// Download the model, or show what a model is.
    Model(model::ModelCommand),
    /// Show configuration values.
    Config(config::ConfigCommand),
    /// Prepare this machine for the component: service user, groups, devices, link. The install step runs it as root.
    Setup(setup::SetupArgs),
    /// Run the whole pipeline without AWS, camera or download.
    Demo(demo::DemoArgs),
    /// Run a built-in model (used by `builtin:NAME`).
    #[command(hide = true)]
    BuiltinModel {
        /// Which model.
        name: String,
        /// The socket to listen on.
        socket: PathBuf,
    },
}

/// Parses the arguments and runs the subcommand.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused_arguments(&error),
    };
    let log = &cli.log;
    let exit = match cli.command {
        Command::Run(args) => run::main(&args, log),
        Command::Check(args) => check::main(&args),
        Command::Stop(args) => stop::main(&args, log),
        Command::Send(args) => send::main(&args, log),
        Command::Watch(args) => watch::main(&args, log),
        Command::Model(command) => model::main(&command, log),
        Command::Config(command) => config::main(&command),
        Command::Setup(args) => setup::main(&args),
        Command::Demo(args) => demo::main(&args, log),
        Command::BuiltinModel { name, socket } => builtin_model(&name, &socket),
    };
    exit.into()
}

/// Shows the help, or what is wrong with the arguments. The error repeats an argument, which may be a secret.
fn refused_arguments(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if !error.use_stderr() || redact::credentials(&text) == text {
        error.exit();
    }
    complain(text.trim_end());
    Exit::Configuration.into()
}

fn builtin_model(name: &str, socket: &std::path::Path) -> Exit {
    match crate::model::builtin::run(name, socket) {
        Ok(()) => Exit::Orderly,
        Err(e) => {
            complain(&e.to_string());
            Exit::Failure
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_has_a_help_text_with_an_example() {
        for command in Cli::command().get_subcommands_mut().filter(|c| !c.is_hide_set()) {
            let help = command.render_long_help().to_string();
            assert!(
                help.contains("Example"),
                "{} has no example:\n{help}",
                command.get_name()
            );
        }
    }
}
