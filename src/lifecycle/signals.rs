//! SIGTERM, SIGINT and SIGHUP: the first one requests a stop, a later one forces the exit.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A second signal within this time belongs to the same stop request: `timeout` signals a process and then its group, and
/// `sudo` forwards a signal that its command receives too.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// The stop signals of this process.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal or ssh session ended. `None`: the signal is ignored (`nohup`).
    hangup: Option<Signal>,
}

impl StopSignals {
    /// Starts to listen. Needs a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let hangup = if ignores_hangup(&status) {
            None
        } else {
            Some(signal(SignalKind::hangup())?)
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup,
        })
    }

    /// Waits for the next stop signal and returns its name.
    pub async fn next(&mut self) -> &'static str {
        let Self {
            terminate,
            interrupt,
            hangup,
        } = self;
        let hangup = async {
            match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = hangup => "SIGHUP",
        }
    }

    /// Waits, after a stop signal, for the signal of another stop request, and returns its name.
    pub async fn next_distinct(&mut self) -> &'static str {
        let start = tokio::time::Instant::now();
        loop {
            let signal = self.next().await;
            if start.elapsed() >= SAME_REQUEST {
                return signal;
            }
        }
    }
}

/// Whether SIGHUP, the first signal of the mask, is ignored according to the text of `/proc/<pid>/status`.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_sighup_is_recognised() {
        assert!(ignores_hangup(
            "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\n"
        ));
        assert!(!ignores_hangup(
            "SigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\n"
        ));
        assert!(!ignores_hangup(""));
    }
}
