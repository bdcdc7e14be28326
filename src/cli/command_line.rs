//! The parser of the command line, and the dispatch to the subcommands.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use super::args::LogArgs;
use super::exit::Exit;
use super::output::complain;
use super::{check, config, demo, generate, model, run, send, setup, stop, watch};
use crate::util::redact;

/// Runs an Edge Impulse Linux model on a camera and reports what it sees to AWS IoT Core.
#[derive(Debug, Parser)]
#[command(name = "ei-greengrass", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: AnyCommand,
}

/// With the subcommands that the man page and the completions of shells do not show.
#[derive(Debug, Subcommand)]
enum AnyCommand {
    #[command(flatten)]
    Shown(Command),
    /// Run a built-in model (used by `builtin:NAME`).
    #[command(hide = true)]
    BuiltinModel {
        /// Which model.
        name: String,
        /// The socket to listen on.
        socket: PathBuf,
    },
    /// Write the man page and the completions of bash, zsh and fish.
    #[command(hide = true)]
    Generate(generate::GenerateArgs),
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
}

/// Parses the arguments and runs the subcommand.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused_arguments(&error),
    };
    let exit = match cli.command {
        AnyCommand::Shown(command) => run_command(command, &cli.log),
        AnyCommand::BuiltinModel { name, socket } => builtin_model(&name, &socket),
        AnyCommand::Generate(args) => generate::main(&args, &shown_command_line()),
    };
    exit.into()
}

fn run_command(command: Command, log: &LogArgs) -> Exit {
    match command {
        Command::Run(args) => run::main(&args, log),
        Command::Check(args) => check::main(&args),
        Command::Stop(args) => stop::main(&args, log),
        Command::Send(args) => send::main(&args, log),
        Command::Watch(args) => watch::main(&args, log),
        Command::Model(command) => model::main(&command, log),
        Command::Config(command) => config::main(&command),
        Command::Setup(args) => setup::main(&args, generate::shell_files(&shown_command_line())),
        Command::Demo(args) => demo::main(&args, log),
    }
}

/// The command line without its hidden parts: the generators of completions would show them.
fn shown_command_line() -> clap::Command {
    let whole = Cli::command();
    let about = whole.get_about().cloned().unwrap_or_default();
    let shown = clap::Command::new("ei-greengrass")
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .subcommand_required(true);
    Command::augment_subcommands(LogArgs::augment_args(shown))
        .mut_subcommand("setup", |setup| setup.mut_args(setup::hide_internal))
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

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_man_page_and_the_completions_name_every_subcommand_and_option_that_help_shows() {
        let files = generate::shell_files(&shown_command_line());
        let options = |command: &clap::Command| -> Vec<String> {
            let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
            shown
                .filter_map(|argument| argument.get_long())
                .map(str::to_owned)
                .collect()
        };
        let command_line = shown_command_line();
        let mut words = options(&command_line);
        for command in command_line.get_subcommands() {
            words.push(command.get_name().to_owned());
            words.extend(options(command));
            for nested in command.get_subcommands() {
                words.push(nested.get_name().to_owned());
                words.extend(options(nested));
            }
        }
        assert!(words.len() > 30, "{words:?}");
        for file in files {
            let text = file.text.replace("\\-", "-");
            for word in &words {
                assert!(text.contains(word.as_str()), "{} lacks {word}", file.path);
            }
            assert!(
                !text.contains("builtin-model") && !text.contains("generate"),
                "{}",
                file.path
            );
        }
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
