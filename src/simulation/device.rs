//! The process under test: the real outbox, spool, connection and commands.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;

use super::ledger::{Ledger, numbered};
use super::plan::{Millis, Plan};
use crate::cache::Caches;
use crate::commands::{AnswerPublisher, CommandContext, execute, refusal_answer};
use crate::config::{Criteria, FilterConfig, Qos};
use crate::device::Topics;
use crate::events::{EventRecorder, EventSettings};
use crate::report::{Report, ReportSettings};
use crate::status::stats::Stats;
use crate::uplink::address::{BrokerAddress, Transport};
use crate::uplink::outbox::Token;
use crate::uplink::{
    Destination, Message, Outbox, ReceivedCommand, Settings, SpoolSettings, Status, SteppedSpool, Uplink, start,
};

thread_local! {
    static JITTER: RefCell<StdRng> = RefCell::new(StdRng::seed_from_u64(0));
}

/// The jitter of the delays between connection attempts, from the seed.
pub(super) fn jitter() -> f64 {
    JITTER.with_borrow_mut(|rng| rng.random())
}

pub(super) fn seed_jitter(seed: u64) {
    JITTER.set(StdRng::seed_from_u64(seed));
}

/// The time of an orderly stop, as in the component.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// One process.
pub(super) struct Device {
    pub outbox: Arc<Outbox>,
    pub stats: Arc<Stats>,
    pub spool: Option<SteppedSpool>,
    uplink: Option<Uplink>,
    stopping: Option<JoinHandle<crate::uplink::StopReport>>,
    commands: Receiver<ReceivedCommand>,
    report: Mutex<Report>,
    events: Arc<EventRecorder>,
    topics: Arc<Topics>,
    qos: Qos,
    /// Inferences that this process pushed and that may be undelivered.
    tokens: BTreeMap<Token, u32>,
    pushed: u64,
    /// Messages of earlier processes on the disk.
    held: Option<u64>,
}

impl Device {
    pub fn start(plan: &Plan, directory: &Path, topics: &Topics) -> Self {
        let stats = Arc::new(Stats::default());
        let outbox = Arc::new(Outbox::new(plan.bounds, stats.clone()));
        let spool = plan.spool.map(|spool| {
            let settings = SpoolSettings {
                path: directory.join("spool.redb"),
                max_bytes: spool.max_bytes,
                policy: spool.policy,
            };
            SteppedSpool::attach(settings, outbox.clone())
        });
        let address = BrokerAddress {
            transport: Transport::Tcp,
            host: directory.join("broker").to_string_lossy().into_owned(),
            port: 0,
            path: String::new(),
            credentials: None,
        };
        let settings = Settings {
            address: Destination::from(address),
            client_id: "device".to_owned(),
            topics: topics.clone(),
            qos: plan.qos,
            refusal_answer,
            ca: None,
            rate_limits: plan.rate_limits,
            limits: plan.times.clone(),
        };
        let (uplink, commands) = start(settings, outbox.clone(), stats.clone());
        let topics = Arc::new(topics.clone());
        let events = EventRecorder::start(
            directory,
            topics.clone(),
            outbox.clone(),
            stats.clone(),
            EventSettings::default(),
        );
        let filter = FilterConfig {
            enabled: false,
            given: 0.5,
            scores_are_probabilities: None,
            criteria: Criteria::GreaterOrEqual,
        };
        let report = ReportSettings {
            filter,
            publish_every: 1,
        };
        Self {
            held: spool.is_none().then_some(0),
            report: Mutex::new(Report::new(report, stats.clone())),
            outbox,
            stats,
            spool,
            uplink: Some(uplink),
            stopping: None,
            commands,
            events,
            topics,
            qos: plan.qos,
            tokens: BTreeMap::new(),
            pushed: 0,
        }
    }

    /// Opens the spool. Returns whether it can be used.
    pub fn open_spool(&mut self) -> bool {
        let Some(spool) = &mut self.spool else { return false };
        let usable = spool.open();
        if usable && self.held.is_none() {
            self.held = Some(self.outbox.undelivered().on_disk);
        }
        usable
    }

