//! The connection to a model: sends requests and receives answers; every wait is bounded and can be interrupted.

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

/// Why a request or an answer did not get through.
#[derive(Debug, thiserror::Error)]
pub enum ModelConnectionError {
    /// [`Interrupt::trip`] was called.
    #[error("interrupted")]
    Interrupted,
    /// The model closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// The deadline has passed.
    #[error("no answer")]
    TimedOut,
    /// What the model sent is not JSON objects.
    #[error(transparent)]
    Malformed(#[from] FramingError),
}

/// A connected socket with its receive buffer.
#[derive(Debug)]
pub struct ModelConnection {
    socket: Arc<UnixStream>,
    interrupt: Interrupt,
    splitter: Splitter,
    closed: bool,
}

/// Reports a long wait.
pub struct WaitProgress<'a> {
    /// Time between two reports.
    pub interval: Duration,
    /// Called with the time waited so far.
    pub report: &'a mut dyn FnMut(Duration),
}

impl ModelConnection {
    /// Connects once, without waiting.
    ///
    /// # Errors
    /// Of the operating system: `NotFound`, `ConnectionRefused` and `WouldBlock` while the model does not listen yet.
    pub fn open(path: &Path, interrupt: &Interrupt) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self::new(UnixStream::from(socket), interrupt))
    }

    /// `socket` must be non-blocking.
    fn new(socket: UnixStream, interrupt: &Interrupt) -> Self {
        let socket = Arc::new(socket);
        interrupt.watch(&socket);
        Self {
            socket,
            interrupt: interrupt.clone(),
            splitter: Splitter::new(MAX_ANSWER),
            closed: false,
        }
    }

    /// Sends a request. Also receives meanwhile: otherwise two full socket buffers could block both sides forever.
    ///
    /// # Errors
    /// [`ModelConnectionError`]; the connection cannot be used afterwards.
    pub fn send(&mut self, mut request: &[u8], deadline: Instant) -> Result<(), ModelConnectionError> {
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
                Err(_) => return Err(self.closed_error()),
            }
        }
        Ok(())
    }

    /// Waits for the next answer and parses it.
    ///
    /// # Errors
    /// [`ModelConnectionError`]; the connection cannot be used afterwards.
    pub fn receive<T>(
        &mut self,
        deadline: Instant,
        mut progress: Option<WaitProgress<'_>>,
        parse: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, ModelConnectionError> {
        let begin = Instant::now();
        let mut next_report = progress.as_ref().map(|progress| begin + progress.interval);
        loop {
            // `last_object` is called after the loop: a borrow returned from inside would last for the whole loop.
            if self.splitter.next_object()?.is_some() {
                break;
            }
            let until = next_report.map_or(deadline, |report| report.min(deadline));
            match self.wait(PollFlags::IN, until) {
                Ok(_) => self.read()?,
                Err(ModelConnectionError::TimedOut) if until < deadline => {
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

    /// Shuts the connection down in both directions.
    pub fn close(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }

    fn read(&mut self) -> Result<(), ModelConnectionError> {
        match self.splitter.fill(&*self.socket) {
            Ok(0) => Err(self.closed_error()),
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(_) => Err(self.closed_error()),
        }
    }

    fn wait(&self, wanted: PollFlags, deadline: Instant) -> Result<PollFlags, ModelConnectionError> {
        loop {
            if self.interrupt.is_tripped() {
                return Err(ModelConnectionError::Interrupted);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok();
            let mut fds = [PollFd::new(&*self.socket, wanted)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Err(ModelConnectionError::TimedOut),
                // The next read or write finds HUP and ERR.
                Ok(_) => return Ok(fds[0].revents()),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(self.closed_error()),
            }
        }
    }

    fn closed_error(&self) -> ModelConnectionError {
        if self.interrupt.is_tripped() {
            ModelConnectionError::Interrupted
        } else {
            ModelConnectionError::Closed
        }
    }
}

impl Drop for ModelConnection {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::thread;

    fn pair(interrupt: &Interrupt) -> (ModelConnection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ModelConnection::new(ours, interrupt), theirs)
    }

    fn soon(ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms)
    }

    #[test]
    fn a_model_that_stops_reading_delays_a_request_until_the_deadline_only() {
        let (mut connection, _theirs) = pair(&Interrupt::new());
        let error = connection.send(&vec![b' '; 8 << 20], soon(50)).unwrap_err();
        assert!(matches!(error, ModelConnectionError::TimedOut));
    }

    #[test]
    fn a_model_that_sends_while_it_receives_blocks_neither_side() {
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
    fn an_interrupt_ends_a_wait_and_all_later_ones() {
        let interrupt = Interrupt::new();
        let (mut connection, _theirs) = pair(&interrupt);
        let tripper = thread::spawn({
            let interrupt = interrupt.clone();
            move || interrupt.trip()
        });
        let begin = Instant::now();
        let error = connection.receive(soon(60_000), None, |_| ()).unwrap_err();
        assert!(matches!(error, ModelConnectionError::Interrupted));
        assert!(begin.elapsed() < Duration::from_secs(30));
        tripper.join().unwrap();
        let (mut late, _theirs) = pair(&interrupt);
        assert!(matches!(
            late.receive(soon(60_000), None, |_| ()),
            Err(ModelConnectionError::Interrupted)
        ));
    }

    #[test]
    fn progress_is_reported_during_a_wait() {
        let (mut connection, _theirs) = pair(&Interrupt::new());
        let mut reports = 0;
        let progress = WaitProgress {
            interval: Duration::from_millis(10),
            report: &mut |_| reports += 1,
        };
        let error = connection.receive(soon(100), Some(progress), |_| ()).unwrap_err();
        assert!(matches!(error, ModelConnectionError::TimedOut));
        assert!((2..=10).contains(&reports), "{reports}");
    }
}
