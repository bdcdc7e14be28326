//! A growing list that a test waits on.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What happened so far, in order.
#[derive(Debug)]
pub struct Events<T> {
    list: Mutex<Vec<T>>,
    grown: Condvar,
}

impl<T> Default for Events<T> {
    fn default() -> Self {
        Self {
            list: Mutex::default(),
            grown: Condvar::new(),
        }
    }
}

impl<T> Events<T> {
    pub fn push(&self, event: T) {
        self.lock().push(event);
        self.grown.notify_all();
    }

    /// Looks at the list as it is now.
    pub fn with<R>(&self, look: impl FnOnce(&[T]) -> R) -> R {
        look(&self.lock())
    }

    /// Waits until `found` gives something for the list so far.
    #[track_caller]
    pub fn wait_for<R>(&self, what: &str, limit: Duration, mut found: impl FnMut(&[T]) -> Option<R>) -> R {
        let end = Instant::now() + limit;
        let mut list = self.lock();
        loop {
            if let Some(result) = found(&list) {
                return result;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited {limit:?} in vain for {what}");
            list = self
                .grown
                .wait_timeout(list, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// A wait that failed panics with the list locked; the list is shown after that.
    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
