//! The connection to a model: requests out, answers in, every wait bounded and interruptible.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::framing::{FramingError, MAX_ANSWER, Splitter};
use super::interrupt::Interrupt;

/// Why nothing was sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The interrupt was tripped.
    #[error("interrupted")]
    Interrupted,
    /// The other side is gone.
    #[error("the connection was closed")]
    Closed,
    /// Nothing happened within the limit.
    #[error("no answer")]
    TimedOut,
    /// The other side does not speak the protocol.
    #[error(transparent)]
    Nonsense(#[from] FramingError),
}

/// A connected socket with its buffers.
#[derive(Debug)]
pub struct Connection {
    socket: Arc<UnixStream>,
    interrupt: Interrupt,
    splitter: Splitter,
    closed: bool,
}

/// Called while waiting, at every interval, with the time waited so far.
pub struct Progress<'a> {
    /// How often.
    pub interval: Duration,
    /// What is called.
    pub report: &'a mut dyn FnMut(Duration),
}

impl Connection {
    /// Connects once, without waiting.
    ///
    /// # Errors
    /// What the operating system says: `NotFound`, `ConnectionRefused` and `WouldBlock` when nobody listens yet.
    pub fn open(path: &Path, interrupt: &Interrupt) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self::over(UnixStream::from(socket), interrupt))
    }

    /// A connection over a socket that does not block.
    fn over(socket: UnixStream, interrupt: &Interrupt) -> Self {
        let socket = Arc::new(socket);
        interrupt.watch(&socket);
        Self {
            socket,
            interrupt: interrupt.clone(),
            splitter: Splitter::new(MAX_ANSWER),
            closed: false,
        }
    }

    /// Sends a request. What the model says meanwhile is kept, so that two full socket buffers cannot hold both sides
    /// up for ever.
    ///
    /// # Errors
    /// [`ConnectionError`]; the connection is of no use after it.
    pub fn send(&mut self, mut request: &[u8], deadline: Instant) -> Result<(), ConnectionError> {
        while !request.is_empty() {
            match (&*self.socket).write(request) {
                Ok(written) => request = &request[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let wanted = if self.splitter.is_full() {
                        PollFlags::OUT
                    } else {
                        PollFlags::OUT | PollFlags::IN
                    };
                    let ready = self.wait(wanted, deadline)?;
                    if ready.contains(PollFlags::IN) && wanted.contains(PollFlags::IN) {
                        self.read()?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(self.gone()),
            }
        }
        Ok(())
    }

    /// Waits for the next answer and reads it with `parse`.
    ///
    /// # Errors
    /// [`ConnectionError`]; the connection is of no use after it.
    pub fn receive<T>(
        &mut self,
        deadline: Instant,
        mut progress: Option<Progress<'_>>,
        parse: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, ConnectionError> {
        let begin = Instant::now();
        let mut next_report = progress.as_ref().map(|progress| begin + progress.interval);
        loop {
            // Taken up again below: a borrow that is returned from within a loop would last for the whole loop.
            if self.splitter.next_object()?.is_some() {
                break;
            }
            let until = next_report.map_or(deadline, |report| report.min(deadline));
            match self.wait(PollFlags::IN, until) {
                Ok(_) => self.read()?,
                Err(ConnectionError::TimedOut) if until < deadline => {
                    if let Some(progress) = &mut progress {
                        (progress.report)(begin.elapsed());
                        next_report = Some(until + progress.interval);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(parse(self.splitter.last_object()))
    }

    /// Ends the connection for both sides.
    pub fn close(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }

    fn read(&mut self) -> Result<(), ConnectionError> {
        match self.splitter.fill(&*self.socket) {
            Ok(0) => Err(self.gone()),
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(_) => Err(self.gone()),
        }
    }

    fn wait(&self, wanted: PollFlags, deadline: Instant) -> Result<PollFlags, ConnectionError> {
        loop {
            if self.interrupt.is_tripped() {
                return Err(ConnectionError::Interrupted);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok();
            let mut fds = [PollFd::new(&*self.socket, wanted)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Err(ConnectionError::TimedOut),
                // HUP and ERR are found by the read or write that follows.
                Ok(_) => return Ok(fds[0].revents()),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(self.gone()),
            }
        }
    }

    fn gone(&self) -> ConnectionError {
        if self.interrupt.is_tripped() {
            ConnectionError::Interrupted
        } else {
            ConnectionError::Closed
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::thread;

    fn pair(interrupt: &Interrupt) -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Connection::over(ours, interrupt), theirs)
    }

    fn soon(ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms)
    }

    #[test]
    fn a_model_that_stops_reading_does_not_hold_a_request_up_beyond_the_limit() {
        let (mut connection, _theirs) = pair(&Interrupt::new());
        let error = connection.send(&vec![b' '; 8 << 20], soon(50)).unwrap_err();
        assert!(matches!(error, ConnectionError::TimedOut));
    }

    #[test]
    fn a_model_that_talks_while_it_is_sent_to_blocks_neither_side() {
        let (mut connection, mut theirs) = pair(&Interrupt::new());
        let text = format!("{{\"t\":\"{}\"}}\n\0", "x".repeat(2 << 20));
        let model = thread::spawn(move || {
            theirs.write_all(text.as_bytes()).unwrap();
            let mut request = vec![0; 4 << 20];
            theirs.read_exact(&mut request).unwrap();
        });
        connection.send(&vec![b' '; 4 << 20], soon(10_000)).unwrap();
        let length = connection.receive(soon(10_000), None, <[u8]>::len).unwrap();
        assert_eq!(length, (2 << 20) + 8);
        model.join().unwrap();
    }

    #[test]
    fn a_trip_ends_a_wait_and_everything_after_it() {
        let interrupt = Interrupt::new();
        let (mut connection, _theirs) = pair(&interrupt);
        let tripper = thread::spawn({
            let interrupt = interrupt.clone();
            move || interrupt.trip()
        });
        let begin = Instant::now();
        let error = connection.receive(soon(60_000), None, |_| ()).unwrap_err();
        assert!(matches!(error, ConnectionError::Interrupted));
        assert!(begin.elapsed() < Duration::from_secs(30));
        tripper.join().unwrap();
        let (mut late, _theirs) = pair(&interrupt);
        assert!(matches!(
            late.receive(soon(60_000), None, |_| ()),
            Err(ConnectionError::Interrupted)
        ));
    }

    #[test]
    fn progress_is_reported_while_waiting() {
        let (mut connection, _theirs) = pair(&Interrupt::new());
        let mut reports = 0;
        let progress = Progress {
            interval: Duration::from_millis(10),
            report: &mut |_| reports += 1,
        };
        let error = connection.receive(soon(100), Some(progress), |_| ()).unwrap_err();
        assert!(matches!(error, ConnectionError::TimedOut));
        assert!((2..=10).contains(&reports), "{reports}");
    }
}
