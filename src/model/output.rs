//! The output of the model process: read at once, so that the process never blocks, and logged at `debug`. The last
//! lines are kept for error messages.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing::debug;

/// Lines kept for error messages.
const KEPT_LINES: usize = 100;
/// Each line is cut to this many bytes.
const MAX_LINE: usize = 1024;
/// Lines logged per second; more are only counted.
const MAX_LOGGED_PER_SECOND: u32 = 100;

/// The last lines that a process has printed so far.
#[derive(Debug, Clone)]
pub struct Output(Arc<SharedOutput>);

#[derive(Debug, Default)]
struct SharedOutput {
    state: Mutex<OutputState>,
    closed: Condvar,
}

#[derive(Debug, Default)]
struct OutputState {
    lines: VecDeque<String>,
    closed: bool,
}

impl Output {
    /// Reads `source` to its end on a thread of its own.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn follow(source: impl Read + Send + 'static) -> std::io::Result<Self> {
        let output = Self(Arc::default());
        let shared = Arc::clone(&output.0);
        thread::Builder::new().name("model-output".into()).spawn(move || {
            LineReader::new(&shared).read(source);
            shared.state.lock().closed = true;
            shared.closed.notify_all();
        })?;
        Ok(output)
    }

    /// The last lines. Waits up to `limit` for the end of the output: there may be something left in the pipe after the
    /// process has ended.
    pub fn last_lines(&self, limit: Duration) -> Vec<String> {
        let mut state = self.0.state.lock();
        if !state.closed {
            self.0.closed.wait_while_for(&mut state, |state| !state.closed, limit);
        }
        state.lines.iter().cloned().collect()
    }
}

/// Splits bytes into lines, stores and logs them.
struct LineReader<'a> {
    shared: &'a SharedOutput,
    line: Vec<u8>,
    second: Instant,
    logged: u32,
    suppressed: u64,
}

impl<'a> LineReader<'a> {
    fn new(shared: &'a SharedOutput) -> Self {
        Self {
            shared,
            line: Vec::with_capacity(MAX_LINE),
            second: Instant::now(),
            logged: 0,
            suppressed: 0,
        }
    }

    fn read(mut self, mut source: impl Read) {
        let mut chunk = [0; 4096];
        loop {
            match source.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => self.push(&chunk[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.end_line();
        self.log_suppressed();
    }

    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => self.end_line(),
                // Control characters other than a tab (colours, cursor) must not reach a log line.
                0..=8 | 11..=31 | 127 => {}
                _ if self.line.len() < MAX_LINE => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        if self.line.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        self.log(&text);
        let mut state = self.shared.state.lock();
        if state.lines.len() == KEPT_LINES {
            state.lines.pop_front();
        }
        state.lines.push_back(text);
    }

    fn log(&mut self, text: &str) {
        if self.second.elapsed() >= Duration::from_secs(1) {
            self.log_suppressed();
            self.second = Instant::now();
            self.logged = 0;
        }
        if self.logged < MAX_LOGGED_PER_SECOND {
            self.logged += 1;
            debug!(line = text, "Model output");
        } else {
            self.suppressed += 1;
        }
    }

    fn log_suppressed(&mut self) {
        let suppressed = std::mem::take(&mut self.suppressed);
        if suppressed > 0 {
            debug!(suppressed, "Model output beyond 100 lines per second was suppressed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hundred_lines_are_kept_and_cut() {
        let text: String = (0..250).map(|line| format!("line {line}\n")).collect();
        let text = text + &"x".repeat(5000) + "\r\n\n\x1b[31mno newline at the end";
        let lines = Output::follow(std::io::Cursor::new(text))
            .unwrap()
            .last_lines(Duration::from_secs(10));
        assert_eq!(lines.len(), 100);
        assert_eq!(lines[0], "line 152");
        assert_eq!(lines[98].len(), MAX_LINE);
        assert_eq!(lines[99], "[31mno newline at the end");
    }

    #[test]
    fn a_pipe_that_stays_open_delays_a_message_no_longer_than_the_limit() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let output = Output::follow(reader).unwrap();
        assert_eq!(output.last_lines(Duration::from_millis(10)), Vec::<String>::new());
    }
}
