//! SIGTERM, SIGINT and SIGHUP: the first asks for an orderly stop, one that comes later forces the end.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal that follows another this soon is the same wish once more: `timeout` signals a process and then its group, `sudo` passes
/// on what its command gets too.
const SAME_WISH: Duration = Duration::from_secs(1);

/// The stop signals of this process.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal or ssh session is gone. `None`: whoever started this wants that ignored (`nohup`).
    hangup: Option<Signal>,
}

impl StopSignals {
    /// Starts listening. Needs a tokio runtime.
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

    /// Waits for the next stop signal and gives its name.
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

    /// After a stop signal: waits for one that is more than the same wish once more, and gives its name.
    pub async fn insisting(&mut self) -> &'static str {
        let begun = tokio::time::Instant::now();
        loop {
            let signal = self.next().await;
            if begun.elapsed() >= SAME_WISH {
                return signal;
            }
        }
    }
}

/// Whether the first signal, SIGHUP, is among those ignored, from the text of `/proc/<pid>/status`.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nohup_is_recognised() {
        assert!(ignores_hangup(
            "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\n"
        ));
        assert!(!ignores_hangup(
            "SigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\n"
        ));
        assert!(!ignores_hangup(""));
    }
}