    pub fn push(&mut self, number: u32, bytes: usize, is_event: bool) {
        let payload = numbered(number, bytes);
        let message = match is_event {
            true => Message::event(&self.topics, payload, self.qos),
            false => Message::inference(&self.topics, payload, self.qos),
        };
        let token = self.outbox.push(message);
        self.tokens.insert(token, number);
        self.pushed += 1;
    }

    pub fn push_metrics(&self, number: u32) {
        self.outbox
            .push(Message::metrics(&self.topics, numbered(number, 40), self.qos));
    }

    /// Executes the commands that have arrived. Returns whether there was any.
    ///
    /// # Errors
    /// A command was handled twice.
    pub fn execute_commands(&mut self, ledger: &mut Ledger, now: Millis) -> Result<bool, String> {
        let mut any = false;
        while let Ok(command) = self.commands.try_recv() {
            any = true;
            ledger.command_handled(&command.payload, now)?;
            let context = CommandContext {
                report: &self.report,
                model: None,
                changed_thresholds: Vec::new(),
                model_updates: None,
                events: &self.events,
                caches: &Caches::default(),
                answers: AnswerPublisher {
                    outbox: self.outbox.clone(),
                    topics: self.topics.clone(),
                    qos: self.qos,
                },
            };
            execute(&command, &context);
        }
        Ok(any)
    }

    /// Whether it is known what waits on the disk.
    pub fn has_spool_open(&self) -> bool {
        self.held.is_some()
    }

    /// When the spool can begin its next job.
    pub fn spool_due(&self) -> Option<Instant> {
        self.spool.as_ref().and_then(SteppedSpool::due)
    }

    /// Begins an orderly stop.
    pub fn begin_stop(&mut self) {
        if let Some(uplink) = self.uplink.take() {
            let notice = Message::notice(&self.topics, Status::Stopped, self.qos);
            self.stopping = Some(tokio::spawn(uplink.stop(Some(notice), STOP_LIMIT)));
        }
    }

    /// Whether the process runs, and does not stop.
    pub fn is_running(&self) -> bool {
        self.uplink.is_some()
    }

    /// Whether the connection has ended after an orderly stop began.
    pub fn has_stopped(&self) -> bool {
        self.stopping.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// SIGKILL. `written`: the disk has done the job that it was doing.
    pub fn kill(mut self, ledger: &mut Ledger, written: bool) {
        self.note_losses(ledger);
        drop(self.uplink.take());
        if let Some(stopping) = &self.stopping {
            stopping.abort();
        }
        if let Some(spool) = self.spool.take() {
            ledger.counted_losses += spool.kill(written);
        }
        ledger.process_ended();
    }

    /// The end of an orderly stop: writes what was not delivered.
    ///
    /// # Errors
    /// The counters do not account for every message.
    pub fn finish(mut self, ledger: &mut Ledger, disk_is_full: bool) -> Result<(), String> {
        if let Some(spool) = self.spool.take() {
            spool.finish(disk_is_full);
        }
        self.note_losses(ledger);
        ledger.process_ended();
        let undelivered = self.outbox.undelivered();
        let Some(held) = self.held else { return Ok(()) };
        let taken = held + self.pushed;
        let Stats {
            delivered,
            events_delivered,
            outbox_dropped,
            spool_dropped,
            ..
        } = &*self.stats;
        let (delivered, dropped) = (
            delivered.get() + events_delivered.get(),
            outbox_dropped.get() + spool_dropped.get(),
        );
        let waiting = undelivered.on_disk + undelivered.in_memory as u64;
        if taken != delivered + dropped + waiting && !disk_is_full {
            return Err(format!(
                "{held} inferences were on the disk and {} were pushed, but {delivered} were delivered, {dropped} dropped, \
                 and {waiting} wait",
                self.pushed
            ));
        }
        Ok(())
    }

    /// Records what is lost with the process.
    fn note_losses(&self, ledger: &mut Ledger) {
        let mut known = 0;
        for (token, number) in &self.tokens {
            if self.outbox.is_only_in_memory(*token) {
                ledger.may_be_lost(*number);
                known += 1;
            }
        }
        // Messages of an earlier process that a full spool has dropped while they were in flight.
        let others = self.outbox.undelivered().in_memory.saturating_sub(known) as u64;
        ledger.counted_losses += others + self.stats.outbox_dropped.get() + self.stats.spool_dropped.get();
    }
}
