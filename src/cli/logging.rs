//! Log lines go to stdout, one event a line. Greengrass logs a line of stdout as INFO and a line of stderr as WARN.
//!
//! Text, for people: `2026-01-31T12:00:00Z  WARN S3 upload failed bucket="b" retry_in=1.2s`. Spans come before the
//! message, and only when the log shows DEBUG. JSON, for log search: one flat object with `timestamp`, `level`,
//! `message`, the event's fields, `span` (the name of the innermost span) and the fields of all spans around the event.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::filter::{FilterExt, ParseError, Targets, filter_fn};
use tracing_subscriber::fmt::format::{DefaultVisitor, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Verbosity;
use crate::util::redact;

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
        LogFormat::Text => (lines.fmt_fields(CleanFields).boxed(), shows_debug),
        LogFormat::Json => (lines.fmt_fields(JsonFields::new()).event_format(FlatJson).boxed(), true),
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

/// Writes an event as one flat JSON object. A field of the event wins over a field of a span with the same name, an
/// inner span over an outer one.
struct FlatJson;

impl<S> FormatEvent<S, JsonFields> for FlatJson
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        line.insert("timestamp".to_owned(), timestamp.into());
        line.insert("level".to_owned(), event.metadata().level().as_str().into());
        let mut fields = String::new();
        context.field_format().format_fields(Writer::new(&mut fields), event)?;
        let mut fields = parse_fields(&fields);
        if let Some((name, message)) = fields.remove_entry("message") {
            line.insert(name, message);
        }
        line.extend(fields);
        let spans = context.event_scope().into_iter().flatten();
        for span in spans {
            let fields = match span.extensions().get::<FormattedFields<JsonFields>>() {
                Some(formatted) => parse_fields(&formatted.fields),
                None => Map::new(),
            };
            let name = ("span".to_owned(), Value::from(span.name()));
            for (key, value) in [name].into_iter().chain(fields) {
                line.entry(key).or_insert(value);
            }
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// The fields that [`JsonFields`] wrote, without secrets.
fn parse_fields(text: &str) -> Map<String, Value> {
    let mut fields: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
    for value in fields.values_mut() {
        if let Value::String(text) = value {
            *text = redact::credentials(text);
        }
    }
    fields
}

/// Formats fields as the default does, without secrets. Each value by itself: the name of a field (`key` of an S3
/// object) says nothing about secrets.
struct CleanFields;

impl<'writer> FormatFields<'writer> for CleanFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = CleanVisitor(DefaultVisitor::new(writer, true));
        fields.record(&mut visitor);
        visitor.0.finish()
    }
}

struct CleanVisitor<'a>(DefaultVisitor<'a>);

impl Visit for CleanVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let clean = redact::credentials(&format!("{value:?}"));
        self.0.record_debug(field, &format_args!("{clean}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let clean = redact::credentials(value);
        self.0.record_str(field, &clean);
    }
}

/// Writes each event as one line: texts from outside (GStreamer, the model, a configuration) may contain line breaks.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    /// The subscriber passes one whole event per call.
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
}
