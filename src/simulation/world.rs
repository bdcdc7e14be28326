//! One simulation: the clock, what happens next, and what must hold at each moment.

mod checks;
mod disk;
mod incidents;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rumqttc::mqttbytes::v4::Packet;
use tempfile::TempDir;
use tokio::time::Instant;

use super::broker::{Action, Broker};
use super::device::Device;
use super::idle::Idle;
use super::ledger::Ledger;
use super::network::{LinkId, Network};
use super::plan::{Incident, Millis, Plan};
use super::trace::Trace;
use crate::config::Qos;
use crate::device::Topics;

/// Everything must be delivered this long after the last incident.
const HEALING_LIMIT: Millis = 20 * 60 * 1000;
/// More steps are a loop without an end.
const MAX_STEPS: u64 = 3_000_000;
/// The runtime must have nothing to do this many times in a row, each time after its sockets were polled.
const QUIET_ROUNDS: u32 = 3;
const MAX_ROUNDS: u32 = 100_000;
/// What a simulation has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The same for two runs in which the same happened.
    pub digest: u64,
    pub inferences: u32,
    pub delivered: usize,
    pub answered: usize,
    pub processes: u64,
    pub connections: u64,
}

/// Something that happens at a moment.
#[derive(Debug)]
enum Event {
    Push,
    Metrics,
    Incident(Incident),
    /// The broker reads a packet.
    Up(LinkId, Packet),
    /// The broker reads the end of the connection.
    UpClosed(LinkId),
    /// The client can read a packet.
    Down(LinkId, Packet),
    /// The client can read the end of the connection.
    DownClosed(LinkId),
    /// The spool is opened by the process with this number.
    OpenSpool(u64),
    /// The disk has done the job of the process with this number.
    DiskDone(u64),
    StartProcess,
    /// New connections work again.
    Accept,
    EndSilence,
    /// Nothing goes wrong any more.
    Healed,
}

/// The stop after everything is delivered.
struct LastStop {
    began: Millis,
    /// A CONNECT of an older connection, which was long underway, has arrived since: the broker ends the newer connection.
    is_disturbed: bool,
}

pub(super) struct World {
    plan: Plan,
    idle: Idle,
    start: Instant,
    rng: StdRng,
    topics: Topics,
    directory: TempDir,
    queue: BTreeMap<(Millis, u64), Event>,
    sequence: u64,
    network: Network,
    broker: Broker,
    device: Option<Device>,
    /// Number of the process; events of earlier ones are ignored.
    process: u64,
    connections: u64,
    ledger: Ledger,
    /// Times and bytes of the messages that the client has written in the last second.
    last_second: VecDeque<(Millis, usize)>,
    trace: Trace,
    partition_until: Millis,
    disk_full_until: Millis,
    /// The process is down until this time, or stops.
    down_for: Millis,
    last_stop: Option<LastStop>,
    is_done: bool,
    /// When an inference was written, or had a reason to wait.
    sent_or_hindered_at: Millis,
}

impl World {
    pub fn new(plan: Plan, idle: Idle) -> std::io::Result<Self> {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        let topics = Topics::new("device");
        let mut world = Self {
            idle,
            start: Instant::now(),
            rng: StdRng::seed_from_u64(plan.seed ^ 0x5EED),
            network: Network::listen(&directory.path().join("broker"))?,
            broker: Broker::new(topics.clone()),
            topics,
            directory,
            queue: BTreeMap::new(),
            sequence: 0,
            device: None,
            process: 0,
            connections: 0,
            ledger: Ledger::default(),
            last_second: VecDeque::new(),
            trace: Trace::default(),
            partition_until: 0,
            disk_full_until: 0,
            down_for: 0,
            last_stop: None,
            is_done: false,
            sent_or_hindered_at: 0,
            plan,
        };
        world.at(0, Event::StartProcess);
        world.at(1, Event::Push);
        world.at(world.plan.metrics_every, Event::Metrics);
        world.at(world.plan.healed_at, Event::Healed);
        for (at, incident) in world.plan.incidents.clone() {
            world.at(at, Event::Incident(incident));
        }
        Ok(world)
    }

