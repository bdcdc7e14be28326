//! What was pushed, delivered, lost, commanded and answered, and what must hold.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::{Value, json};

use super::network::LinkId;
use super::plan::Millis;

/// Number of a command. Its value is part of the payload and of the answer.
pub(super) type CommandId = u32;

/// A command that is larger than the client accepts.
pub(super) const LARGE_COMMAND: CommandId = CommandId::MAX;
const LARGE_BYTES: usize = (4 << 20) + 1;

/// The records of one simulation.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pushed: u32,
    received: BTreeSet<u32>,
    newest_first: Option<u32>,
    /// The last inference of each connection.
    last_of_link: BTreeMap<LinkId, u32>,
    /// Whether inferences may arrive in another order: at a stop with a full disk, those in memory are sent at once, because they
    /// would be lost, and older ones on disk after the next start.
    pub order_may_change: bool,
    /// Only in memory when a process ended.
    may_be_lost: BTreeSet<u32>,
    /// Losses that the counters report, and messages of earlier processes that were only in memory when one ended.
    pub counted_losses: u64,
    commands: Vec<Command>,
    newest_metrics: Option<u32>,
    received_metrics: Option<u32>,
    stopped_notices: u32,
    disconnects: u32,
}

#[derive(Debug, Default, Clone)]
struct Command {
    /// A process could read it.
    delivered: bool,
    /// The client acknowledged it.
    acknowledged: bool,
    handled_at: Option<Millis>,
    answered: bool,
    /// A process ended before it was answered.
    excused: bool,
}

impl Ledger {
    pub fn push(&mut self) -> u32 {
        self.pushed += 1;
        self.pushed - 1
    }

    pub fn pushed(&self) -> u32 {
        self.pushed
    }

    pub fn delivered(&self) -> usize {
        self.received.len()
    }

    /// # Errors
    /// Wrong order, or twice on one connection.
    pub fn inference_received(&mut self, link: LinkId, payload: &[u8]) -> Result<(), String> {
        let number = number(payload).filter(|number| *number < self.pushed);
        let number = number.ok_or("an inference was never pushed")?;
        let before = self.last_of_link.insert(link, number);
        let is_first = self.received.insert(number);
        if self.order_may_change {
            return Ok(());
        }
        if let Some(before) = before.filter(|before| *before >= number) {
            return Err(format!("on one connection inference {number} arrived after {before}"));
        }
        if is_first {
            if let Some(newest) = self.newest_first.filter(|newest| *newest > number) {
                return Err(format!("inference {number} arrived for the first time after {newest}"));
            }
            self.newest_first = Some(number);
        }
        Ok(())
    }

    /// The process ended with this inference in memory only.
    pub fn may_be_lost(&mut self, number: u32) {
        self.may_be_lost.insert(number);
    }

    /// # Errors
    /// Inferences are missing that nothing accounts for.
    pub fn check_inferences(&self) -> Result<(), String> {
        let missing =
            (0..self.pushed).filter(|number| !self.received.contains(number) && !self.may_be_lost.contains(number));
        let missing: Vec<_> = missing.collect();
        if missing.len() as u64 > self.counted_losses {
            return Err(format!(
                "{} inferences are missing and {} are counted as lost: {missing:?}",
                missing.len(),
                self.counted_losses
            ));
        }
        Ok(())
    }

    pub fn new_command(&mut self) -> CommandId {
        self.commands.push(Command::default());
        self.commands.len() as CommandId - 1
    }

    pub fn command_delivered(&mut self, payload: &[u8]) {
        let id = parsed_command(payload);
        if let Some(command) = id.and_then(|id| self.command(id)) {
            command.delivered = true;
        }
    }

    pub fn command_acknowledged(&mut self, command: CommandId) {
        if let Some(command) = self.command(command) {
            command.acknowledged = true;
        }
    }

    /// # Errors
    /// It was handled before.
    pub fn command_handled(&mut self, payload: &[u8], at: Millis) -> Result<CommandId, String> {
        let id = parsed_command(payload).ok_or("a command was never sent")?;
        let command = self.command(id).ok_or("a command was never sent")?;
        match command.handled_at.replace(at) {
            Some(before) => Err(format!("command {id} was handled at {before} ms and again")),
            None => Ok(id),
        }
    }

