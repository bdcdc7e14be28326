//! The disk: opening the spool, and the jobs that are done.

use super::{Event, World};
use crate::simulation::plan::Millis;

impl World {
    pub(super) fn open_spool(&mut self) {
        let Some(device) = &mut self.device else { return };
        // A full disk can be read.
        let usable = device.open_spool();
        self.note(format!("spool usable: {usable}"));
        self.retry_spool(usable);
    }

    fn retry_spool(&mut self, usable: bool) {
        if !usable && let Some(spool) = self.plan.spool {
            let at = self.now() + spool.policy.retry.as_millis() as Millis;
            self.at(at, Event::OpenSpool(self.process));
        }
    }

    pub(super) fn finish_job(&mut self) {
        let is_full = self.now() < self.disk_full_until;
        let spool = self.device.as_mut().and_then(|device| device.spool.as_mut());
        let Some(spool) = spool else { return };
        let usable = if is_full { spool.fail() } else { spool.complete() };
        let stops = self.device.as_ref().is_some_and(|device| !device.is_running());
        self.ledger.order_may_change |= !usable && stops;
        let device = self.device.as_ref().map(|device| device.outbox.undelivered().on_disk);
        self.note(format!(
            "disk is done, usable: {usable}, on disk: {}",
            device.unwrap_or_default()
        ));
        self.retry_spool(usable);
    }
}