    /// Plays to the end.
    ///
    /// # Errors
    /// What did not hold, with the last events.
    pub async fn run(mut self) -> Result<Outcome, String> {
        match self.play().await {
            Ok(()) => Ok(self.outcome()),
            Err(error) => Err(format!(
                "seed {}: {error}\nevents before:\n{}settings: {:#?}",
                self.plan.seed,
                self.trace.end(),
                Plan {
                    incidents: Vec::new(),
                    ..self.plan.clone()
                }
            )),
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            digest: self.trace.digest(),
            inferences: self.ledger.pushed(),
            delivered: self.ledger.delivered(),
            answered: self.ledger.answered(),
            processes: self.process,
            connections: self.connections,
        }
    }

    async fn play(&mut self) -> Result<(), String> {
        for _ in 0..MAX_STEPS {
            self.settle().await?;
            self.check_bounds()?;
            self.check_flow()?;
            self.progress()?;
            if self.is_done {
                return self.check_end();
            }
            let now = self.now();
            if let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= now) {
                let event = entry.remove();
                self.execute(event).await?;
                continue;
            }
            let next = self.queue.first_key_value().map_or(now + 1000, |((at, _), _)| *at);
            let disk = self.device.as_ref().and_then(Device::spool_due);
            let disk = disk.map_or(Millis::MAX, |due| self.millis_of(due));
            let then = Duration::from_millis(next.min(disk.max(now + 1)));
            self.idle.pass_time(self.start, then).await;
        }
        Err(format!("{MAX_STEPS} steps have no end"))
    }

    fn now(&self) -> Millis {
        self.start.elapsed().as_millis() as Millis
    }

    /// Rounded up, as timers are.
    fn millis_of(&self, at: std::time::Instant) -> Millis {
        let since = at.saturating_duration_since(self.start.into_std());
        since.as_nanos().div_ceil(1_000_000) as Millis
    }

    fn at(&mut self, at: Millis, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    fn note(&mut self, line: impl Into<String>) {
        self.trace.add(self.now(), line.into());
    }

    fn random(&mut self, range: std::ops::Range<Millis>) -> Millis {
        self.rng.random_range(range)
    }

    /// Lets everything happen that happens at this moment.
    async fn settle(&mut self) -> Result<(), String> {
        let mut quiet = 0;
        for _ in 0..MAX_ROUNDS {
            self.idle.reached().await;
            let mut active = self.network.poll()?;
            let now = self.now();
            if let Some(device) = &mut self.device {
                active |= device.execute_commands(&mut self.ledger, now)?;
            }
            quiet = if active { 0 } else { quiet + 1 };
            if quiet == QUIET_ROUNDS {
                self.check_rate()?;
                self.send_written();
                return Ok(());
            }
        }
        Err(format!("{MAX_ROUNDS} rounds at one moment have no end"))
    }

    /// Puts on their way what the client has written at this moment.
    fn send_written(&mut self) {
        let now = self.now();
        let mut departures = Vec::new();
        for (id, link) in &mut self.network.links {
            if *id > self.connections {
                self.connections = *id;
                self.broker.accepted(*id);
            }
            let written = std::mem::take(&mut link.written);
            let closed = link.closed_by_client == Some(false);
            if closed {
                link.closed_by_client = Some(true);
            }
            if written.is_empty() && !closed {
                continue;
            }
            let latency = self.rng.random_range(self.plan.latency.clone());
            let arrival = (now.max(self.partition_until) + latency).max(link.last_up);
            link.last_up = arrival;
            if !link.is_dead {
                departures.extend(written.into_iter().map(|packet| (arrival, Event::Up(*id, packet))));
            }
            if closed {
                departures.push((arrival, Event::UpClosed(*id)));
            }
        }
        for (arrival, event) in departures {
            self.at(arrival, event);
        }
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { link, packet, after } => {
                    if let Some(arrival) = self.arrival_at_client(link, after) {
                        self.at(arrival, Event::Down(link, packet));
                    }
                }
                Action::Close(link) => {
                    if let Some(arrival) = self.arrival_at_client(link, 0) {
                        self.at(arrival, Event::DownClosed(link));
                    }
                }
            }
        }
    }

    /// One packet arrives at the client per millisecond, so that the order of reads and writes there does not depend on chance.
    fn arrival_at_client(&mut self, id: LinkId, after: Millis) -> Option<Millis> {
        let now = self.now();
        let latency = self.rng.random_range(self.plan.latency.clone());
        let link = self.network.links.get_mut(&id)?;
        let arrival = now.max(self.partition_until) + latency + after;
        // An acknowledgement may overtake another one, but nothing overtakes what the connection has already carried.
        let arrival = match after {
            0 => arrival.max(link.last_down + 1),
            _ => arrival,
        };
        link.last_down = link.last_down.max(arrival);
        Some(arrival)
    }

    async fn execute(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Push => self.push(),
            Event::Metrics => self.push_metrics(),
            Event::Incident(incident) => self.happen(incident).await,
            Event::Up(link, packet) => self.receive(link, packet)?,
            Event::UpClosed(link) => {
                self.broker.disconnected(link);
                self.network.close(link);
            }
            Event::Down(link, packet) => self.deliver(link, &packet),
            Event::DownClosed(link) => {
                self.note(format!("connection {link} is closed"));
                self.broker.disconnected(link);
                self.network.close(link);
            }
            Event::OpenSpool(process) if process == self.process => self.open_spool(),
            Event::DiskDone(process) if process == self.process => self.finish_job(),
            Event::OpenSpool(_) | Event::DiskDone(_) => {}
            Event::StartProcess => self.start_process(),
            Event::Accept => self.broker.refusal = None,
            Event::EndSilence => self.broker.is_silent = false,
            Event::Healed => {
                self.note("nothing goes wrong any more");
                self.broker.refusal = None;
                self.broker.is_silent = false;
                self.broker.repeat_next = false;
            }
        }
        Ok(())
    }

    fn push(&mut self) {
        self.push_inference();
        if self.ledger.pushed() < self.plan.inferences {
            let wait = self.random(self.plan.interval.clone());
            let now = self.now();
            self.at(now + wait, Event::Push);
        }
    }

    fn push_inference(&mut self) {
        let bytes = self.rng.random_range(self.plan.payload.clone());
        let is_event = self.rng.random_bool(0.1);
        if let Some(device) = self.device.as_mut().filter(|device| device.is_running()) {
            let number = self.ledger.push();
            device.push(number, bytes, is_event);
            self.note(format!("push {number}"));
        }
    }

    fn push_metrics(&mut self) {
        if let Some(device) = self.device.as_ref().filter(|device| device.is_running()) {
            let number = self.ledger.push_metrics();
            device.push_metrics(number);
        }
        if self.ledger.pushed() < self.plan.inferences {
            let now = self.now();
            self.at(now + self.plan.metrics_every, Event::Metrics);
        }
    }

    fn receive(&mut self, link: LinkId, packet: Packet) -> Result<(), String> {
        if !self.broker.knows(link) {
            return Ok(());
        }
        match &packet {
            Packet::Publish(publish) => self.note(format!(
                "broker reads publish {} on connection {link}: {} bytes, first {:?}",
                publish.pkid,
                publish.payload.len(),
                publish
                    .payload
                    .first_chunk::<4>()
                    .map(|bytes| u32::from_be_bytes(*bytes))
                    .filter(|number| *number < 1 << 20)
            )),
            Packet::PubAck(ack) => self.note(format!(
                "broker reads acknowledgement {} on connection {link}",
                ack.pkid
            )),
            Packet::Connect(connect) => {
                self.note(format!(
                    "broker reads CONNECT on connection {link}, clean: {}",
                    connect.clean_session
                ));
                if let Some(stop) = &mut self.last_stop {
                    stop.is_disturbed = true;
                }
            }
            // When the client sends a ping is not decided by the seed alone.
            Packet::PingReq => {}
            other => self.note(format!("broker reads {other:?} on connection {link}")),
        }
        if matches!(&packet, Packet::Publish(publish) if publish.topic == self.topics.inference_output || publish.topic == self.topics.events)
        {
            self.sent_or_hindered_at = self.now();
        }
        let actions = self
            .broker
            .receive(link, packet, &self.plan, &mut self.ledger, &mut self.rng)?;
        self.perform(actions);
        Ok(())
    }

    fn deliver(&mut self, link: LinkId, packet: &Packet) {
        match packet {
            Packet::PubAck(ack) => {
                self.broker.acknowledges(link, ack.pkid);
                self.note(format!(
                    "client can read acknowledgement {} on connection {link}",
                    ack.pkid
                ));
            }
            Packet::Publish(publish) => self.note(format!(
                "client can read publish {} on connection {link}: {} bytes, dup {}, retain {}",
                publish.pkid,
                publish.payload.len(),
                publish.dup,
                publish.retain
            )),
            Packet::PingResp => {}
            other => self.note(format!("client can read {other:?} on connection {link}")),
        }
        if let Packet::Publish(publish) = packet {
            self.ledger.command_delivered(&publish.payload);
        }
        self.network.deliver(link, packet);
    }

    fn start_process(&mut self) {
        self.process += 1;
        self.last_second.clear();
        self.note(format!("process {} starts", self.process));
        self.device = Some(Device::start(&self.plan, self.directory.path(), &self.topics));
        if self.plan.spool.is_some() {
            let now = self.now();
            let wait = self.random(self.plan.disk.clone());
            self.at(now + wait, Event::OpenSpool(self.process));
        }
    }

    /// Begins jobs of the disk, ends stops, and finds the end.
    fn progress(&mut self) -> Result<(), String> {
        let now = self.now();
        let due = self
            .device
            .as_ref()
            .and_then(Device::spool_due)
            .map(|due| self.millis_of(due));
        let spool = self.device.as_mut().and_then(|device| device.spool.as_mut());
        if due.is_some_and(|due| due <= now) && spool.is_some_and(|spool| spool.begin()) {
            let wait = self.random(self.plan.disk.clone());
            self.at(now + wait, Event::DiskDone(self.process));
        }
        if self.device.as_ref().is_some_and(Device::has_stopped)
            && let Some(device) = self.device.take()
        {
            self.note("process has stopped");
            device.finish(&mut self.ledger, now < self.disk_full_until)?;
            self.process_ended();
        }
        let has_ended = self.ledger.pushed() >= self.plan.inferences && now >= self.plan.healed_at;
        if !has_ended || self.last_stop.is_some() {
            return Ok(());
        }
        let is_complete = self
            .device
            .as_ref()
            .is_some_and(|device| device.is_running() && device.has_spool_open() && device.outbox.waiting() == 0);
        // Metrics and answers are sent once then, whatever happens to the connection.
        let may_lose = self.plan.qos == Qos::AtMostOnce;
        let metrics = may_lose || self.ledger.metrics_are_current();
        let commands = may_lose || self.ledger.open_commands().is_empty();
        let is_idle = metrics && commands && self.broker.active().is_some() && self.broker.has_no_commands();
        if is_complete && is_idle {
            self.note("everything is delivered");
            self.last_stop = Some(LastStop {
                began: now,
                is_disturbed: false,
            });
            self.ledger.last_stop_begins();
            self.begin_stop(0);
        } else if now > self.plan.healed_at.max(self.last_push()) + HEALING_LIMIT + self.slowest_delivery() {
            return Err(format!(
                "not everything was delivered: waiting: {:?}, commands: {:?}, newest metrics: {metrics}, a connection: {}, no commands at the broker: {}",
                self.device.as_ref().map(|device| device.outbox.waiting()),
                self.ledger.open_commands(),
                self.broker.active().is_some(),
                self.broker.has_no_commands()
            ));
        }
        Ok(())
    }

    /// With a window of one message, each waits for the acknowledgement of the one before.
    fn slowest_delivery(&self) -> Millis {
        self.plan.acknowledgement.end * Millis::from(self.plan.inferences)
    }

    /// An upper bound of the time of the last inference.
    fn last_push(&self) -> Millis {
        u64::from(self.plan.inferences) * self.plan.interval.end
    }

    fn process_ended(&mut self) {
        if self.last_stop.is_some() {
            self.is_done = true;
        } else {
            let at = self.now() + self.down_for;
            self.at(at, Event::StartProcess);
        }
    }
}
