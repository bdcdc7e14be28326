//! The release binary at full speed, with random faults, for as long as wanted. Run by `tests/soak.sh`.
//!
//! Exit code 1: something was lost that the design keeps, or memory or open files grew, or it did not come back.

mod faults;
mod gate;
mod ledger;
mod process;
mod report;
#[path = "../../support/mod.rs"]
mod support;
mod wire;
mod world;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::seq::SliceRandom;
use rustix::process::Signal;

use faults::{Kind, Outcome};
use process::{spool_file, wait};
use world::World;

const INTERRUPTED: u8 = 130;
const DEFAULT_MINUTES: u64 = 60;
const START: Duration = Duration::from_secs(60);
/// A spool of 64 MiB is delivered well within this.
const DRAIN: Duration = Duration::from_secs(300);
/// After this long without a fault the daemon's next attempt to connect comes after 1 s again.
const CALM: Duration = Duration::from_secs(62);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse());
    let (Ok(minutes), Ok(seed)) = (number(DEFAULT_MINUTES), number(rand::random::<u32>().into())) else {
        eprintln!("Usage: tests/soak.sh [MINUTES [SEED]]");
        return ExitCode::from(2);
    };
    let interrupted = end_on_signal();
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{seed}.log"));
    println!("{minutes} minutes, seed {seed}, log of the daemon: {}\n", log.display());
    println!(
        "| minute | published | delivered | sent twice | lost | waiting | RSS MiB | PSS MiB | open files | threads | spool MiB |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut world = World::new(seed, log, interrupted);
    let mut outcomes = Vec::new();
    if world.until(START, |world| world.ledger.lock().delivered > 0).is_none() {
        world.problems.push("nothing was delivered at the start".to_owned());
    } else {
        soak(&mut world, &mut outcomes, Duration::from_secs(minutes * 60));
    }
    if world.is_over() {
        // The signal went to everything the soak runs: what was under way cannot be counted.
        report::faults(&outcomes, &[]);
        println!("\ninterrupted: no verdict");
        return ExitCode::from(INTERRUPTED);
    }
    drain(&mut world);
    if report::conclude(&mut world, &outcomes) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// SIGINT and SIGTERM end the soak in order, with its tables.
fn end_on_signal() -> Arc<AtomicBool> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut term =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("a handler");
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = term.recv() => {}
            }
            flag.store(true, Ordering::Relaxed);
        });
    });
    interrupted
}

/// Every fault as often as the others, in random order. In the first third of the time also those that end the process; what
/// is left of it is the life of one process, whose memory must not grow.
fn soak(world: &mut World, outcomes: &mut Vec<Outcome>, time: Duration) {
    while world.elapsed() < time && !world.is_over() {
        let mut deck: Vec<Kind> = Kind::GENTLE.into();
        if world.elapsed() < time / 3 {
            deck.extend(Kind::DEADLY);
        }
        deck.shuffle(&mut world.random);
        for kind in deck {
            let quiet = world.between(300, 6_000);
            world.pass(quiet);
            if world.elapsed() >= time || world.is_over() {
                return;
            }
            outcomes.extend(world.inflict(kind));
        }
        if world.elapsed() + CALM < time {
            world.pass(CALM);
        }
    }
}

/// Everything is delivered that is left: an orderly end, and a last process that has nothing to add but one frame.
fn drain(world: &mut World) {
    world.poll();
    world.daemon.signal(Signal::TERM);
    if !wait(DRAIN, || world.daemon.ended().is_some()) {
        world.problems.push(format!("the daemon did not end within {DRAIN:?}"));
        world.daemon.kill();
    }
    world.start_daemon(1);
    let drained = world.until(DRAIN, |world| {
        world.figures.get("published") == 1
            && world.figures.get("messages_waiting") == 0
            && spool_file(&world.site).is_none()
    });
    if drained.is_none() {
        world
            .problems
            .push(format!("not everything was delivered within {DRAIN:?}"));
    }
    world.poll();
    world.daemon.signal(Signal::TERM);
    wait(START, || world.daemon.ended().is_some());
}
