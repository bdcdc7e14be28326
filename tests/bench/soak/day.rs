//! A day of a device: a camera with ten small pictures a second, and the faults that a device meets in a day. One process
//! lives through all of it.
//!
//! Before the day begins every fault happens once, so that the process has touched all code and buffers that it needs.

use std::time::Duration;

use rand::seq::SliceRandom;

use crate::faults::{Kind, Outcome};
use crate::report;
use crate::world::{Sample, World};

const HOURS: u64 = 24;
const HOUR: Duration = Duration::from_secs(3600);
const FAULTS_AN_HOUR: u32 = 3;
/// Rows of the table for each hour in real time: an interrupted run has a table too.
const ROWS_AN_HOUR: u32 = 6;
/// Difference of resident memory between the first and the last hour, as a share of the first.
const MEMORY_TOLERANCE: f64 = 0.05;
const DRAIN: Duration = Duration::from_secs(120);

/// How long the day takes.
#[derive(Debug, Clone, Copy)]
pub struct Day {
    /// Hours of the day.
    hours: u64,
    /// Time that an hour takes.
    hour: Duration,
    rows_an_hour: u32,
}

impl Day {
    /// 24 hours in so many minutes. An hour takes longer if its faults do.
    pub fn compressed(minutes: u64) -> Self {
        Self {
            hours: HOURS,
            hour: Duration::from_secs(minutes * 60 / HOURS),
            rows_an_hour: 1,
        }
    }

    /// So many hours in real time.
    pub fn real(hours: u64) -> Self {
        Self {
            hours,
            hour: HOUR,
            rows_an_hour: ROWS_AN_HOUR,
        }
    }
}

/// What was counted until a moment.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    published: u64,
    delivered: u64,
    duplicates: u64,
    lost: u64,
    samples: usize,
}

/// The process within a row of the table.
#[derive(Debug, Clone)]
struct Row {
    samples: Vec<Sample>,
}

/// The medians of resident memory, and the lowest numbers of files and threads: those that no work in progress explains.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Level {
    rss_mib: f64,
    files: usize,
    threads: u64,
}

