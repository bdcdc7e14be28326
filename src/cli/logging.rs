//! Log lines: to stdout (Greengrass files a line of stdout as INFO, a line of stderr as WARN), one event a line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::Verbosity;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to stdout. `RUST_LOG` wins over `verbosity`.
pub fn init(format: LogFormat, verbosity: Verbosity) {
    let level = match verbosity {
        Verbosity::Silent => "warn",
        Verbosity::Normal => "info",
        Verbosity::Verbose => "debug",
    };
    // rumqttc and the TLS stack log connection details of their own; what matters of it is said by the uplink.
    let default = format!("warn,ei_greengrass={level}");
    let filter = EnvFilter::builder()
        .parse(
            std::env::var("RUST_LOG")
                .ok()
                .filter(|v| !v.is_empty())
                .unwrap_or_else(|| default.clone()),
        )
        .unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stdout)
        .with_ansi(std::io::stdout().is_terminal());
    // A second initialisation (tests in one process) keeps the first.
    let _ = match format {
        LogFormat::Text => builder.try_init().ok(),
        LogFormat::Json => builder.json().flatten_event(true).try_init().ok(),
    };
}
