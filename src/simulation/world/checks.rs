//! What must hold at each moment, and at the end.

use std::path::Path;

use rumqttc::mqttbytes::v4::Packet;

use super::{Event, World};
use crate::config::Qos;
use crate::simulation::plan::Millis;
use crate::uplink::RateLimits;

/// An inference is sent within this time if nothing hinders it: longer than the client waits for an acknowledgement.
const FLOW_LIMIT: Millis = 90_000;
/// Messages that can be read from the disk beyond the bound of the memory.
const MAX_LOADED: usize = 128 + 64;
/// What IoT Core accepts is 100 messages and 512 KiB in a second; this is what the rate limits promise.
const MESSAGES_PER_SECOND: usize = 90;
const BYTES_PER_SECOND: usize = 450 << 10;
/// Time for the last notice: the time of a stop without that for DISCONNECT.
const NOTICE_LIMIT: Millis = 2_700;
/// Answers, notices and metrics.
const OTHER_BYTES: usize = 4 << 10;

impl World {
    /// # Errors
    /// More messages or bytes in a second than the rate limits promise.
    pub(super) fn check_rate(&mut self) -> Result<(), String> {
        if self.plan.rate_limits == RateLimits::UNLIMITED {
            return Ok(());
        }
        let now = self.now();
        for packet in self.network.links.values().flat_map(|link| &link.written) {
            if let Packet::Publish(publish) = packet {
                self.last_second.push_back((now, publish.size()));
            }
        }
        while self.last_second.front().is_some_and(|(at, _)| at + 1000 <= now) {
            self.last_second.pop_front();
        }
        let bytes: usize = self.last_second.iter().map(|(_, bytes)| bytes).sum();
        let messages = self.last_second.len();
        if messages > MESSAGES_PER_SECOND || bytes > BYTES_PER_SECOND {
            return Err(format!("{messages} messages with {bytes} bytes in one second"));
        }
        Ok(())
    }

    /// # Errors
    /// Inferences wait although nothing hinders them.
    pub(super) fn check_flow(&mut self) -> Result<(), String> {
        let now = self.now();
        let hindered = self.broker.is_silent
            || now < self.partition_until
            || !self.broker.is_subscribed()
            || self.device.as_ref().is_none_or(|device| {
                let undelivered = device.outbox.undelivered();
                !device.is_running()
                    || !device.has_spool_open()
                    || undelivered.on_disk + undelivered.in_memory as u64 == 0
            });
        if hindered {
            self.sent_or_hindered_at = now;
        }
        let quiet = now.saturating_sub(self.sent_or_hindered_at);
        match quiet > FLOW_LIMIT {
            true => Err(format!(
                "for {quiet} ms no inference was sent although nothing hinders it"
            )),
            false => Ok(()),
        }
    }

    pub(super) fn check_bounds(&self) -> Result<(), String> {
        let Some(device) = &self.device else { return Ok(()) };
        // The newest inference stays, whatever its length.
        let loaded = self.plan.spool.map_or(0, |_| MAX_LOADED);
        let more = loaded + self.plan.bounds.inference_window + 1;
        let limit = self.plan.bounds.inference_bytes + more * self.plan.payload.end + OTHER_BYTES;
        let bytes = device.outbox.bytes();
        if bytes > limit {
            return Err(format!("{bytes} bytes are in memory, more than {limit}"));
        }
        let dropped = device.stats.outbox_dropped.get() + device.stats.spool_dropped.get();
        if dropped > 0 && self.plan.drops_nothing() {
            return Err(format!(
                "{dropped} inferences were dropped although memory and disk have room"
            ));
        }
        Ok(())
    }

    pub(super) fn check_end(&self) -> Result<(), String> {
        let (notices, disconnects) = self.ledger.last_stops();
        let stop = self.last_stop.as_ref().filter(|stop| !stop.is_disturbed);
        if self.plan.qos == Qos::AtLeastOnce {
            self.ledger.check_inferences()?;
            // There may be no time for another connection.
            if notices == 0 && stop.is_some() {
                return Err("the last notice did not arrive".into());
            }
        }
        // The client does not wait until the broker has read it, and sends none if the notice was not acknowledged in time.
        let is_underway = |event: &Event| matches!(event, Event::Up(_, Packet::Disconnect));
        let is_due = stop.is_some_and(|stop| self.now() < stop.began + NOTICE_LIMIT);
        if is_due && disconnects == 0 && !self.queue.values().any(is_underway) {
            return Err("the client did not send DISCONNECT, and the broker publishes its last will".into());
        }
        let spool: &Path = &self.directory.path().join("spool.redb");
        if spool.exists() {
            return Err("nothing waits, and the file of the spool exists".into());
        }
        Ok(())
    }
}
