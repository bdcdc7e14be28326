//! What goes wrong.

use std::time::Duration;

use super::{Event, World};
use crate::simulation::ledger::LARGE_COMMAND;
use crate::simulation::network::LinkId;
use crate::simulation::plan::{Incident, Millis, Refusal};

impl World {
    pub(super) async fn happen(&mut self, incident: Incident) {
        let now = self.now();
        // What was planned during a suspension happens after it, and not after the healing.
        if now >= self.plan.healed_at {
            return;
        }
        let healed_at = self.plan.healed_at;
        let until = |length: Millis| (now + length).min(healed_at);
        match incident {
            Incident::Command { .. } => {}
            other => self.trace.add(now, format!("{other:?}")),
        }
        match incident {
            Incident::Partition(length) => {
                let until = until(length);
                self.hold_packets(until.saturating_sub(now));
                self.partition_until = self.partition_until.max(until);
            }
            Incident::Reset => self.reset_all(),
            Incident::HalfOpen => {
                if let Some(link) = self.broker.active() {
                    self.lose_packets(link);
                    self.broker.disconnected(link);
                    if let Some(link) = self.network.links.get_mut(&link) {
                        link.is_dead = true;
                    }
                }
            }
            Incident::TakeOver => {
                if let Some(link) = self.broker.active() {
                    self.broker.disconnected(link);
                    self.perform(vec![crate::simulation::broker::Action::Close(link)]);
                }
            }
            Incident::BrokerRestart { away, keeps_session } => {
                self.reset_all();
                self.broker.restart(keeps_session);
                self.broker.refusal = Some(Refusal::Closed);
                self.at(until(away), Event::Accept);
            }
            Incident::ForgetSession => self.broker.forgets_session = true,
            Incident::Refuse(refusal, length) => {
                self.broker.refusal = Some(refusal);
                self.at(until(length), Event::Accept);
                if let Some(link) = self.broker.active() {
                    self.broker.disconnected(link);
                    self.perform(vec![crate::simulation::broker::Action::Close(link)]);
                }
            }
            Incident::Silence(length) => {
                self.broker.is_silent = true;
                self.at(until(length), Event::EndSilence);
            }
            Incident::RepeatedAcknowledgement => self.broker.repeat_next = true,
            Incident::RedeliverCommand => {
                let actions = self.broker.redeliver(|command| self.ledger.is_forgotten(command, now));
                self.perform(actions);
            }
            Incident::Command { retained } => {
                let command = self.ledger.new_command();
                self.trace.add(now, format!("command {command}, retained: {retained}"));
                let actions = self.broker.command(command, retained);
                self.perform(actions);
            }
            Incident::LargeCommand => {
                let actions = self.broker.command(LARGE_COMMAND, true);
                self.perform(actions);
            }
            Incident::Burst(count) => (0..count).for_each(|_| self.push_inference()),
            Incident::DiskFull(length) => self.disk_full_until = until(length),
            Incident::Suspend(length) => {
                let length = until(length).saturating_sub(now);
                tokio::time::advance(Duration::from_millis(length)).await;
                self.sent_or_hindered_at = self.now();
            }
            Incident::Kill(down) => self.kill(down),
            Incident::Stop(down) => self.begin_stop(down),
        }
    }

    fn kill(&mut self, down: Millis) {
        if let Some(device) = self.device.take() {
            let written = self.random(0..2) == 1;
            device.kill(&mut self.ledger, written);
            self.down_for = down;
            self.process_ended();
        }
    }

    pub(super) fn begin_stop(&mut self, down: Millis) {
        if let Some(device) = self.device.as_mut().filter(|device| device.is_running()) {
            device.begin_stop();
            self.down_for = down;
        }
    }

    /// Packets on their way arrive so much later.
    fn hold_packets(&mut self, length: Millis) {
        let is_packet = |event: &Event| {
            matches!(
                event,
                Event::Up(..) | Event::UpClosed(_) | Event::Down(..) | Event::DownClosed(_)
            )
        };
        let held: Vec<_> = self.queue.extract_if(.., |_, event| is_packet(event)).collect();
        for ((at, sequence), event) in held {
            self.queue.insert((at + length, sequence), event);
        }
        for link in self.network.links.values_mut() {
            link.last_up += length;
            link.last_down += length;
        }
    }

    fn lose_packets(&mut self, link: LinkId) {
        self.queue.retain(|_, event| match event {
            Event::Up(of, _) | Event::UpClosed(of) | Event::Down(of, ..) | Event::DownClosed(of) => *of != link,
            _ => true,
        });
    }

    /// All connections are reset, at both ends.
    fn reset_all(&mut self) {
        let links: Vec<_> = self.network.links.keys().copied().collect();
        for link in links {
            self.lose_packets(link);
            self.broker.disconnected(link);
            self.network.close(link);
        }
    }
}
