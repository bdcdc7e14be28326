//! How events become lines: flat JSON, or text. Every value of a field passes [`shown`] or [`quoted`] here, so no log call
//! can write a secret, a control character or an endless text.

use std::fmt;
use std::io::{self, Write};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::format::{DefaultVisitor, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::util::redact;
use crate::util::text::visible_lines;

/// Most characters of a value.
const MAX_VALUE: usize = 2000;

/// A value as a line shows it.
fn shown(value: &str) -> String {
    visible_lines(&redact::credentials(value), MAX_VALUE)
}

/// A text as a line of text shows it: in quotes, as `Debug` does.
fn quoted(value: &str) -> String {
    let shown = shown(&value.replace('\\', "\\\\").replace('"', "\\\""));
    format!("\"{}\"", shown.replace('\r', "\\r").replace('\n', "\\n"))
}

/// Writes an event as one flat JSON object. A field of the event wins over a field of a span with the same name, an
/// inner span over an outer one.
pub(super) struct FlatJson;

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

/// The fields that [`JsonFields`] wrote, as they are shown.
fn parse_fields(text: &str) -> Map<String, Value> {
    let mut fields: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
    for value in fields.values_mut() {
        if let Value::String(text) = value {
            *text = shown(text);
        }
    }
    fields
}

/// Formats fields as the default does, without secrets. Each value by itself: the name of a field (`key` of an S3
/// object) says nothing about secrets.
pub(super) struct CleanFields;

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
        let clean = shown(&format!("{value:?}"));
        self.0.record_debug(field, &format_args!("{clean}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let clean = if field.name() == "message" {
            shown(value)
        } else {
            quoted(value)
        };
        self.0.record_debug(field, &format_args!("{clean}"));
    }
}

/// Writes each event as one line: texts from outside (GStreamer, the model, a configuration) may contain line breaks.
pub(super) struct OneLine<W>(pub(super) W);

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
