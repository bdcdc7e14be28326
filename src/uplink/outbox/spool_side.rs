//! The part of the outbox that the spool's thread uses.

use std::fmt::Display;
use std::time::{Duration, Instant};

use super::spool_job::{SpoolJob, SpoolPolicy, SpoolResult};
use super::{Inner, Outbox, Sleep};
use crate::util::clock::monotonic_now;

impl Outbox {
    /// Attaches a spool. Nothing is sent before [`Outbox::spool_opened`] or [`Outbox::spool_failed`].
    pub(in crate::uplink) fn attach_spool(&self, policy: SpoolPolicy) {
        self.inner.lock().inferences.attach(policy);
    }

    /// The spool can be used and holds `held` messages.
    pub(in crate::uplink) fn spool_opened(&self, held: u64) {
        self.spool_flag.set_ok();
        let mut inner = self.inner.lock();
        inner.inferences.opened(held);
        self.wake_spool(&inner, monotonic_now());
        drop(inner);
        self.pushed.notify_one();
    }

    /// The spool cannot be used for now. The current job counts as not done.
    pub(in crate::uplink) fn spool_failed(&self, reason: impl Display) {
        self.spool_flag.set_failing(reason);
        self.inner.lock().inferences.failed(monotonic_now());
        self.pushed.notify_one();
    }

    /// The spool can be used, but an operator must do something.
    pub(in crate::uplink) fn spool_problem(&self, reason: impl Display) {
        self.spool_flag.set_failing(reason);
    }

    /// Files of the spool were damaged and renamed.
    pub(in crate::uplink) fn count_damaged_files(&self, files: u64) {
        self.stats.files_damaged.add(files);
    }

    /// Applies the result of the job that [`Outbox::next_job`] returned. Returns whether the disk was full and could be written now.
    pub(in crate::uplink) fn spool_done(&self, result: SpoolResult) -> bool {
        let now = monotonic_now();
        let mut inner = self.inner.lock();
        let counts = inner.inferences.finish(result);
        if counts.has_room_again {
            self.spool_flag.set_ok();
        }
        self.stats.spooled.add(counts.written);
        self.stats.spool_dropped.add(counts.dropped);
        inner.dropped.spooled += counts.dropped;
        inner.dropped.log(now);
        drop(inner);
        self.pushed.notify_one();
        counts.has_room_again
    }

    /// The disk is full: of the current job only the reading is done, with this result. The rest is tried again later.
    pub(in crate::uplink) fn spool_full(&self, result: SpoolResult, reason: impl Display) {
        self.spool_flag.set_failing(reason);
        let mut inner = self.inner.lock();
        inner.inferences.not_written(monotonic_now());
        inner.inferences.finish(result);
        drop(inner);
        self.pushed.notify_one();
    }

    /// Waits for the next job. `None`: the spool ends.
    pub(in crate::uplink) fn next_job(&self) -> Option<SpoolJob> {
        let mut inner = self.inner.lock();
        loop {
            let due = match inner.due_job(monotonic_now()) {
                Ok(job) => return Some(job),
                Err(_) if inner.spool.ending => return None,
                Err(due) => due,
            };
            if let Some(due) = due {
                inner.spool.sleep = Sleep::Until(due);
                self.job_due.wait_until(&mut inner, due);
            } else {
                inner.spool.sleep = Sleep::ForEver;
                self.job_due.wait(&mut inner);
            }
            inner.spool.sleep = Sleep::Awake;
        }
    }

    /// Waits before the spool is opened again. False: at once and for the last time, because the spool ends.
    pub(in crate::uplink) fn wait_before_reopening(&self, pause: Duration) -> bool {
        let until = monotonic_now() + pause;
        let mut inner = self.inner.lock();
        while !inner.spool.ending && monotonic_now() < until {
            self.job_due.wait_until(&mut inner, until);
        }
        !inner.spool.ending
    }

    /// Whether [`Outbox::flush_from`] or [`Outbox::end_spool`] was called.
    pub(in crate::uplink) fn is_flushing(&self) -> bool {
        self.inner.lock().inferences.is_flushing()
    }

    /// Waiting messages are written to disk from `at` on, or at once without a connection. Nothing is read from it any more.
    pub(in crate::uplink) fn flush_from(&self, at: Instant) {
        let mut inner = self.inner.lock();
        inner.inferences.flush_from(at);
        self.wake_spool(&inner, monotonic_now());
    }

    /// Ends the spool after everything that can be written is on disk.
    pub(in crate::uplink) fn end_spool(&self) {
        let now = monotonic_now();
        let mut inner = self.inner.lock();
        inner.inferences.flush_from(now);
        inner.spool.ending = true;
        inner.dropped.log_now();
        drop(inner);
        self.job_due.notify_one();
    }
}

impl Inner {
    /// The job that is due now, or the time of the next one.
    fn due_job(&mut self, now: Instant) -> Result<SpoolJob, Option<Instant>> {
        match self.inferences.due(&self.bounds, now) {
            Some(due) if due <= now => Ok(self.inferences.take_job(&self.bounds, now)),
            due => Err(due),
        }
    }
}

#[cfg(test)]
impl Outbox {
    /// The job that the spool's thread would get now.
    pub(in crate::uplink) fn job_now(&self) -> Option<SpoolJob> {
        self.inner.lock().due_job(monotonic_now()).ok()
    }

    /// When the spool's thread would get the next job.
    pub(in crate::uplink) fn job_due_at(&self) -> Option<Instant> {
        let inner = self.inner.lock();
        inner.inferences.due(&inner.bounds, monotonic_now())
    }
}