impl Level {
    /// `None`: nobody looked at the process.
    fn of(rows: &[Row]) -> Option<Self> {
        let samples = || rows.iter().flat_map(|row| &row.samples).map(|sample| sample.usage);
        Some(Self {
            rss_mib: mib(report::median(samples().map(|usage| usage.rss_kib).collect())?),
            files: samples().map(|usage| usage.files).min()?,
            threads: samples().map(|usage| usage.threads).min()?,
        })
    }
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Lets the day pass. Returns whether nothing was lost and nothing grew; `None`: it was interrupted.
pub fn run(world: &mut World, day: Day) -> Option<bool> {
    let mut outcomes = Vec::new();
    println!(
        "| time | faults | published | received | sent twice | lost | RSS MiB, median / most | of it anonymous | open files | threads |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut before = Counts::default();
    let mut first_faults = Kind::OF_A_DAY;
    first_faults.shuffle(&mut world.random);
    for kind in first_faults {
        let quiet = world.between(500, 3_000);
        world.pass(quiet);
        outcomes.extend(world.inflict(kind));
    }
    end_row(world, "before", outcomes.len(), &mut before);
    let rows = pass_day(world, day, &mut outcomes, &mut before);
    let is_interrupted = world.is_over();
    if !is_interrupted {
        drain(world);
    }
    report::faults(&outcomes, &[]);
    let mut is_well = has_not_grown(&rows, day.rows_an_hour as usize);
    if is_interrupted {
        // The signal went to everything the soak runs: what was under way cannot be counted.
        println!("interrupted: messages on their way were not counted");
        return None;
    }
    let lost = report::lost(world, &mut []);
    let ledger = world.ledger.lock();
    println!(
        "published {}, received {}, sent twice {}, lost {lost}, out of order {}, unreadable {}",
        world.published(),
        ledger.delivered,
        ledger.duplicates,
        ledger.disordered,
        ledger.unreadable
    );
    is_well &= lost == 0 && ledger.disordered == 0 && ledger.unreadable == 0;
    for problem in &world.problems {
        println!("PROBLEM: {problem}");
        is_well = false;
    }
    println!(
        "{}",
        if is_well {
            "VERDICT: nothing lost, nothing grew"
        } else {
            "VERDICT: FAILED"
        }
    );
    Some(is_well)
}

/// The faults come from a shuffled deck, so each is as frequent as the others.
fn pass_day(world: &mut World, day: Day, outcomes: &mut Vec<Outcome>, before: &mut Counts) -> Vec<Row> {
    let (mut deck, mut rows) = (Vec::new(), Vec::new());
    let row_time = day.hour / day.rows_an_hour;
    let begun = world.elapsed();
    // The times of the day at which something happens. In a compressed day everything comes later if a fault takes long.
    let mut delay = Duration::ZERO;
    for hour in 0..day.hours {
        let mut moments: Vec<_> = (0..FAULTS_AN_HOUR)
            .map(|_| world.between(0, day.hour.as_millis() as u64))
            .collect();
        moments.sort_unstable();
        let mut moments = moments.into_iter().peekable();
        for row in 1..=day.rows_an_hour {
            let end = row_time * row;
            let mut faults = 0;
            let start = begun + day.hour * hour as u32 + delay;
            while let Some(moment) = moments.next_if(|moment| *moment < end) {
                pass_until(world, start + moment);
                if deck.is_empty() {
                    deck = Kind::OF_A_DAY.into();
                    deck.shuffle(&mut world.random);
                }
                outcomes.extend(deck.pop().and_then(|kind| world.inflict(kind)));
                faults += 1;
            }
            pass_until(world, start + end);
            delay += world.elapsed().saturating_sub(start + end);
            let minutes = (hour * 60) as u32 + 60 / day.rows_an_hour * row;
            let time = format!("{:02}:{:02}", minutes / 60, minutes % 60);
            rows.extend(end_row(world, &time, faults, before));
            if world.is_over() {
                return rows;
            }
        }
    }
    rows
}

fn pass_until(world: &mut World, moment: Duration) {
    let rest = moment.saturating_sub(world.elapsed());
    world.pass(rest);
}

/// Prints a row of the table; `None`: nobody looked at the process since the last one.
fn end_row(world: &mut World, time: &str, faults: usize, before: &mut Counts) -> Option<Row> {
    world.poll();
    let counts = {
        let ledger = world.ledger.lock();
        Counts {
            published: world.published(),
            delivered: ledger.delivered,
            duplicates: ledger.duplicates,
            lost: ledger.runs.iter().map(crate::ledger::Run::gaps).sum(),
            samples: world.samples.len(),
        }
    };
    let row = Row {
        samples: world.samples[before.samples..].to_vec(),
    };
    let level = Level::of(std::slice::from_ref(&row))?;
    let usages = || row.samples.iter().map(|sample| sample.usage);
    println!(
        "| {time} | {faults} | {} | {} | {} | {} | {:.2} / {:.2} | {:.2} | {} | {} |",
        counts.published - before.published,
        counts.delivered - before.delivered,
        counts.duplicates - before.duplicates,
        counts.lost.saturating_sub(before.lost),
        level.rss_mib,
        mib(usages().map(|usage| usage.rss_kib).max()?),
        mib(report::median(usages().map(|usage| usage.anonymous_kib).collect())?),
        level.files,
        level.threads,
    );
    *before = counts;
    Some(row)
}

/// Compares the memory of the first hour with that of the last one, or of the halves of a shorter run, and the lowest numbers of
/// files and threads in the first third with those in the last: in an hour full of faults some work is always in progress.
fn has_not_grown(rows: &[Row], rows_an_hour: usize) -> bool {
    let hour = rows_an_hour.min(rows.len() / 2);
    let (Some([first, last]), Some([floor, last_floor])) = (ends(rows, hour), ends(rows, rows.len().div_ceil(3)))
    else {
        println!("\nthe run was too short to judge growth");
        return false;
    };
    let change = last.rss_mib / first.rss_mib - 1.0;
    println!(
        "\nfirst hour to last hour: RSS {:.2} to {:.2} MiB ({:+.1} %, accepted: {:.0} %); first third to last third: open files {} to {}, threads {} to {}",
        first.rss_mib,
        last.rss_mib,
        change * 100.0,
        MEMORY_TOLERANCE * 100.0,
        floor.files,
        last_floor.files,
        floor.threads,
        last_floor.threads
    );
    change.abs() <= MEMORY_TOLERANCE && last_floor.files <= floor.files && last_floor.threads <= floor.threads
}

/// So many of the first rows and of the last ones.
fn ends(rows: &[Row], count: usize) -> Option<[Level; 2]> {
    Some([Level::of(&rows[..count])?, Level::of(&rows[rows.len() - count..])?])
}

/// Everything is delivered that is left, and the daemon ends in order.
fn drain(world: &mut World) {
    if let Some(surroundings) = &world.surroundings {
        surroundings.camera.unplug();
    }
    let drained = world.until(DRAIN, |world| {
        world.figures.get("mqtt_connected") == 1 && world.figures.get("messages_waiting") == 0
    });
    if drained.is_none() {
        world
            .problems
            .push(format!("not everything was delivered within {DRAIN:?}"));
    }
    world.poll();
    world.end_daemon(DRAIN);
}
