//! Log lines go to stdout, one event a line. Greengrass logs a line of stdout as INFO and a line of stderr as WARN.
//!
//! Text, for people: `2026-01-31T12:00:00Z  WARN S3 upload failed bucket="b" retry_in=1.2s`. Spans come before the
//! message, and only when the log shows DEBUG. JSON, for log search: one flat object with `timestamp`, `level`,
//! `message`, the event's fields, `span` (the name of the innermost span) and the fields of all spans around the event.
//!
//! Text from outside (names, errors, output of other programs) is part of many lines. So all lines are bounded here: how often a
//! log call writes ([`line_limit`]), and what its values contain ([`format`](self::format)).

mod format;
pub(super) mod fuzzing;
mod line_limit;

use std::io::{self, IsTerminal, Write};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, ParseError, Targets, filter_fn};
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Verbosity;
use format::{CleanFields, FlatJson, OneLine};
use line_limit::{LimitedLines, append_to_json, append_to_text};

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging to stdout. The environment variable `RUST_LOG` overrides `verbosity`.
pub fn init(format: LogFormat, verbosity: Verbosity) {
    let rust_log = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let (filter, parse_error) = filter(rust_log.as_deref(), verbosity);
    let shown = filter.to_string();
    let subscriber = subscriber(format, filter, io::stdout().is_terminal(), io::stdout);
    // A second initialisation (tests in one process) keeps the first.
    if subscriber.try_init().is_err() {
        return;
    }
    if let Some(error) = parse_error {
        tracing::warn!(
            %error,
            advice = "an example: RUST_LOG=ei_greengrass=debug",
            "RUST_LOG cannot be parsed and is ignored"
        );
    }
    tracing::debug!(filter = %shown, "The log filter is set");
}

/// The filter that `rust_log` or `verbosity` asks for, and the error of a `rust_log` that cannot be parsed.
fn filter(rust_log: Option<&str>, verbosity: Verbosity) -> (Targets, Option<ParseError>) {
    let level = match verbosity {
        Verbosity::Silent => Level::WARN,
        Verbosity::Normal => Level::INFO,
        Verbosity::Verbose => Level::DEBUG,
    };
    // The AWS crates warn in many lines ("failed to load region from IMDS"); this crate logs the same in one.
    let default = || {
        Targets::new()
            .with_default(Level::WARN)
            .with_target("aws", Level::ERROR)
            // It warns of every lost connection to the nucleus; this crate says what that means.
            .with_target("greengrass_ipc", Level::ERROR)
            .with_target("ei_greengrass", level)
    };
    match rust_log.map(str::parse::<Targets>) {
        None => (default(), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (default(), Some(error)),
    }
}

fn subscriber<W: Write + 'static>(
    format: LogFormat,
    filter: Targets,
    colours: bool,
    writer: impl Fn() -> W + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    let shows_debug = filter.would_enable("ei_greengrass", &Level::DEBUG);
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        // A log that cannot be written (disk full, reader gone) would be reported on stderr, and that write can panic
        // too.
        .log_internal_errors(false)
        .with_writer(move || OneLine(writer()))
        .with_ansi(colours);
    let (lines, shows_spans) = match format {
        LogFormat::Text => {
            let limited = |lines| LimitedLines::new(lines, append_to_text);
            (
                lines.fmt_fields(CleanFields).map_event_format(limited).boxed(),
                shows_debug,
            )
        }
        LogFormat::Json => {
            let limited = LimitedLines::new(FlatJson, append_to_json);
            (lines.fmt_fields(JsonFields::new()).event_format(limited).boxed(), true)
        }
    };
    // Spans are shown with every event that is shown, whatever the level of the filter.
    let filter = filter
        .or(filter_fn(|metadata| metadata.is_span() && is_own(metadata)))
        .and(filter_fn(move |metadata| shows_spans || metadata.is_event()))
        .and(filter_fn(is_harmless));
    tracing_subscriber::registry().with(lines.with_filter(filter))
}

fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("ei_greengrass")
}

/// Applies whatever `RUST_LOG` says: the debug lines of HTTP, TLS and AWS crates hold signed URLs, tokens and keys.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    is_own(metadata) || *metadata.level() <= Level::INFO
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The log lines of events of this crate, of an HTTP crate, and of an AWS crate.
    fn log_of(rust_log: Option<&str>, format: LogFormat) -> String {
        let (output, (filter, _)) = (Output::default(), filter(rust_log, Verbosity::Normal));
        let out = output.clone();
        let subscriber = subscriber(format, filter, false, move || out.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(target: "ei_greengrass::uplink", "ours-trace");
            tracing::info!(target: "ei_greengrass::uplink", "ours-info");
            tracing::trace!(target: "hyper_util::client", "Authorization: secret");
            tracing::debug!(target: "aws_sigv4::http_request::sign", "secret");
            tracing::warn!(target: "aws_config::imds::region", "failed to load region from IMDS");
        });
        String::from_utf8(output.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn no_rust_log_shows_debug_lines_of_other_crates() {
        for rust_log in ["trace", "hyper_util=trace,aws_sigv4=trace,ei_greengrass=trace"] {
            for format in [LogFormat::Text, LogFormat::Json] {
                let text = log_of(Some(rust_log), format);
                assert!(text.contains("ours-trace") && !text.contains("secret"), "{text}");
            }
        }
        assert!(
            log_of(Some("trace"), LogFormat::Text).contains("from IMDS"),
            "a warning contains no secret"
        );
    }

    #[test]
    fn without_rust_log_the_warnings_of_aws_crates_are_hidden() {
        let text = log_of(None, LogFormat::Text);
        assert!(
            text.ends_with("INFO ours-info\n") && text.lines().count() == 1,
            "{text}"
        );
    }

    #[test]
    fn an_invalid_rust_log_is_reported_and_the_default_is_used() {
        let (filter, error) = filter(Some("ei_greengrass=loud"), Verbosity::Verbose);
        assert!(error.is_some());
        assert!(filter.to_string().contains("ei_greengrass=debug"), "{filter}");
    }

    #[test]
    fn an_event_with_line_breaks_is_one_line() {
        let mut out = OneLine(Vec::new());
        out.write_all(b"first\r\n   second\nthird\n").unwrap();
        out.write_all(b"plain\n").unwrap();
        assert_eq!(String::from_utf8(out.0).unwrap(), "first |    second | third\nplain\n");
    }

    /// An event within two spans.
    fn log_with_spans(format: LogFormat, verbosity: Verbosity) -> String {
        let (output, (filter, _)) = (Output::default(), filter(None, verbosity));
        let out = output.clone();
        let subscriber = subscriber(format, filter, false, move || out.clone());
        tracing::subscriber::with_default(subscriber, || {
            let _outer = tracing::info_span!("connection", broker = "b", epoch = 1).entered();
            let _inner = tracing::info_span!("command", epoch = 2).entered();
            tracing::warn!(key = "k", bytes = 3, error = %"not found", "S3 upload failed");
        });
        String::from_utf8(output.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_json_line_is_flat_and_contains_the_fields_of_all_spans() {
        for verbosity in [Verbosity::Silent, Verbosity::Verbose] {
            let line: Value = serde_json::from_str(&log_with_spans(LogFormat::Json, verbosity)).unwrap();
            let keys: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(
                keys,
                [
                    "timestamp",
                    "level",
                    "message",
                    "bytes",
                    "error",
                    "key",
                    "span",
                    "epoch",
                    "broker"
                ]
            );
            assert_eq!(
                (&line["message"], &line["error"], &line["bytes"]),
                (&"S3 upload failed".into(), &"not found".into(), &3.into())
            );
            assert_eq!((&line["span"], &line["epoch"]), (&"command".into(), &2.into()));
        }
    }

    #[test]
    fn a_text_line_starts_with_the_message_and_shows_spans_only_when_verbose() {
        let event = "S3 upload failed key=\"k\" bytes=3 error=not found\n";
        for verbosity in [Verbosity::Silent, Verbosity::Normal] {
            let text = log_with_spans(LogFormat::Text, verbosity);
            assert!(text.ends_with(&format!(" WARN {event}")), "{text}");
        }
        let text = log_with_spans(LogFormat::Text, Verbosity::Verbose);
        let spans = "connection{broker=\"b\" epoch=1}:command{epoch=2}";
        assert!(text.ends_with(&format!(" WARN {spans}: {event}")), "{text}");
    }

    /// The lines of one format that `log` writes.
    fn lines_of(format: LogFormat, verbosity: Verbosity, log: impl FnOnce()) -> Vec<String> {
        let (output, (filter, _)) = (Output::default(), filter(None, verbosity));
        let out = output.clone();
        let subscriber = subscriber(format, filter, false, move || out.clone());
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn control_characters_and_endless_values_of_other_programs_are_not_written() {
        const BAD: &str = "nul\0 esc\x1b[31m bell\x07 csi\u{9b} del\x7f rtl\u{202e} iso\u{2066} zwsp\u{200b} bom\u{feff} \
                           line\u{2028} tag\u{e0041} hyphen\u{ad} tab\t lf\n cr\r";
        let digits = format!("a number {}.", "9".repeat(300));
        let long = "é".repeat(100_000);
        for format in [LogFormat::Text, LogFormat::Json] {
            let lines = lines_of(format, Verbosity::Verbose, || {
                let span = tracing::info_span!("command", verb = BAD, shown = %BAD, debugged = ?BAD);
                let _entered = span.enter();
                tracing::warn!(text = BAD, shown = %BAD, debugged = ?BAD, list = ?[BAD], digits, long, "A {BAD} message");
            });
            assert_eq!(lines.len(), 1, "{lines:?}");
            let line = &lines[0];
            for c in line.chars() {
                let is_known = c == 'é' || (' '..='~').contains(&c);
                assert!(is_known, "{c:?} in {line}");
            }
            assert!(line.len() < 20_000 && !line.contains(&"9".repeat(50)), "{line}");
            for shown in ["\\u{202e}", "\\u{0}", "\\u{1b}", "(300 digits)", "more characters)"] {
                assert!(line.contains(shown), "{shown} in {line}");
            }
            if format == LogFormat::Json {
                let values: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
                assert!(values["text"].as_str().unwrap().starts_with("nul\\u{0} esc\\u{1b}[31m"));
            }
        }
    }

    #[test]
    fn a_text_in_quotes_cannot_end_them() {
        let lines = lines_of(LogFormat::Text, Verbosity::Normal, || {
            tracing::info!(label = "a\" level=\"ERROR\\", path = "ünïcode ไทย", "Inference");
        });
        assert!(
            lines[0].ends_with(r#"Inference label="a\" level=\"ERROR\\" path="ünïcode ไทย""#),
            "{lines:?}"
        );
    }

    #[test]
    fn a_log_call_writes_a_bounded_number_of_lines_and_others_are_not_affected() {
        for format in [LogFormat::Text, LogFormat::Json] {
            for (verbosity, bound) in [(Verbosity::Normal, 40), (Verbosity::Verbose, 700)] {
                let lines = lines_of(format, verbosity, || {
                    for number in 0..50_000 {
                        tracing::warn!(number, "A stranger did it");
                        tracing::debug!(number, "Details");
                        tracing::trace!(number, "More details");
                    }
                    tracing::warn!("Something else");
                });
                assert!((2..bound).contains(&lines.len()), "{} lines", lines.len());
                assert!(lines.last().unwrap().contains("Something else"));
            }
        }
    }
}
