//! Log lines: to stdout (Greengrass files a line of stdout as INFO, a line of stderr as WARN), one event a line.

use std::io::{self, IsTerminal, Write};

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

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
        // A log that cannot be written (disk full, reader gone) would be complained of on stderr, and that panics likewise.
        .log_internal_errors(false)
        .with_writer(|| OneLine(io::stdout()))
        .with_ansi(io::stdout().is_terminal());
    // A second initialisation (tests in one process) keeps the first.
    let _ = match format {
        LogFormat::Text => builder.finish().with(filter_fn(harmless)).try_init().ok(),
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true);
            builder.finish().with(filter_fn(harmless)).try_init().ok()
        }
    };
}

/// Whatever RUST_LOG says: the details that HTTP, TLS and AWS crates log hold signed URLs, tokens and keys.
fn harmless(event: &tracing::Metadata<'_>) -> bool {
    event.target().starts_with("ei_greengrass") || *event.level() <= Level::INFO
}

/// Keeps each event on one line: texts from outside (GStreamer, the model, a configuration) may hold line breaks.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    /// The subscriber hands over one whole event a call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (text, end) = match event {
            [text @ .., b'\n'] => (text, &b"\n"[..]),
            text => (text, &b""[..]),
        };
        if text.contains(&b'\n') || text.contains(&b'\r') {
            let lines: Vec<_> = text
                .split(|byte| matches!(byte, b'\n' | b'\r'))
                .filter(|line| !line.is_empty())
                .collect();
            self.0.write_all(&lines.join(&b" | "[..]))?;
            self.0.write_all(end)?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_with_line_breaks_is_one_line() {
        let mut out = OneLine(Vec::new());
        out.write_all(b"first\r\n   second\nthird\n").unwrap();
        out.write_all(b"plain\n").unwrap();
        assert_eq!(String::from_utf8(out.0).unwrap(), "first |    second | third\nplain\n");
    }
}
