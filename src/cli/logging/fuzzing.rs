//! What `tests/fuzz` calls here.

use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{LogFormat, Verbosity, filter, subscriber};

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the log has of a line with `value` in each place: as text and as JSON.
pub fn log_lines(value: &str) -> [String; 2] {
    [LogFormat::Text, LogFormat::Json].map(|format| {
        let output = Output::default();
        let writer = output.clone();
        let (filter, _) = filter(None, Verbosity::Normal);
        tracing::subscriber::with_default(subscriber(format, filter, false, move || writer.clone()), || {
            let span = tracing::info_span!("command", verb = value);
            let _entered = span.enter();
            tracing::warn!(text = value, shown = %value, debugged = ?value, "A {value} message");
        });
        let bytes = output.0.lock().clone();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