    /// Whether the client may take a command that it has acknowledged for a new one: it was handled too long ago.
    pub fn is_forgotten(&self, payload: &[u8], now: Millis) -> bool {
        let command = parsed_command(payload).and_then(|id| self.commands.get(id as usize));
        command
            .and_then(|command| command.handled_at)
            .is_some_and(|at| at + 5_000 < now)
    }

    /// # Errors
    /// It is not the answer to a command that was handled.
    pub fn answer_received(&mut self, payload: &[u8]) -> Result<(), String> {
        let answer: Value = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        let result = &answer["result"];
        if result["status"] == "stopped" {
            self.stopped_notices += 1;
        }
        if result.get("status").is_some() {
            return Ok(());
        }
        if result.get("error").is_some() {
            // The refusal of the large command.
            return Ok(());
        }
        let command = command_id(&result["confidence_threshold"]).and_then(|id| self.command(id));
        match command {
            Some(command) if command.handled_at.is_some() => {
                command.answered = true;
                Ok(())
            }
            _ => Err(format!("nobody asked for the answer {answer}")),
        }
    }

    /// Commands that were not answered may remain so, and the newest metrics unsent.
    pub fn process_ended(&mut self) {
        self.newest_metrics = None;
        for command in &mut self.commands {
            command.excused |= command.delivered && !command.answered;
        }
    }

    /// Commands that the client has taken and that must still be handled or answered.
    pub fn open_commands(&self) -> Vec<CommandId> {
        let open = |command: &Command| {
            let taken = command.acknowledged || command.handled_at.is_some();
            taken && !command.excused && !command.answered
        };
        (0..)
            .zip(&self.commands)
            .filter(|(_, command)| open(command))
            .map(|(id, _)| id)
            .collect()
    }

    pub fn answered(&self) -> usize {
        self.commands.iter().filter(|command| command.answered).count()
    }

    pub fn push_metrics(&mut self) -> u32 {
        let next = self
            .newest_metrics
            .max(self.received_metrics)
            .map_or(0, |last| last + 1);
        self.newest_metrics = Some(next);
        next
    }

    pub fn metrics_received(&mut self, payload: &[u8]) {
        self.received_metrics = self.received_metrics.max(number(payload));
    }

    /// Whether the newest metrics have arrived.
    pub fn metrics_are_current(&self) -> bool {
        self.received_metrics >= self.newest_metrics
    }

    pub fn disconnected_in_order(&mut self) {
        self.disconnects += 1;
    }

    /// The component begins to stop for the last time.
    pub fn last_stop_begins(&mut self) {
        (self.stopped_notices, self.disconnects) = (0, 0);
    }

    /// Final notices and DISCONNECT packets that the broker has read since then.
    pub fn last_stops(&self) -> (u32, u32) {
        (self.stopped_notices, self.disconnects)
    }

    fn command(&mut self, id: CommandId) -> Option<&mut Command> {
        self.commands.get_mut(id as usize)
    }
}

/// The payload of an inference or of metrics.
pub(super) fn numbered(number: u32, bytes: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(bytes.max(4), 0);
    payload
}

fn number(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// A real command, which sets the threshold to a value of its own.
pub(super) fn command_payload(id: CommandId) -> Bytes {
    if id == LARGE_COMMAND {
        return vec![b' '; LARGE_BYTES].into();
    }
    let value = format!("0.{:05}", 10_000 + id);
    json!({"cmd": "set_threshold_filter_confidence", "value": value})
        .to_string()
        .into()
}

fn parsed_command(payload: &[u8]) -> Option<CommandId> {
    let command: Value = serde_json::from_slice(payload).ok()?;
    command_id(&command["value"])
}

fn command_id(value: &Value) -> Option<CommandId> {
    let threshold = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
    let id = (threshold * 100_000.0).round() - 10_000.0;
    (0.0..80_000.0).contains(&id).then_some(id as CommandId)
}
