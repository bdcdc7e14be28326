//! The spool without its thread, for simulations: each job is performed when the simulated disk is done with it.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::store::Store;
use super::{SpoolSettings, Worker};
use crate::uplink::outbox::{Outbox, SpoolJob};
use crate::util::database::DatabaseError;
use crate::util::log_limiter::LogLimiter;

/// The part of the spool's thread, as single steps.
pub(crate) struct SteppedSpool {
    worker: Worker,
    usable: bool,
    job: Option<SpoolJob>,
}

impl SteppedSpool {
    /// Attaches the spool. It is opened by [`SteppedSpool::open`].
    pub fn attach(settings: SpoolSettings, outbox: Arc<Outbox>) -> Self {
        outbox.attach_spool(settings.policy);
        Self {
            worker: Worker {
                store: Store::new(settings.path, settings.max_bytes),
                outbox,
                retry: settings.policy.retry,
                log_limiter: LogLimiter::default(),
            },
            usable: false,
            job: None,
        }
    }

    /// Opens the file. Returns whether the spool can be used.
    pub fn open(&mut self) -> bool {
        self.usable = self.worker.open();
        self.usable
    }

    /// When the next job can be taken; `None`: not before something else happens.
    pub fn due(&self) -> Option<Instant> {
        let idle = self.usable && self.job.is_none();
        idle.then(|| self.worker.outbox.job_due_at()).flatten()
    }

    /// Takes the job that is due now. Returns whether there is one.
    pub fn begin(&mut self) -> bool {
        if self.usable && self.job.is_none() {
            self.job = self.worker.outbox.job_now();
        }
        self.job.is_some()
    }

    /// Performs the job that was taken. Returns whether the spool can be used.
    pub fn complete(&mut self) -> bool {
        if let Some(job) = self.job.take() {
            self.usable = self.worker.perform(&job);
        }
        self.usable
    }

    /// The disk is full: of the job that was taken only the reading is done; without a job the spool fails. Returns whether the spool
    /// can be used.
    pub fn fail(&mut self) -> bool {
        let full = DatabaseError::Io(io::Error::from(io::ErrorKind::StorageFull));
        let changes = |job: &SpoolJob| !job.write.is_empty() || !job.delete.is_empty();
        self.usable = match self.job.take() {
            Some(job) if changes(&job) => self.worker.not_performed(&job, &full),
            Some(job) => self.worker.perform(&job),
            None => self.worker.failed(&full),
        };
        self.usable
    }

    /// The process is killed: with `written`, the disk has done the job that was taken, and nobody learns of it. Returns how many
    /// messages that job has dropped.
    pub fn kill(mut self, written: bool) -> u64 {
        let job = self.job.take().filter(|_| written);
        // What fails is not on the disk.
        let done = job.and_then(|job| self.worker.call_store(|store| store.perform(&job)).ok());
        let _ = self.worker.call_store(Store::close);
        done.map_or(0, |done| done.dropped.len() as u64)
    }

    /// Writes what can be written, as at a stop, and closes the file.
    pub fn finish(mut self, disk_is_full: bool) {
        if disk_is_full {
            self.fail();
        }
        self.complete();
        self.worker.outbox.end_spool();
        if !self.usable && !disk_is_full {
            self.open();
        }
        while self.begin() {
            self.complete();
        }
        let _ = self.worker.call_store(Store::close);
    }
}
