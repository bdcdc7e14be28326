//! Counts the threads that are stuck in a device driver. [`super::capture_supervisor`] decides how many are too many.

use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;

/// The threads that start and stop sources, of all sessions. A thread that ends later is no longer counted.
#[derive(Debug, Default)]
pub(super) struct StuckThreads(Mutex<Vec<WatchedThread>>);

#[derive(Debug)]
struct WatchedThread {
    thread: JoinHandle<()>,
    /// The thread counts as stuck if it still runs at this time.
    due: Instant,
}

impl StuckThreads {
    /// Watches a thread that counts as stuck if it still runs at `due`.
    pub(super) fn watch(&self, thread: JoinHandle<()>, due: Instant) {
        let mut threads = self.0.lock();
        threads.retain(|watched| !watched.thread.is_finished());
        threads.push(WatchedThread { thread, due });
    }

    /// The number of threads that are stuck at `now`.
    pub(super) fn count(&self, now: Instant) -> usize {
        let mut threads = self.0.lock();
        threads.retain(|watched| !watched.thread.is_finished());
        threads.iter().filter(|watched| watched.due <= now).count()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_is_stuck_from_its_due_time_until_it_ends() {
        let (stuck_threads, now) = (StuckThreads::default(), Instant::now());
        let (release, held) = mpsc::channel::<()>();
        let (running, ended) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _ = held.recv();
            drop(running);
        });
        stuck_threads.watch(thread, now + Duration::from_secs(1));
        assert_eq!(stuck_threads.count(now), 0, "the thread still has time");
        assert_eq!(stuck_threads.count(now + Duration::from_secs(1)), 1);
        drop(release);
        assert!(ended.recv().is_err());
        while stuck_threads.count(now + Duration::from_secs(1)) > 0 {
            std::thread::yield_now();
        }
    }
}
