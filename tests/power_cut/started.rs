//! Starts the real program on what a power cut has left.

use std::time::Instant;

use super::outage::{self, Outage};
use super::states::CrashState;
use crate::support::broker::{Behaviour, MockBroker};
use crate::support::daemon::{Daemon, LIMIT};
use crate::support::inferences::inferences;
use crate::support::scripts::{boxed, cycle, frames};

/// Inferences of the run after the power cut.
const NEW: usize = 3;

/// What the program did.
pub struct Start {
    /// Old messages, in the order in which the broker has received them first.
    pub delivered: Vec<String>,
    pub log: String,
}

/// Starts the program with a broker, and waits until messages of the new run come after the old ones.
pub async fn start(outage: &Outage, state: &CrashState) -> Start {
    let site = outage.site.copy();
    let work_dir = site.path().join("work");
    std::fs::create_dir(&work_dir).expect("a directory");
    state.tree.write(&work_dir);
    let broker = MockBroker::start(Behaviour::default()).await;
    let model = site.scripted_model(&cycle(&[boxed(0.9)]));
    let source = frames(NEW as u32);
    let daemon = Daemon::start(outage::command(&site, &work_dir, &model, &broker.url(), &source));
    let is_old = |message: &String| outage.messages.contains(message);
    let begun = Instant::now();
    let all = loop {
        let all = inferences(&broker.log());
        if all.iter().filter(|message| !is_old(message)).count() == NEW {
            break all;
        }
        assert!(
            begun.elapsed() < LIMIT,
            "{}: new messages\n{}",
            state.name(),
            daemon.log()
        );
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    let log = daemon.stop();
    let old = all.len() - NEW;
    assert!(
        all[..old].iter().all(is_old),
        "{}: new messages come last",
        state.name()
    );
    Start {
        delivered: all[..old].to_vec(),
        log,
    }
}
