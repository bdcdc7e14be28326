//! What a power cut leaves behind, and what the next start makes of it.
//!
//! The real program runs with a layer between it and libc ([`recorder`]) that writes down everything it does to its files. A [`disk`]
//! of which only synced content is safe replays that, stops anywhere, and loses, tears or reorders the rest. The library and the real
//! program then start on what is left.

mod disk;
mod outage;
mod promises;
mod recorder;
mod recovered;
mod s3_cache;
mod started;
mod states;
mod trace;
mod tree;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, mpsc};

use disk::Disk;
use outage::Outage;
use states::{CrashState, Plan};
use trace::Trace;
use tree::Tree;

/// States that the library opens, and of those the states on which the program starts, in the default run. `tests/power-cut.sh` sets
/// other numbers.
const STATES: u64 = 200;
const STARTS: u64 = 4;
const SEED: u64 = 17;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

/// The replayed trace is what the directory contains: nothing that the program did has escaped the recorder.
fn check_replay(trace: &Trace, root: &Path) {
    let mut disk = Disk::default();
    for step in &trace.steps {
        disk.apply(&step.operation, trace);
    }
    let (replayed, real) = (disk.now(), Tree::read(root));
    assert_eq!(replayed.summary(), real.summary());
    assert!(replayed == real, "the contents or modes differ");
}

/// Checks what the library finds in the spool. Returns what is wrong.
fn check_state(
    outage: &Outage,
    places: &HashMap<&str, usize>,
    state: &CrashState,
    directory: &Path,
) -> Result<(), String> {
    check_small_files(outage, state)?;
    state.tree.write(directory);
    let spool = outage::spool_file(directory);
    if spool.parent() == Some(Path::new("")) {
        let held = outage.promises.held_at(state.position);
        return if held.is_empty() {
            Ok(())
        } else {
            Err(format!("no device directory, but {held:?} were promised"))
        };
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let delivered = runtime.expect("a runtime").block_on(recovered::deliver(&spool));
    check_messages(outage, places, state, &delivered)?;
    let device = spool.parent().expect("a directory");
    let left = Tree::read(device).summary();
    if left.contains("damaged") {
        Err(format!("damage:\n{left}"))
    } else {
        Ok(())
    }
}

/// The device's name and the token of the page are kept since the program has used them.
fn check_small_files(outage: &Outage, state: &CrashState) -> Result<(), String> {
    let promised = outage.small_files.0.iter();
    let lost = promised
        .filter(|(path, entry)| state.tree.0.get(*path) != Some(entry))
        .map(|(path, _)| path.as_str());
    let lost: Vec<_> = lost.filter(|_| outage.promises.has_answered(state.position)).collect();
    if lost.is_empty() {
        Ok(())
    } else {
        Err(format!("lost or damaged: {lost:?}"))
    }
}

/// Whether all promised messages are there, in order, each once, and nothing else.
fn check_messages(
    outage: &Outage,
    places: &HashMap<&str, usize>,
    state: &CrashState,
    delivered: &[String],
) -> Result<(), String> {
    let place = |message: &String| {
        places
            .get(message.as_str())
            .copied()
            .ok_or_else(|| format!("unknown: {message}"))
    };
    let found = delivered.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    if !found.is_sorted_by(|a, b| a < b) {
        return Err(format!("not in order: {found:?}"));
    }
    let promised = outage.promises.held_at(state.position);
    let missing: Vec<_> = promised.clone().filter(|place| !found.contains(place)).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("of {promised:?} these are lost: {missing:?}"))
    }
}

/// Where the states are written: memory, if the machine has a directory for it.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a directory")
}

/// Checks states on two threads while they are made. Returns their number, and a sample of them.
fn check_states(outage: &Outage, places: &HashMap<&str, usize>, plan: Plan, starts: usize) -> (usize, Vec<CrashState>) {
    let (sender, receiver) = mpsc::sync_channel::<CrashState>(4);
    let (receiver, failures, mut sample) = (Mutex::new(receiver), Mutex::new(Vec::new()), Vec::new());
    let count = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Ok(state) = { receiver.lock().expect("the lock").recv() } {
                    let directory = scratch();
                    if let Err(error) = check_state(outage, places, &state, directory.path()) {
                        let text = format!("{}: {error}\n{}", state.name(), state.tree.summary());
                        failures.lock().expect("the lock").push(text);
                    }
                }
            });
        }
        let mut seen = 0;
        let count = states::visit(&outage.trace, plan, |state| {
            seen += 1;
            if seen * starts / plan.states > sample.len() {
                sample.push(state.clone());
            }
            sender.send(state).expect("a checker");
        });
        drop(sender);
        count
    });
    let failures = failures.into_inner().expect("the lock");
    let first = failures[..failures.len().min(5)].join("\n\n");
    assert!(
        failures.is_empty(),
        "{} of {count} states failed, the first:\n{first}",
        failures.len()
    );
    (count, sample)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_power_cut_loses_a_message_that_was_reported_as_written() {
    let outage = outage::record().await;
    check_replay(&outage.trace, &outage.root);
    let places: HashMap<&str, usize> = outage.messages.iter().map(String::as_str).zip(0..).collect();
    let plan = Plan {
        states: number("POWER_CUT_STATES", STATES) as usize,
        seed: number("POWER_CUT_SEED", SEED),
    };
    let (count, sample) = check_states(&outage, &places, plan, number("POWER_CUT_STARTS", STARTS) as usize);
    for state in &sample {
        let start = started::start(&outage, state).await;
        let checked = check_messages(&outage, &places, state, &start.delivered);
        checked.unwrap_or_else(|error| panic!("{}: {error}\n{}", state.name(), start.log));
        assert!(
            !start.log.contains(" ERROR ") && !start.log.contains("panicked"),
            "{}\n{}",
            state.name(),
            start.log
        );
        if !start.delivered.is_empty() {
            assert!(
                start.log.contains("Undelivered messages wait on disk"),
                "{}\n{}",
                state.name(),
                start.log
            );
        }
    }
    let syncs = outage.trace.steps.iter().filter(|step| step.operation.is_sync());
    println!(
        "{} messages; {} operations, {} of them syncs; {count} different states, {} starts of the program; nothing lost",
        outage.messages.len(),
        outage.trace.steps.len(),
        syncs.count(),
        sample.len()
    );
}
