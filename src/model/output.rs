//! What the model process prints: read at once so that it never blocks, logged at `debug`, the end of it kept for
//! error messages.

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
/// Lines logged a second; more are counted only.
const LOGGED_A_SECOND: u32 = 100;

/// The last lines of a process, growing while it runs.
#[derive(Debug, Clone)]
pub struct Output(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    closed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    closed: bool,
}

impl Output {
    /// Reads `source` to its end on a thread of its own.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn follow(source: impl Read + Send + 'static) -> std::io::Result<Self> {
        let output = Self(Arc::default());
        let shared = Arc::clone(&output.0);
        thread::Builder::new().name("model-output".into()).spawn(move || {
            Lines::new(&shared).read(source);
            shared.state.lock().closed = true;
            shared.closed.notify_all();
        })?;
        Ok(output)
    }

    /// The last lines. Waits up to `limit` for the end of the output: a process that has died may have left
    /// something in the pipe.
    pub fn last_lines(&self, limit: Duration) -> Vec<String> {
        let mut state = self.0.state.lock();
        if !state.closed {
            self.0.closed.wait_while_for(&mut state, |state| !state.closed, limit);
        }
        state.lines.iter().cloned().collect()
    }
}

/// Cuts bytes into lines and passes them on.
struct Lines<'a> {
    shared: &'a Shared,
    line: Vec<u8>,
    second: Instant,
    logged: u32,
    suppressed: u64,
}

impl<'a> Lines<'a> {
    fn new(shared: &'a Shared) -> Self {
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
                Ok(read) => self.take(&chunk[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.end_line();
        self.report_suppressed();
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => self.end_line(),
                // A tab is fine in a log line, other control characters (colours, cursor) are not.
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
            self.report_suppressed();
            self.second = Instant::now();
            self.logged = 0;
        }
        if self.logged < LOGGED_A_SECOND {
            self.logged += 1;
            debug!("model: {text}");
        } else {
            self.suppressed += 1;
        }
    }

    fn report_suppressed(&mut self) {
        let suppressed = std::mem::take(&mut self.suppressed);
        if suppressed > 0 {
            debug!("the model printed {suppressed} more lines within a second");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hundred_lines_are_kept_each_cut() {
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
