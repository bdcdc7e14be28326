//! The release binary at full speed with random faults, in a day of a device, or in outages at full speed. Run by
//! `tests/soak.sh`.
//!
//! Exit code 1: something was lost that the design keeps, or memory or open files grew, or it did not come back.

mod camera;
mod day;
mod faults;
mod gate;
mod ledger;
mod outage;
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

use day::Day;
use faults::{Kind, Outcome};
use process::{FRAMES, Launch, spool_file, wait};
use support::daemon::Site;
use world::{Surroundings, World};

const INTERRUPTED: u8 = 130;
const DEFAULT_MINUTES: u64 = 60;
const DEFAULT_DAY_MINUTES: u64 = 36;
const DEFAULT_DAY_HOURS: u64 = 24;
const DEFAULT_OUTAGES: u64 = 3;
const START: Duration = Duration::from_secs(60);
/// A spool of 64 MiB is delivered well within this.
const DRAIN: Duration = Duration::from_secs(300);
/// After this long without a fault the daemon's next attempt to connect comes after 1 s again.
const CALM: Duration = Duration::from_secs(62);

const USAGE: &str = "Usage: tests/soak.sh [MINUTES [SEED]]
       tests/soak.sh day --compressed [MINUTES [SEED]]
       tests/soak.sh day [HOURS [SEED]]
       tests/soak.sh outage [TIMES]";

/// What is asked for.
#[derive(Debug, Clone, Copy)]
enum Task {
    Faults(Duration),
    Day(Day),
    Outages(u64),
}

/// Reads the command line: the task and the seed.
fn parse(arguments: impl Iterator<Item = String>) -> Option<(Task, u64)> {
    // Cargo adds options of its own.
    let (options, words): (Vec<_>, Vec<_>) = arguments.partition(|argument| argument.starts_with('-'));
    let is_compressed = options.iter().any(|option| option == "--compressed");
    let mut words = words.into_iter().peekable();
    let name = words.next_if(|word| !word.starts_with(|c: char| c.is_ascii_digit()));
    let mut number = |default| words.next().map_or(Some(default), |text| text.parse::<u64>().ok());
    let task = match name.as_deref() {
        None => Task::Faults(Duration::from_secs(number(DEFAULT_MINUTES)? * 60)),
        Some("day") if is_compressed => Task::Day(Day::compressed(number(DEFAULT_DAY_MINUTES)?)),
        Some("day") => Task::Day(Day::real(number(DEFAULT_DAY_HOURS)?)),
        Some("outage") => Task::Outages(number(DEFAULT_OUTAGES)?),
        Some(_) => return None,
    };
    Some((task, number(rand::random::<u32>().into())?))
}

fn main() -> ExitCode {
    let Some((task, seed)) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let interrupted = end_on_signal();
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{seed}.log"));
    println!("seed {seed}, log of the daemon: {}\n", log.display());
    let site = Site::new();
    let (launch, surroundings) = match task {
        Task::Faults(_) => (Launch::full_speed(FRAMES), None),
        Task::Outages(_) => (Launch::endless(), None),
        Task::Day(_) => {
            let surroundings = Surroundings::new(&site);
            if surroundings.disk.is_none() {
                println!("No file system can be mounted (only root may): the disk is never full.\n");
            }
            let launch = Launch::camera(&surroundings.camera, surroundings.disk.as_ref(), &surroundings.clock);
            (launch, Some(surroundings))
        }
    };
    let mut world = World::new(seed, log, interrupted, site, launch, surroundings);
    if world.until(START, |world| world.ledger.lock().delivered > 0).is_none() {
        println!("PROBLEM: nothing was delivered at the start");
        return ExitCode::FAILURE;
    }
    let is_well = match task {
        Task::Faults(time) => run_faults(&mut world, time),
        Task::Day(day) => day::run(&mut world, day),
        Task::Outages(times) => Some(outage::run(&mut world, times)),
    };
    match is_well {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => ExitCode::from(INTERRUPTED),
    }
}

/// Returns whether nothing was lost and nothing grew; `None`: it was interrupted.
fn run_faults(world: &mut World, time: Duration) -> Option<bool> {
    println!(
        "| minute | published | delivered | sent twice | lost | waiting | RSS MiB | PSS MiB | open files | threads | spool MiB |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    world.prints_minutes = true;
    let mut outcomes = Vec::new();
    soak(world, &mut outcomes, time);
    if world.is_over() {
        // The signal went to everything the soak runs: what was under way cannot be counted.
        report::faults(&outcomes, &[]);
        println!("\ninterrupted: no verdict");
        return None;
    }
    drain(world);
    Some(report::conclude(world, &outcomes))
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
    world.start_last_daemon();
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
