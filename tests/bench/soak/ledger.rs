//! What arrived: each inference once, in order, without a gap.
//!
//! `total_inferences` counts the boxes since the start of the component or its `restart` command; the ball is one box in
//! every frame, and nothing is filtered. So the messages of one run are numbered 1, 2, 3 ... by the inference loop itself,
//! and a gap proves a loss.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Instant;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

/// Messages of one run.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Of its first message.
    pub first_ts: u64,
    /// The highest number that came.
    pub last: u64,
    /// Numbers below it that did not come.
    pub missing: Vec<Range<u64>>,
}

impl Run {
    /// How many numbers are missing.
    pub fn gaps(&self) -> u64 {
        self.missing.iter().map(|range| range.end - range.start).sum()
    }
}

/// A message that somebody waits for.
#[derive(Debug, Clone, Copy)]
struct Watch {
    not_before: u64,
    came: Option<Instant>,
}

/// See the module. An hour at a thousand messages a second takes 70 MiB.
#[derive(Debug, Default)]
pub struct Ledger {
    /// 64 of the 122 random bits of each id: two alike among ten million have a chance of one in 370,000.
    ids: HashSet<u64>,
    pub runs: Vec<Run>,
    pub delivered: u64,
    pub duplicates: u64,
    /// Came after one that was inferred later.
    pub disordered: u64,
    pub unreadable: u64,
    /// Full name of the device, from its topics.
    pub device: Option<String>,
    /// The last state notice.
    pub state: String,
    /// Answers to `restart`.
    pub restarts: u64,
    watch: Option<Watch>,
}

#[derive(Deserialize)]
struct Inference {
    id: Uuid,
    ts: u64,
    total_inferences: u64,
}

impl Ledger {
    /// Takes a message as it came.
    pub fn note(&mut self, topic: &str, payload: &[u8]) {
        if self.device.is_none() {
            self.device = topic.split('/').nth(3).map(str::to_owned);
        }
        if topic.ends_with("/inference/output") {
            match serde_json::from_slice(payload) {
                Ok(inference) => self.inference(&inference),
                Err(_) => self.unreadable += 1,
            }
        } else if topic.ends_with("/command/output") {
            let answer: Value = serde_json::from_slice(payload).unwrap_or_default();
            match &answer["result"] {
                result if result["status"].is_string() => {
                    self.state = result["status"].as_str().unwrap_or_default().to_owned();
                }
                result if result["restart"] == "OK" => self.restarts += 1,
                _ => {}
            }
        }
    }

    fn inference(&mut self, message: &Inference) {
        if !self
            .ids
            .insert(message.id.as_u64_pair().1 ^ message.id.as_u64_pair().0.rotate_left(32))
        {
            self.duplicates += 1;
            return;
        }
        self.delivered += 1;
        if let Some(watch) = &mut self.watch
            && message.ts >= watch.not_before
        {
            watch.came.get_or_insert_with(Instant::now);
        }
        let number = message.total_inferences;
        match self.runs.last_mut() {
            Some(run) if number > run.last => {
                if number > run.last + 1 {
                    run.missing.push(run.last + 1..number);
                }
                run.last = number;
            }
            Some(run) if run.missing.iter().any(|range| range.contains(&number)) => {
                self.disordered += 1;
                let (before, after): (Vec<_>, Vec<_>) = run
                    .missing
                    .drain(..)
                    .flat_map(|range| {
                        if range.contains(&number) {
                            vec![range.start..number, number + 1..range.end]
                        } else {
                            vec![range]
                        }
                    })
                    .filter(|range| !range.is_empty())
                    .partition(|range| range.end <= number);
                run.missing = [before, after].concat();
            }
            _ => self.runs.push(Run {
                first_ts: message.ts,
                last: number,
                missing: (number > 1).then_some(1..number).into_iter().collect(),
            }),
        }
    }

    /// Waits from now on for an inference that was made at `not_before` (ms since 1970) or later.
    pub fn watch(&mut self, not_before: u64) {
        self.watch = Some(Watch { not_before, came: None });
    }

    /// When it came.
    pub fn watched(&self) -> Option<Instant> {
        self.watch?.came
    }
}
