//! Log lines: to stdout (Greengrass files a line of stdout as INFO, a line of stderr as WARN), one event a line.

use std::io::{self, IsTerminal, Write};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{ParseError, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

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
    let wished = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let (filter, refused) = filter(wished.as_deref(), verbosity);
    let shown = filter.to_string();
    let subscriber = subscriber(format, filter, io::stdout().is_terminal(), io::stdout);
    // A second initialisation (tests in one process) keeps the first.
    if subscriber.try_init().is_err() {
        return;
    }
    if let Some(problem) = refused {
        tracing::warn!(
            "RUST_LOG is not understood ({problem}) and is ignored; an example: RUST_LOG=ei_greengrass=debug"
        );
    }
    tracing::debug!(
        "the log shows {shown}; details of other crates never, since they hold signed URLs, tokens and keys"
    );
}

/// What is shown, and why `wished` is not, when it is not.
fn filter(wished: Option<&str>, verbosity: Verbosity) -> (Targets, Option<ParseError>) {
    let level = match verbosity {
        Verbosity::Silent => Level::WARN,
        Verbosity::Normal => Level::INFO,
        Verbosity::Verbose => Level::DEBUG,
    };
    // What matters of the warnings of the AWS crates, which go over many lines ("failed to load region from IMDS"), is in one
    // line of ours.
    let default = || {
        Targets::new()
            .with_default(Level::WARN)
            .with_target("aws", Level::ERROR)
            .with_target("ei_greengrass", level)
    };
    match wished.map(str::parse::<Targets>) {
        None => (default(), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(problem)) => (default(), Some(problem)),
    }
}

fn subscriber<W: Write + 'static>(
    format: LogFormat,
    filter: Targets,
    colours: bool,
    writer: impl Fn() -> W + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    let lines = fmt::layer()
        .with_target(false)
        // A log that cannot be written (disk full, reader gone) would be complained of on stderr, and that panics likewise.
        .log_internal_errors(false)
        .with_writer(move || OneLine(writer()))
        .with_ansi(colours);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .with(filter_fn(harmless))
}

/// Whatever RUST_LOG says: the details that HTTP, TLS and AWS crates log hold signed URLs, tokens and keys.
fn harmless(event: &Metadata<'_>) -> bool {
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
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is shown of events of ours, of a crate that speaks HTTP, and of AWS.
    fn shown(wished: Option<&str>, format: LogFormat) -> String {
        let (kept, (filter, _)) = (Kept::default(), filter(wished, Verbosity::Normal));
        let out = kept.clone();
        let subscriber = subscriber(format, filter, false, move || out.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(target: "ei_greengrass::uplink", "ours-trace");
            tracing::info!(target: "ei_greengrass::uplink", "ours-info");
            tracing::trace!(target: "hyper_util::client", "Authorization: secret");
            tracing::debug!(target: "aws_sigv4::http_request::sign", "secret");
            tracing::warn!(target: "aws_config::imds::region", "failed to load region from IMDS");
        });
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn nothing_that_a_user_can_set_shows_the_details_of_other_crates() {
        for wished in ["trace", "hyper_util=trace,aws_sigv4=trace,ei_greengrass=trace"] {
            for format in [LogFormat::Text, LogFormat::Json] {
                let text = shown(Some(wished), format);
                assert!(text.contains("ours-trace") && !text.contains("secret"), "{text}");
            }
        }
        assert!(
            shown(Some("trace"), LogFormat::Text).contains("from IMDS"),
            "a warning holds nothing secret"
        );
    }

    #[test]
    fn without_a_wish_the_warnings_of_aws_are_left_to_our_own_lines() {
        let text = shown(None, LogFormat::Text);
        assert!(
            text.ends_with("INFO ours-info\n") && text.lines().count() == 1,
            "{text}"
        );
    }

    #[test]
    fn a_wish_that_is_none_is_told_and_the_default_is_used() {
        let (filter, problem) = filter(Some("ei_greengrass=loud"), Verbosity::Verbose);
        assert!(problem.is_some());
        assert!(filter.to_string().contains("ei_greengrass=debug"), "{filter}");
    }

    #[test]
    fn an_event_with_line_breaks_is_one_line() {
        let mut out = OneLine(Vec::new());
        out.write_all(b"first\r\n   second\nthird\n").unwrap();
        out.write_all(b"plain\n").unwrap();
        assert_eq!(String::from_utf8(out.0).unwrap(), "first |    second | third\nplain\n");
    }
}
