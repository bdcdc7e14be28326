//! The command line: arguments, logging, dispatch. One file a subcommand.

mod check;
mod check_model;
mod check_online;
mod check_running;
mod config;
mod demo;
mod device_link;
mod environment;
mod logging;
mod model;
mod run;
mod send;
mod stop;
mod watch;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigError, Loaded, Sources, TextOrigin, Verbosity};
use crate::util::text::sentence;
pub use logging::LogFormat;

/// Environment variable in which the recipe hands over the component configuration.
const CONFIG_VARIABLE: &str = "CONFIG_PARAMETERS";

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Orderly: 0.
    Orderly,
    /// Something unforeseen: 1.
    Failure,
    /// The configuration or the command line cannot be used: 2.
    Configuration,
    /// Another daemon for the same device is running: 3.
    AlreadyRunning,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(match exit {
            Exit::Orderly => 0,
            Exit::Failure => 1,
            Exit::Configuration => 2,
            Exit::AlreadyRunning => 3,
        })
    }
}

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
    /// Show every effective setting, the pipeline and the model, and what is wrong with them. Changes nothing.
    Check(check::CheckArgs),
    /// End the running daemon of this device: removes its lock file and waits until it is gone.
    Stop(stop::StopArgs),
    /// Send a command to the device, and show its answer.
    Send(send::SendArgs),
    /// Show what the device publishes, one line a message.
    Watch(watch::WatchArgs),
    /// Download the model, or show what a model is.
    Model(model::ModelCommand),
    /// Look at the configuration.
    Config(config::ConfigCommand),
    /// Show the whole pipeline at work: no AWS, no camera, no download needed.
    Demo(demo::DemoArgs),
    /// Be a model (used by `builtin:NAME`).
    #[command(hide = true)]
    BuiltinModel {
        /// Which model.
        name: String,
        /// The socket to listen on.
        socket: PathBuf,
    },
}

#[derive(Debug, Args)]
struct LogArgs {
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, help_heading = "Logging")]
    log_format: LogFormat,
    /// Log more (debug). RUST_LOG wins.
    #[arg(long, global = true, help_heading = "Logging")]
    verbose: bool,
    /// Log warnings and errors only. RUST_LOG wins.
    #[arg(long, global = true, conflicts_with = "verbose", help_heading = "Logging")]
    silent: bool,
}

impl LogArgs {
    fn verbosity(&self) -> Option<Verbosity> {
        match (self.verbose, self.silent) {
            (true, _) => Some(Verbosity::Verbose),
            (_, true) => Some(Verbosity::Silent),
            _ => None,
        }
    }
}

/// Where the configuration comes from.
#[derive(Debug, Args, Clone)]
pub struct ConfigArgs {
    /// Component configuration, JSON or YAML: the parameters, {"Parameters": {...}}, or a whole recipe.
    /// Without it the environment variable CONFIG_PARAMETERS is read.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key, over what the configuration says; repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The model: an .eim file, the unix socket of a running one, or builtin:ball (= ei_local_model_file).
    #[arg(long, value_name = "FILE")]
    model: Option<String>,
    /// The broker, e.g. mqtt://localhost:1883 (= iot_endpoint).
    #[arg(long, value_name = "URL")]
    mqtt: Option<String>,
    /// The source as an ordinary gst-launch line; nothing in it is decoded.
    #[arg(long, value_name = "LINE")]
    gst: Option<String>,
}

impl ConfigArgs {
    /// Reads all sources. `Ok(None)`: there is no configuration at all.
    fn load(&self) -> Result<Option<Loaded>, ConfigError> {
        let text = match &self.config {
            Some(path) => Some((TextOrigin::File(path.clone()), crate::config::read_file(path)?)),
            // What is not UTF-8 in it is shown as such by whoever uses the value.
            None => std::env::var_os(CONFIG_VARIABLE)
                .map(|text| (TextOrigin::Environment, text.to_string_lossy().into_owned())),
        };
        let given =
            text.is_some() || !self.set.is_empty() || self.model.is_some() || self.mqtt.is_some() || self.gst.is_some();
        if !given {
            return Ok(None);
        }
        let sets = self
            .set
            .iter()
            .map(|set| crate::config::parse_set(set))
            .collect::<Result<_, _>>()?;
        crate::config::load(&Sources {
            text,
            sets,
            model: self.model.clone(),
            mqtt: self.mqtt.clone(),
            gst: self.gst.clone(),
            current_dir: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
        })
        .map(Some)
    }
}

/// What to say when there is no configuration at all.
const NO_CONFIGURATION: &str = "no configuration was given: there is no --config FILE, the environment variable CONFIG_PARAMETERS \
     (set by the Greengrass recipe) is not set, and there are no --set, --model, --mqtt or --gst flags. \
     To see the program at work: `ei-greengrass demo`; to run by hand: `ei-greengrass run --config FILE`";

/// Parses the arguments, sets logging up and runs the subcommand.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = &cli.log;
    let exit = match cli.command {
        Command::Run(args) => run::main(&args, log),
        Command::Check(args) => check::main(&args),
        Command::Stop(args) => stop::main(&args, log),
        Command::Send(args) => send::main(&args, log),
        Command::Watch(args) => watch::main(&args, log),
        Command::Model(command) => model::main(&command, log),
        Command::Config(command) => config::main(&command),
        Command::Demo(args) => demo::main(&args, log),
        Command::BuiltinModel { name, socket } => builtin_model(&name, &socket),
    };
    exit.into()
}

/// Writes to stdout. Unlike `println!` it does not panic when nobody reads (`check | head -1`).
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{}", text.trim_end_matches('\n'));
}

/// Writes to stderr, likewise.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
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
