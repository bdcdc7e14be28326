//! Threads that a driver holds: how many there are now.

use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;

/// The threads that start and stop sources, of all generations. One that comes back after all hangs no longer.
#[derive(Debug, Default)]
pub(crate) struct StuckThreads(Mutex<Vec<Watched>>);

#[derive(Debug)]
struct Watched {
    thread: JoinHandle<()>,
    /// It counts as stuck_threads from here on.
    from: Instant,
}

impl StuckThreads {
    /// Watches a thread, which hangs if it is not done at `from`.
    pub(super) fn watch(&self, thread: JoinHandle<()>, from: Instant) {
        let mut threads = self.0.lock();
        threads.retain(|watched| !watched.thread.is_finished());
        threads.push(Watched { thread, from });
    }

    /// How many hang.
    pub(super) fn count(&self, now: Instant) -> usize {
        let mut threads = self.0.lock();
        threads.retain(|watched| !watched.thread.is_finished());
        threads.iter().filter(|watched| watched.from <= now).count()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_hangs_from_its_time_on_until_it_is_done() {
        let (stuck_threads, now) = (StuckThreads::default(), Instant::now());
        let (release, held) = mpsc::channel::<()>();
        let (tell, done) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _ = held.recv();
            drop(tell);
        });
        stuck_threads.watch(thread, now + Duration::from_secs(1));
        assert_eq!(stuck_threads.count(now), 0, "it still has time");
        assert_eq!(stuck_threads.count(now + Duration::from_secs(1)), 1);
        drop(release);
        assert!(done.recv().is_err());
        while stuck_threads.count(now + Duration::from_secs(1)) > 0 {
            std::thread::yield_now();
        }
    }
}
